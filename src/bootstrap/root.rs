//! Rank 0's side of finding each other: it takes every rank in, tells all of them who is who, and once
//! all are connected to all, lets them go.
//!
//! Invariant: whatever goes wrong, everyone who came is told the same cause before rank 0 gives up, and who
//! comes shortly after is told too.

use sohu_coll_core::{Error, Rank};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::door::{Door, Entrant, Line};
use super::handshake::{Fault, Party, read_frame};
use super::host::HostFacts;
use super::wire::{Cause, Hello, How, Member, START_BYTES_MAX, Start, encode};
use super::{Joined, START, process};

/// How long rank 0 stays after a failure to tell late ranks of it.
const LINGER: Duration = Duration::from_secs(2);

/// Someone who came in. The socket is with a task of its own, so that nobody waits for anybody else's.
struct Seat {
    rank: u32,
    pid: Option<u32>,
    member: Member,
    ready: bool,
    orders: UnboundedSender<Order>,
}

/// What the task of a seat is to send.
enum Order {
    /// Send this, and go on.
    Tell(Arc<[u8]>),
    /// Send this, and give the socket back.
    Last(Arc<[u8]>),
}

/// What the task of a seat tells; the number is the seat's.
enum Event {
    Said(usize, Start),
    Gone(usize),
    Broke(usize, &'static str),
}

/// Rank 0 while ranks come in.
pub(super) struct Root {
    party: Arc<Party>,
    started: Instant,
    /// The earliest moment at which any rank would give up, this one or another.
    deadline: Instant,
    seats: Vec<Seat>,
    tasks: JoinSet<(usize, UnixStream)>,
    events: UnboundedReceiver<Event>,
    tell: UnboundedSender<Event>,
}

impl Root {
    pub(super) fn new(party: &Arc<Party>, started: Instant, deadline: Instant) -> Self {
        let (tell, events) = unbounded_channel();
        let party = Arc::clone(party);
        Self { party, started, deadline, seats: Vec::new(), tasks: JoinSet::new(), events, tell }
    }

    /// Takes every rank in. On success every rank but this one has a socket to every other one, and waits.
    pub(super) async fn run(mut self, mut door: Door, facts: HostFacts) -> Result<Joined, Error> {
        if let Err(error) = self.gather(&mut door).await {
            self.dismiss(Some(door), &error).await;
            return Err(error);
        }
        // Whoever knocks from here on is not of this start of the job.
        drop(door);
        let mut roster = vec![Member { facts, door: [0; 16] }; self.party.place.size as usize];
        for seat in &self.seats {
            roster[seat.rank as usize] = seat.member.clone();
        }
        self.order_all(&Start::Roster(roster.clone()), Order::Tell);
        if let Err(error) = self.connected().await {
            self.dismiss(None, &error).await;
            return Err(error);
        }
        self.order_all(&Start::Go, Order::Last);
        let mut lines: Vec<Option<Line>> = roster.iter().map(|_| None).collect();
        while let Some(done) = self.tasks.join_next().await {
            // A rank that died this very moment is found by the control sockets, on every rank alike.
            if let Ok((number, stream)) = done {
                let seat = &self.seats[number];
                lines[seat.rank as usize] = Some(Line { stream, pid: seat.pid });
            }
        }
        Ok(Joined { roster: roster.into_iter().map(|m| m.facts).collect(), lines })
    }

    /// Until every rank came.
    async fn gather(&mut self, door: &mut Door) -> Result<(), Error> {
        while !self.missing().is_empty() {
            tokio::select! {
                entrant = door.next() => {
                    let hello = entrant.hello;
                    self.party.same_build(&entrant.hello, entrant.line.pid)?;
                    if self.seat(entrant) {
                        self.judge(&hello)?;
                    }
                }
                Some(event) = self.events.recv() => self.heard(event)?,
                () = sleep_until(self.deadline) => return Err(self.too_late(door)),
            }
        }
        Ok(())
    }

    /// Until every rank is connected to every other.
    async fn connected(&mut self) -> Result<(), Error> {
        loop {
            let mut late: Vec<Rank> = self.seats.iter().filter(|s| !s.ready).map(|s| Rank(s.rank)).collect();
            if late.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some(event) = self.events.recv() => self.heard(event)?,
                () = sleep_until(self.deadline) => {
                    late.sort();
                    return Err(Error::Timeout {
                        culprits: late,
                        during: START.into(),
                        waited: self.started.elapsed(),
                        why: " to connect to the other ranks".into(),
                    });
                }
            }
        }
    }

    /// The ranks that have not come.
    fn missing(&self) -> Vec<Rank> {
        (1..self.party.place.size).filter(|r| self.seats.iter().all(|s| s.rank != *r)).map(Rank).collect()
    }

    fn too_late(&self, door: &mut Door) -> Error {
        match door.trouble.take() {
            Some(error) => super::system("accept", &error),
            None => Error::Missing {
                ranks: self.missing(),
                size: self.party.place.size,
                waited: self.started.elapsed(),
            },
        }
    }

