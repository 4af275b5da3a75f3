//! Names of communicators in errors, and the bound on the memory that they take.

use crate::groups::on_all_transports;
use crate::ranks::{Member, Post};
use sohu_coll::{Builder, Communicator, Error, Misuse, ReduceOp, UniqueId};

const WELL: &str = "well";

pub(crate) fn names() {
    on_all_transports("names", 2);
}

pub(crate) fn memory() {
    on_all_transports("memory", 4);
}

/// Every kind of error: of the caller's making, of ranks that disagree, and after that.
fn errors(comm: &mut Communicator) -> [Error; 6] {
    let (rank, size) = (comm.rank() as usize, comm.size() as usize);
    let length = comm.all_reduce(&[1u8], &mut [0u8; 2], ReduceOp::Sum).expect_err("lengths differ");
    let alloc = comm.alloc::<u64>(usize::MAX).expect_err("there are not so many addresses");
    let ragged =
        comm.all_gather_v(&[0u8; 3], &mut [0u8; 9], &vec![2; size]).expect_err("the output is too long");
    let peer = comm.send(&[0u8], size as u32).expect_err("there is no such rank");
    let mismatch =
        comm.all_reduce_in_place(&mut vec![0u8; 1 + rank], ReduceOp::Sum).expect_err("counts differ");
    let after = comm.barrier().expect_err("the communicator is aborted");
    [length, alloc, ragged, peer, mismatch, after]
}

pub(crate) fn play_names(member: &mut Member) {
    let post = Post::read(&member.hear());
    let mut world = post.builder().name("world").build().expect("all ranks come");
    let mut part = world.split(Some(7), 0).expect("all ranks split").expect("a colour");
    let mut copy = part.duplicate().expect("all ranks duplicate");
    let mut deep = copy.duplicate().expect("all ranks duplicate");
    for _ in 0..20 {
        let next = deep.duplicate().expect("all ranks duplicate");
        assert!(next.name().is_some_and(|name| name.starts_with("world/7/copy/copy") && name.len() <= 64));
        deep = next;
    }
    assert_eq!([world.name(), part.name(), copy.name()], ["world", "world/7", "world/7/copy"].map(Some));
    for (comm, name) in [(&mut world, "world"), (&mut copy, "world/7/copy")] {
        for error in errors(comm) {
            let text = error.to_string();
            assert!(text.ends_with(&format!(" (on communicator '{name}')")), "{text}");
            assert_eq!(text.matches("on communicator").count(), 1, "{text}");
            assert!(
                !matches!(error.unnamed(), Error::Named { .. })
                    && !matches!(error.root_cause(), Error::Named { .. })
            );
        }
    }

    // Without a name nothing is added, and what comes out of it has none.
    let plain = &mut another(&post, &mut part, |builder| builder);
    assert_eq!(plain.duplicate().expect("all ranks duplicate").name(), None);
    assert_eq!(plain.name(), None);
    let plain_errors = errors(plain);
    assert!(
        plain_errors.iter().all(|error| !error.to_string().contains("on communicator")),
        "{plain_errors:?}"
    );
    assert!(matches!(plain_errors[0], Error::Misuse(Misuse::Length { .. })), "{plain_errors:?}");

    for wrong in ["", "a'b", "new\nline", &"x".repeat(65)] {
        let error = post.builder().name(wrong).build().expect_err("no such name");
        assert!(error.to_string().contains("SOHU_COLL_NAME"), "{error}");
    }
    member.say(WELL);
}

/// A communicator of the same ranks, without a name; `through` brings its id to all of them.
fn another(post: &Post, through: &mut Communicator, set: impl FnOnce(Builder) -> Builder) -> Communicator {
    let mut text = UniqueId::new().to_text().into_bytes();
    through.broadcast_in_place(&mut text, 0).expect("a good call");
    let id = UniqueId::from_text(core::str::from_utf8(&text).expect("text")).expect("an id");
    set(post.builder().id(&id)).build().expect("all ranks come")
}

