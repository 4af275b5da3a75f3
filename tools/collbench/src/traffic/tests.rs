use super::*;

fn spread(text: &str, seed: u64, ranks: u32, asked: u64) -> Traffic {
    let source = Source::Spread(Spread::parse(text).expect(text), seed);
    source.traffic(ranks, asked, 4)
}

#[test]
fn every_rank_gives_all_that_was_asked_for_whatever_the_spread() {
    for text in
        "zipf:1.2 zipf:0 uniform:0.5 uniform:1 hot:1 hot:3 first:4 first:0 distance:1 distance:0.3".split(' ')
    {
        for ranks in [1, 2, 3, 8] {
            if text == "hot:3" && ranks < 3 {
                continue;
            }
            for asked in [0, 4, 12, 4096, 1 << 20] {
                let traffic = spread(text, 7, ranks, asked);
                for rank in 0..ranks {
                    assert_eq!(
                        traffic.gives(rank).iter().sum::<usize>() as u64,
                        asked,
                        "{text} {ranks} {asked}"
                    );
                }
            }
        }
    }
}

#[test]
fn spreads_are_what_their_names_say() {
    // All ranks agree on who is popular, and how much.
    let zipf = spread("zipf:1", 3, 4, 25 * 48);
    let mut shares = zipf.gives(0);
    assert!((0..4).all(|rank| zipf.gives(rank) == shares));
    shares.sort_unstable();
    assert_eq!(shares, [36 * 4, 48 * 4, 72 * 4, 144 * 4]);
    let hot = spread("hot:1", 3, 4, 4000);
    assert!((0..4).all(|rank| [0, 16_000].contains(&hot.gets(rank).iter().sum())));
    assert_eq!(hot.most(), [4000, 16_000]);
    let uniform = spread("uniform:0.5", 3, 4, 40_000);
    assert!(uniform.gives(1).iter().all(|bytes| (3_000..=20_000).contains(bytes)), "{uniform:?}");
    assert_ne!(uniform.gives(1), uniform.gives(2));
    let first = spread("first:4", 3, 4, 7 * 4_000);
    assert!((0..4).all(|rank| first.gives(rank) == [16_000, 4_000, 4_000, 4_000]));
    // What nccl-tests shows for four ranks: nothing for oneself, then one, two, three parts of six.
    let distance = spread("distance:1", 3, 4, 24_000);
    assert_eq!(distance.gives(0), [0, 4_000, 8_000, 12_000]);
    assert_eq!(distance.gives(1), [12_000, 0, 4_000, 8_000]);
    assert_eq!(spread("distance:0", 3, 4, 4_000).gives(2), [1000; 4]);
}

#[test]
fn a_seed_decides_and_another_one_decides_otherwise() {
    for text in ["zipf:1.2", "uniform:0.5", "hot:2"] {
        assert_eq!(spread(text, 5, 8, 8000), spread(text, 5, 8, 8000));
        assert!((6..20).any(|seed| spread(text, seed, 8, 8000) != spread(text, 5, 8, 8000)), "{text}");
    }
}

#[test]
fn what_is_no_spread_is_refused_with_those_that_there_are() {
    for text in
        ["zipf", "zipf:", "zipf:-1", "zipf:nan", "zipf:11", "uniform:2", "hot:0", "hot:1.5", "cold:1", ""]
    {
        let why = Spread::parse(text).expect_err(text);
        assert!(why.contains("spreads are zipf:1.2") && why.contains(&format!("{text:?}")), "{why}");
    }
}

/// A source read from a file with such a text.
fn file(text: &str, exact: bool) -> Result<Source, String> {
    let name =
        format!("sohu-collbench-matrix-{}-{}", std::process::id(), mix(text.len() as u64 ^ u64::from(exact)));
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).expect("a file");
    let source = Source::read(&path, exact);
    std::fs::remove_file(&path).expect("the file is ours");
    source.map_err(|error| error.replace(&path.display().to_string(), "FILE"))
}

