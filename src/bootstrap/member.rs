//! The side of every rank but rank 0 of finding each other.
//!
//! Invariant: once rank 0 has taken this rank in, it is rank 0 that says why the job does not start, so that
//! every rank says the same.

use sohu_coll_core::{Error, Rank};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::door::{Door, Knock, Line, knock};
use super::handshake::{Fault, Party, read_frame, write_frame};
use super::host::HostFacts;
use super::id::socket_name;
use super::wire::{Cause, How, Member, Purpose, ROSTER_BYTES_MAX, Start};
use super::{Joined, START};

/// Pauses between two knocks: short at first, since ranks are mostly started together.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// How long after its own deadline a rank still waits for rank 0 to say who is missing.
const GRACE: Duration = Duration::from_secs(2);
const ROOT: Rank = Rank(0);

/// Joins the job at rank 0 and connects to every other rank.
pub(super) async fn run(
    party: &Arc<Party>,
    facts: HostFacts,
    started: Instant,
    deadline: Instant,
) -> Result<Joined, Error> {
    let mut name = [0; 16];
    getrandom::fill(&mut name).map_err(|e| super::system("getrandom", &io::Error::other(e)))?;
    // A name nobody can guess can not be taken by somebody else first.
    let mut door =
        Door::open(&socket_name(&name), party, Purpose::Mesh).map_err(|e| super::system("listen", &e))?;
    let member = Member { facts, door: name };
    let mut root = arrive(party, &member, started, deadline).await?;
    let verdict = read_frame::<Start>(&mut root.stream, ROSTER_BYTES_MAX);
    let members = match timeout_at(deadline + GRACE, verdict).await {
        Ok(Ok(Start::Roster(members))) if members.len() == party.place.size as usize => members,
        Ok(verdict) => return Err(refusal(verdict)),
        Err(_) => return Err(silent(started)),
    };
    let mut lines = match timeout_at(deadline + GRACE, mesh(party, &mut door, &members, &mut root)).await {
        Ok(lines) => lines?,
        Err(_) => return Err(silent(started)),
    };
    lines[0] = Some(root);
    Ok(Joined { roster: members.into_iter().map(|m| m.facts.bounded()).collect(), lines })
}

/// Knocks at rank 0 until it lets us in or the deadline passes.
async fn arrive(party: &Party, member: &Member, started: Instant, deadline: Instant) -> Result<Line, Error> {
    let name = party.id.root_name();
    let mut pause = PAUSE_MIN;
    loop {
        let patience_ms = u64::try_from(deadline.saturating_duration_since(Instant::now()).as_millis());
        let first = Start::Join(member.clone(), patience_ms.unwrap_or(u64::MAX));
        match timeout_at(deadline, knock(&name, ROOT, party, Purpose::Start, &first)).await {
            Ok(Ok(line)) => return Ok(line),
            Ok(Err(Knock::Failed(error))) => return Err(error),
            Ok(Err(Knock::NobodyThere | Knock::Again)) if Instant::now() < deadline => {}
            Ok(Err(Knock::NobodyThere)) => {
                let size = party.place.size;
                return Err(Error::Missing { ranks: vec![ROOT], size, waited: started.elapsed() });
            }
            Ok(Err(Knock::Again)) | Err(_) => return Err(silent(started)),
        }
        sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Connects to every other rank but rank 0, reports to rank 0, and waits for its word.
async fn mesh(
    party: &Arc<Party>,
    door: &mut Door,
    members: &[Member],
    root: &mut Line,
) -> Result<Vec<Option<Line>>, Error> {
    let (mut reader, mut writer) = root.stream.split();
    let verdict = read_frame::<Start>(&mut reader, ROSTER_BYTES_MAX);
    tokio::pin!(verdict);
    let met = tokio::select! {
        verdict = &mut verdict => return Err(refusal(verdict)),
        met = meet(party, door, members) => met,
    };
    let report = match &met {
        Ok(_) => Start::Ready,
        Err(error) => Start::Failed(Cause::of(error, Rank(party.place.rank))),
    };
    // If rank 0 is gone, reading says so.
    let _ = write_frame(&mut writer, &report).await;
    match (verdict.await, met) {
        (Ok(Start::Go), Ok(lines)) => Ok(lines),
        (Err(_), Err(error)) => Err(error),
        (verdict, _) => Err(refusal(verdict)),
    }
}

/// A socket to every rank but this one and rank 0: made to the lower ranks, taken from the higher.
async fn meet(party: &Arc<Party>, door: &mut Door, members: &[Member]) -> Result<Vec<Option<Line>>, Error> {
    let own = party.place.rank as usize;
    let mut lines: Vec<Option<Line>> = members.iter().map(|_| None).collect();
    let mut made = JoinSet::new();
    for (rank, member) in members.iter().enumerate().take(own).skip(1) {
        let (party, name) = (Arc::clone(party), socket_name(&member.door));
        made.spawn(async move { (rank, visit(&party, &name, Rank(rank as u32)).await) });
    }
    while (1..members.len()).any(|rank| rank != own && lines[rank].is_none()) {
        tokio::select! {
            Some(done) = made.join_next(), if !made.is_empty() => {
                let (rank, line) = done.expect("a knock neither panics nor is aborted");
                lines[rank] = Some(line?);
            }
            entrant = door.next() => {
                let rank = entrant.hello.rank.get() as usize;
                let expected = rank > own && rank < members.len() && lines[rank].is_none();
                if !expected || entrant.first != Some(Start::Meet) {
                    let what = "connected twice, or out of turn".into();
                    return Err(Error::Corrupt { peer: Rank(entrant.hello.rank.get()), what });
                }
                lines[rank] = Some(entrant.line);
            }
        }
    }
    Ok(lines)
}

async fn visit(party: &Party, name: &[u8], host: Rank) -> Result<Line, Error> {
    let mut pause = PAUSE_MIN;
    loop {
        match knock(name, host, party, Purpose::Mesh, &Start::Meet).await {
            Ok(line) => return Ok(line),
            Err(Knock::Failed(error)) => return Err(error),
            // Its door was open before its name was told, so it closed with its process.
            Err(Knock::NobodyThere) => return Err(lost(host)),
            Err(Knock::Again) => sleep(pause).await,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn lost(peer: Rank) -> Error {
    Error::PeerLost { peer, how: How::Died.text(), during: START.into() }
}

fn silent(started: Instant) -> Error {
    let why = " (it takes connections and then says nothing; is it stopped?)".into();
    Error::Timeout { culprits: vec![ROOT], during: START.into(), waited: started.elapsed(), why }
}

/// The error in what came from rank 0 instead of what was hoped for.
pub(super) fn refusal(verdict: Result<Start, Fault>) -> Error {
    match verdict {
        Ok(Start::Refused(cause)) => cause.into_error(),
        Ok(_) => Error::Corrupt { peer: ROOT, what: "spoke out of turn at the start".into() },
        Err(Fault::Broken(what)) => Error::Corrupt { peer: ROOT, what: what.into() },
        Err(_) => lost(ROOT),
    }
}
