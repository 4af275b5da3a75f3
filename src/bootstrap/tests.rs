//! Ranks as threads of one process find each other, in every way it can go wrong.
//!
//! Each test has a job id of its own. Where a test needs a rank that misbehaves, it plays that rank with the
//! same functions a real one uses, and stops where the fault is to be.

mod faults;
mod strangers;
mod swaps;

use super::handshake::{read_frame, write_frame};
use super::*;
use std::thread;

/// Long enough never to pass in a test that expects no timeout.
pub(super) const LONG: Duration = Duration::from_secs(60);
/// Short enough to wait for in a test that expects one.
pub(super) const SHORT: Duration = Duration::from_millis(300);

/// What every rank of a job got, where each says for itself who it is.
pub(super) fn join_as(id: &UniqueId, places: &[(u32, u32)], timeout: Duration) -> Vec<Result<Mesh, Error>> {
    thread::scope(|scope| {
        let ranks: Vec<_> = places
            .iter()
            .map(|&(rank, size)| {
                let facts = HostFacts { pid: 1000 + rank, host: "test".into(), cpus: vec![rank] };
                scope.spawn(move || join(Place { rank, size }, id, timeout, facts))
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// The meshes of a job that starts.
pub(super) fn job(size: u32) -> Vec<Mesh> {
    let places: Vec<_> = (0..size).map(|rank| (rank, size)).collect();
    join_as(&UniqueId::new(), &places, LONG).into_iter().map(Result::unwrap).collect()
}

pub(super) fn errors(results: Vec<Result<Mesh, Error>>) -> Vec<Error> {
    results.into_iter().map(Result::unwrap_err).collect()
}

/// Runs `play` as one rank among real ones, which are `places`; gives what they got.
pub(super) fn with_player<F>(
    id: &UniqueId,
    places: &[(u32, u32)],
    player: Place,
    play: impl FnOnce(Arc<Party>) -> F + Send,
) -> Vec<Result<Mesh, Error>>
where
    F: Future<Output = ()>,
{
    thread::scope(|scope| {
        let party = Arc::new(Party::new(id, player));
        scope.spawn(move || runtime().block_on(play(party)));
        join_as(id, places, LONG)
    })
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Comes to rank 0 as a rank that then does what the test wants.
pub(super) async fn come(party: &Party) -> Line {
    let member = Member { facts: HostFacts::default(), door: [9; 16] };
    knock_until_open(party, &Start::Join(member, u64::MAX)).await.unwrap()
}

pub(super) async fn knock_until_open(party: &Party, first: &Start) -> Result<Line, Error> {
    loop {
        match knock(&party.id.root_name(), Rank(0), party, Purpose::Start, first).await {
            Ok(line) => return Ok(line),
            Err(Knock::Failed(error)) => return Err(error),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

pub(super) async fn hear(line: &mut Line) -> Start {
    read_frame(&mut line.stream, ROSTER_BYTES_MAX).await.unwrap()
}

#[test]
fn every_rank_learns_where_every_other_runs() {
    for size in [2, 3, 4, 8] {
        for (rank, mesh) in job(size).iter().enumerate() {
            let pids: Vec<u32> = mesh.roster().iter().map(|facts| facts.pid).collect();
            assert_eq!(pids, (1000..1000 + size).collect::<Vec<_>>(), "rank {rank} of {size}");
            assert_eq!((mesh.rank(), mesh.size()), (Rank(rank as u32), size));
        }
    }
}

#[test]
fn a_job_of_one_rank_needs_nobody() {
    let mut mesh = job(1).remove(0);
    assert_eq!(mesh.roster().len(), 1);
    let swapped = mesh.swap(b"alone", None, std::time::Instant::now()).unwrap();
    assert_eq!(swapped.len(), 1);
    assert!(swapped[0].0.is_empty() && swapped[0].1.is_none());
    let mut control = mesh.into_control();
    assert_eq!(control.poll(&crate::control::Status::default()), Ok(()));
    assert!(control.probe(LONG, &crate::control::Status::default()).is_empty());
}

#[test]
fn a_rank_that_can_not_be_is_refused_at_once() {
    for (rank, size) in [(0, 0), (2, 2), (0, RANKS_MAX + 1)] {
        let told = errors(join_as(&UniqueId::new(), &[(rank, size)], LONG)).remove(0).to_string();
        assert!(told.contains(&format!("rank {rank} of {size}")), "{told}");
    }
}

#[test]
fn a_caller_inside_of_a_runtime_can_start_a_job() {
    let id = UniqueId::new();
    thread::scope(|scope| {
        let other = scope.spawn(|| join_as(&id, &[(1, 2)], LONG).remove(0).unwrap());
        let own = runtime().block_on(async { join_as_is(&id) });
        assert_eq!(own.roster().len(), other.join().unwrap().roster().len());
    });
}

fn join_as_is(id: &UniqueId) -> Mesh {
    join(Place { rank: 0, size: 2 }, id, LONG, HostFacts::of_this_process()).unwrap()
}

#[test]
fn one_job_can_follow_another_under_the_same_id() {
    let id = UniqueId::new();
    for _ in 0..3 {
        for result in join_as(&id, &[(0, 2), (1, 2)], LONG) {
            result.unwrap();
        }
    }
}

#[test]
fn two_jobs_at_once_do_not_meet() {
    thread::scope(|scope| {
        let jobs: Vec<_> = (0..4).map(|_| scope.spawn(|| job(3))).collect();
        for job in jobs {
            assert_eq!(job.join().unwrap().len(), 3);
        }
    });
}

#[test]
fn nothing_is_left_at_the_socket_names() {
    let id = UniqueId::new();
    drop(join_as(&id, &[(0, 2), (1, 2)], LONG));
    let open = std::fs::read_to_string("/proc/net/unix").unwrap();
    assert!(!open.contains(std::str::from_utf8(&id.root_name()).unwrap()));
}
