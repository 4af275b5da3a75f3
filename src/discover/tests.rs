//! Who each launcher says we are, and what a user is told when it does not say.

use super::*;

fn host() -> HostIdentity {
    HostIdentity { boot: "boot".into(), launcher: Some((100, 5)) }
}

fn find_on(host: &HostIdentity, vars: &[(&str, &str)]) -> Result<Found, Error> {
    let vars = vars.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    discover_on(&Config::from_vars(vars)?, host)
}

fn find(vars: &[(&str, &str)]) -> Result<Found, Error> {
    find_on(&host(), vars)
}

fn place(vars: &[(&str, &str)]) -> (u32, u32) {
    let found = find(vars).unwrap();
    (found.rank, found.size)
}

fn told(vars: &[(&str, &str)]) -> String {
    find(vars).unwrap_err().to_string()
}

/// The variables of each launcher, for rank 1 of 4.
const SETS: [&[(&str, &str)]; 5] = [
    &[("SOHU_COLL_RANK", "1"), ("SOHU_COLL_WORLD_SIZE", "4"), ("SOHU_COLL_COMM_ID", "a")],
    &[("RANK", "1"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "29500")],
    &[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4"), ("PMIX_NAMESPACE", "prterun-1")],
    &[("PMI_RANK", "1"), ("PMI_SIZE", "4")],
    &[("SLURM_PROCID", "1"), ("SLURM_NTASKS", "4"), ("SLURM_JOB_ID", "77"), ("SLURM_STEP_ID", "0")],
];

#[test]
fn each_launcher_is_understood() {
    for set in SETS {
        assert_eq!(place(set), (1, 4), "{set:?}");
    }
}

#[test]
fn the_first_launcher_in_the_order_decides() {
    for (first, set) in SETS.iter().enumerate() {
        let mut vars: Vec<(&str, &str)> = set.to_vec();
        for later in &SETS[first + 1..] {
            vars.extend([(later[0].0, "2"), (later[1].0, "8")]);
        }
        assert_eq!(place(&vars), (1, 4), "{vars:?}");
    }
}

#[test]
fn a_half_set_pair_is_an_error_that_names_both() {
    for set in SETS {
        for half in [set[0], set[1]] {
            let told = told(&[half]);
            assert!(told.contains(set[0].0) && told.contains(set[1].0) && told.contains("both"), "{told}");
        }
    }
}

#[test]
fn a_rank_that_is_not_below_the_size_is_an_error() {
    for set in SETS {
        for (rank, size) in [("4", "4"), ("5", "4"), ("0", "0"), ("4294967295", "1"), ("-1", "4"), ("1", "x")]
        {
            let told = told(&[(set[0].0, rank), (set[1].0, size)]);
            assert!(told.contains(set[0].0) || told.contains(set[1].0), "{told}");
        }
    }
}

#[test]
fn nothing_set_lists_what_was_looked_for() {
    let told = told(&[("HOME", "/root")]);
    for name in SETS.iter().flat_map(|set| [set[0].0, set[1].0]).chain(["sohu-coll run -n 2"]) {
        assert!(told.contains(name), "{told}");
    }
}

#[test]
fn ranks_of_one_job_share_an_id_and_ranks_of_two_do_not() {
    for set in SETS {
        let mut rank_2 = set.to_vec();
        rank_2[0].1 = "2";
        assert_eq!(find(set).unwrap().id, find(&rank_2).unwrap().id, "{set:?}");
        for fact in 2..set.len() {
            let mut other = set.to_vec();
            other[fact].1 = "other";
            assert_ne!(find(set).unwrap().id, find(&other).unwrap().id, "{set:?}");
        }
    }
    let torch = |run: &'static str| [SETS[1], &[("TORCHELASTIC_RESTART_COUNT", run)]].concat();
    assert_ne!(find(&torch("0")).unwrap().id, find(&torch("1")).unwrap().id);
    let other_proxy = HostIdentity { launcher: Some((100, 6)), ..host() };
    assert_ne!(find(SETS[3]).unwrap().id, find_on(&other_proxy, SETS[3]).unwrap().id);
}

#[test]
fn our_own_rank_variables_take_the_job_of_the_launcher_around_them() {
    let vars = [&[("SOHU_COLL_RANK", "0"), ("SOHU_COLL_WORLD_SIZE", "2")], SETS[2]].concat();
    let found = find(&vars).unwrap();
    assert_eq!((found.rank, found.size), (0, 2));
    assert_eq!(found.id, find(SETS[2]).unwrap().id);
}

#[test]
fn a_job_without_a_name_is_an_error_unless_it_has_one_rank() {
    let told_ours = told(&[("SOHU_COLL_RANK", "0"), ("SOHU_COLL_WORLD_SIZE", "2")]);
    assert!(told_ours.contains("SOHU_COLL_COMM_ID"), "{told_ours}");
    let told_torch = told(&[("RANK", "0"), ("WORLD_SIZE", "2")]);
    assert!(told_torch.contains("MASTER_ADDR and MASTER_PORT or SOHU_COLL_COMM_ID"), "{told_torch}");
    assert_eq!(place(&[("SOHU_COLL_RANK", "0"), ("SOHU_COLL_WORLD_SIZE", "1")]), (0, 1));
}

#[test]
fn ranks_on_several_hosts_are_refused_at_once() {
    for (set, local) in [(1, "LOCAL_WORLD_SIZE"), (2, "OMPI_COMM_WORLD_LOCAL_SIZE"), (3, "MPI_LOCALNRANKS")] {
        let told = told(&[SETS[set], &[(local, "2")]].concat());
        assert!(told.contains("2 of 4 ranks") && told.contains(local), "{told}");
        assert_eq!(place(&[SETS[set], &[(local, "4")]].concat()), (1, 4));
    }
}

#[test]
fn a_comm_id_names_the_job_under_any_launcher() {
    let named = |set: &[(&str, &str)]| find(&[set, &[("SOHU_COLL_COMM_ID", "a")]].concat()).unwrap().id;
    assert_eq!(named(SETS[1]), named(SETS[4]));
    assert_eq!(named(SETS[1]), find(SETS[0]).unwrap().id);
}