pub(crate) fn play_memory(member: &mut Member) {
    const MAX: usize = 48 << 20;
    let post = Post::read(&member.hear());
    let shm = post.transport != "tcp";
    let mut comm = post.builder().name("tp").max_memory(MAX).build().expect("all ranks come");
    let before = comm.memory();
    assert_eq!((before.max(), before.total(), before.bytes("scratch")), (Some(MAX), before.process(), 0));
    let least = if shm { 2 << 20 } else { 256 << 10 };
    assert!((least..12 << 20).contains(&before.total()), "{before}");
    assert_eq!(before.items().iter().map(|item| item.1).sum::<usize>(), before.total());
    assert!(before.to_string().starts_with("memory of 'tp'\n"), "{before}");

    // Registered memory is counted while it is used, and only as much as there may be is had.
    if shm {
        // How much staging there is depends on how many of the ranks share a core.
        let report = before.to_string();
        let line = report.lines().find(|line| line.contains("staging")).expect("an item");
        let staging = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let buffer = comm.alloc::<u8>(10_000_000).expect("there is room");
        assert!((10_000_000..10_100_000).contains(&comm.memory().bytes("registered")), "{}", comm.memory());
        let error = comm.alloc::<u8>(40 << 20).expect_err("there is no room").to_string();
        for word in ["alloc of 41943040 bytes", "registered 9.5", &staging, "=48 MiB", "'tp'"] {
            assert!(error.contains(word), "{word}: {error}");
        }
        drop(buffer);
        let half = before.total() / 2;
        let buffer = comm.alloc::<u8>(MAX - before.total() - half).expect("it came back");
        // A second communicator finds no room while the buffer is there. Every rank is told, and the first one is as it was.
        let error = comm.duplicate().expect_err("there is no room").to_string();
        let copy = format!("a communicator of 4 ranks ({staging}, slots");
        for word in [copy.as_str(), "registered ", "(on communicator 'tp/copy')"] {
            assert!(error.contains(word), "{word}: {error}");
        }
        drop(buffer);
    }
    let copy = comm.duplicate().expect("there is room");
    assert_eq!(copy.memory().process(), comm.memory().total() + copy.memory().total());
    assert_eq!(copy.memory().max(), Some(MAX), "settings go on");
    drop(copy);
    assert_eq!(comm.memory().process(), comm.memory().total());

    // Buffers keep the segment of a communicator that is gone.
    if shm {
        let mut copy = comm.duplicate().expect("there is room");
        let buffer = copy.alloc::<u8>(1 << 20).expect("there is room");
        drop(copy);
        assert!(comm.memory().process() > comm.memory().total() + (1 << 20) + (2 << 20), "{}", comm.memory());
        drop(buffer);
        assert_eq!(comm.memory().process(), comm.memory().total());
    }
    scratch(&post, &mut comm);
    member.say(WELL);
}

/// Scratch memory grows with the calls that need it, up to the bound.
fn scratch(post: &Post, through: &mut Communicator) {
    let taken = through.memory().total();
    let bound = |builder: Builder| builder.max_memory(2 * taken + (3 << 20)).algorithm("all_to_all:bruck");
    let mut comm = another(post, through, bound);
    let (input, mut output) = (vec![1u8; 16 << 20], vec![0u8; 16 << 20]);
    let mut call =
        |comm: &mut Communicator, bytes: usize| comm.all_to_all(&input[..bytes], &mut output[..bytes]);
    call(&mut comm, 1 << 20).expect("there is room");
    let taken = comm.memory().bytes("scratch");
    assert!((512 << 10..3 << 20).contains(&taken), "{}", comm.memory());
    for bytes in [1 << 20, 400] {
        call(&mut comm, bytes).expect("there is room");
        assert_eq!(comm.memory().bytes("scratch"), taken, "calls that need no more take no more");
    }
    // What a rank refuses ends what the others are still in, so all must be done.
    through.barrier().expect("a good call");
    let error = call(&mut comm, 16 << 20).expect_err("there is no room");
    assert!(matches!(error, Error::Memory { .. }), "{error}");
    assert!(error.to_string().contains("scratch memory for a call needs"), "{error}");
    // Ranks that had room would wait for this one for ever, so it is the end of the communicator; of no other one.
    let after = call(&mut comm, 400).expect_err("it is aborted");
    assert!(matches!(after.root_cause(), Error::Memory { .. }), "{after}");
    through.barrier().expect("another communicator goes on");
}