    /// Gives whoever came a task that watches its socket. Says whether it came to join.
    fn seat(&mut self, entrant: Entrant) -> bool {
        let Some(Start::Join(member, patience_ms)) = entrant.first else { return false };
        let (orders, inbox) = unbounded_channel();
        let number = self.seats.len();
        let rank = entrant.hello.rank.get();
        let pid = entrant.line.pid.or(Some(entrant.hello.pid.get()));
        self.seats.push(Seat { rank, pid, member, ready: false, orders });
        self.tasks.spawn(serve(number, entrant.line.stream, inbox, self.tell.clone()));
        // Whoever gives up first ends it for all, so all hear of it from here and at the same time.
        if let Some(end) = Instant::now().checked_add(Duration::from_millis(patience_ms)) {
            self.deadline = self.deadline.min(end);
        }
        true
    }

    /// Whether the one who came last, and who said `hello`, can be part of this job.
    fn judge(&self, hello: &Hello) -> Result<(), Error> {
        let size = self.party.place.size;
        let (last, others) = self.seats.split_last().expect("called after someone was seated");
        let (rank, pid) = (last.rank, process(last.pid));
        if hello.size.get() != size {
            return Err(Error::Refused(format!(
                "rank {rank}{pid} says the job has {} ranks, rank 0 says {size}; give every rank the same world size",
                hello.size
            )));
        }
        if rank >= size {
            return Err(Error::Refused(format!(
                "a process{pid} says it is rank {rank}, but the job has {size} ranks, 0 to {}",
                size - 1
            )));
        }
        let earlier = if rank == 0 {
            Some(Some(std::process::id()))
        } else {
            others.iter().find(|seat| seat.rank == rank).map(|seat| seat.pid)
        };
        match earlier {
            None => Ok(()),
            Some(first) => Err(Error::Refused(format!(
                "two processes{} both say they are rank {rank}; give every rank its own number, \
                 and every job its own job id",
                super::processes(first, last.pid)
            ))),
        }
    }

    fn heard(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Said(number, Start::Ready) => {
                self.seats[number].ready = true;
                Ok(())
            }
            Event::Said(_, Start::Failed(cause)) => Err(cause.into_error()),
            Event::Said(number, _) => Err(self.broke(number, "spoke out of turn at the start")),
            Event::Broke(number, what) => Err(self.broke(number, what)),
            Event::Gone(number) => Err(Error::PeerLost {
                peer: Rank(self.seats[number].rank),
                how: How::Died.text(),
                during: START.into(),
            }),
        }
    }

    fn broke(&self, number: usize, what: &str) -> Error {
        Error::Corrupt { peer: Rank(self.seats[number].rank), what: what.into() }
    }

    fn order_all(&self, message: &Start, order: fn(Arc<[u8]>) -> Order) {
        let frame: Arc<[u8]> = encode(message).into();
        for seat in &self.seats {
            // A seat whose task has ended lost its rank, which its event says.
            let _ = seat.orders.send(order(Arc::clone(&frame)));
        }
    }

    /// Tells everyone who came, and for a while everyone who comes, why the job does not start.
    async fn dismiss(&mut self, door: Option<Door>, error: &Error) {
        let refusal = Start::Refused(Cause::of(error, Rank(0)));
        self.order_all(&refusal, Order::Last);
        if let Some(mut door) = door {
            // After the deadline nobody is left who would come.
            let end = self.deadline.min(Instant::now() + LINGER);
            while !self.missing().is_empty() {
                let Ok(entrant) = timeout_at(end, door.next()).await else { break };
                if self.seat(entrant) {
                    let frame = encode(&refusal).into();
                    let _ = self.seats[self.seats.len() - 1].orders.send(Order::Last(frame));
                }
            }
        }
        let end = Instant::now() + LINGER;
        while let Ok(Some(_)) = timeout_at(end, self.tasks.join_next()).await {}
    }
}

/// Sends what is ordered to one rank and tells what it says, until the last order.
async fn serve(
    number: usize,
    mut stream: UnixStream,
    mut orders: UnboundedReceiver<Order>,
    events: UnboundedSender<Event>,
) -> (usize, UnixStream) {
    let (mut reader, mut writer) = stream.split();
    let mut open = true;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Tell(frame)) => {
                    // If it is gone, reading says so.
                    let _ = writer.write_all(&frame).await;
                }
                Some(Order::Last(frame)) => {
                    let _ = writer.write_all(&frame).await;
                    return (number, stream);
                }
                None => return (number, stream),
            },
            // Given up half-way only for an order, and a rank that is owed one is not speaking, unless
            // the order is a refusal, after which nothing is read any more.
            said = read_frame::<Start>(&mut reader, START_BYTES_MAX), if open => {
                let event = match said {
                    Ok(message) => Event::Said(number, message),
                    Err(Fault::Broken(what)) => Event::Broke(number, what),
                    Err(_) => Event::Gone(number),
                };
                open = matches!(event, Event::Said(..));
                let _ = events.send(event);
            }
        }
    }
}