#[test]
fn a_matrix_may_have_spaces_or_commas_comments_and_rows_of_zeros() {
    let rows = [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.5, 0.0, 1e3]];
    for text in [
        "0 1 2\n0 0 0\n0.5 0 1e3",
        "# who gives\n\n0, 1, 2 # whom\n0,0,0,\n  0.5,0,1e3\n",
        "0\t1\t2\r\n0 0 0\r\n.5 0 1000\r\n",
    ] {
        let Source::Matrix { weights, .. } = file(text, false).expect(text) else { panic!("a matrix") };
        assert_eq!(weights, rows, "{text}");
    }
}

#[test]
fn a_broken_matrix_is_refused_with_its_line() {
    for (text, why) in [
        ("", "FILE: there is no number in it"),
        ("# nothing\n", "FILE: there is no number in it"),
        ("1 2\n3", "FILE, line 2: 1 numbers, where the first row has 2"),
        ("1 2\n\n3 x", "FILE, line 3: column 2 is \"x\", which is no number from 0 to 1e15"),
        ("1,,2", "FILE, line 1: column 2 is \"\", which is no number from 0 to 1e15"),
        ("1 -2\n3 4", "FILE, line 1: column 2 is \"-2\", which is no number from 0 to 1e15"),
        ("1 nan\n3 4", "FILE, line 1: column 2 is \"nan\", which is no number from 0 to 1e15"),
        ("1 2\n3 4\n5 6", "FILE, line 3: the matrix is not square: 2 rows of 2 numbers were complete"),
        ("1 2 3\n4 5 6", "FILE: the matrix is not square: 2 rows of 3 numbers"),
    ] {
        assert_eq!(file(text, false).expect_err(text), why);
    }
    let error = Source::read(Path::new("/no/such/matrix"), false).expect_err("no file");
    assert!(error.starts_with("/no/such/matrix: No such file"), "{error}");
}

#[test]
fn weights_are_scaled_to_the_size_of_the_busiest_rank_and_bytes_are_not() {
    let text = "0 1 5\n0 0 0\n2 0 1\n";
    // Rank 0 gives 6, and rank 2 gets 6.
    let weights = file(text, false).expect("a matrix").traffic(3, 2400, 4);
    assert_eq!(weights.most(), [2400, 2400]);
    assert_eq!(weights.gives(0), [0, 400, 2000]);
    assert_eq!((weights.gives(1), weights.gets(2)), (vec![0; 3], vec![2000, 0, 400]));
    assert_eq!(weights.before(0, 2), 100);
    assert_eq!(weights.moved(), [400 + 2000 + 800, 400]);
    // Whole elements only.
    let exact = file("0 9\n16 3", true).expect("a matrix");
    assert!(exact.is_exact());
    assert_eq!(exact.traffic(2, 0, 4).gives(0), [0, 8]);
    assert_eq!(exact.traffic(2, 0, 4).gives(1), [16, 0]);
    // The first ranks of a greater matrix; and one that moves nothing.
    assert_eq!(file(text, false).expect("a matrix").traffic(2, 80, 4).gives(0), [0, 80]);
    assert_eq!(file("0 0\n0 0", false).expect("a matrix").traffic(2, 80, 4).most(), [0, 0]);
}

#[test]
fn what_is_for_fewer_or_more_ranks_is_refused() {
    let matrix = file("1 2\n3 4", false).expect("a matrix");
    assert_eq!(matrix.fits(2), Ok(()));
    assert_eq!(
        matrix.fits(3).map_err(|why| why.contains("is a matrix for 2 ranks, too few for a job of 3")),
        Err(true)
    );
    let hot = Source::Spread(Spread::Hot(3), 1);
    assert_eq!(hot.fits(2), Err("hot:3 is more ranks than the job's 2".into()));
}
