//! The processes of one job, from their start to their end.
//!
//! Invariant: only the thread that owns the [`Job`] reaps ranks, and it signals a rank's group only before reaping
//! its leader. A group's number is therefore never reused while it is signalled.

use super::lines::{Prefixer, relay};
use super::signals::Watch;
use super::{Ended, Launch, Output};
use crate::UniqueId;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use sohu_coll_core::error::Error;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// What a job waits for.
pub(super) enum Event {
    /// This rank has ended and can be reaped.
    Exited(u32),
    /// One stream of output of one rank is at its end; `false` when it could not be written.
    Drained(bool),
    /// The launcher got this signal.
    Signal(i32),
}

/// How far the end of a job has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Nothing went wrong yet.
    Running,
    /// One rank failed, or a signal was handed on: the others may end by themselves.
    Grace,
    /// All were sent SIGTERM.
    Terminated,
    /// All were sent SIGKILL.
    Killed,
}

/// A job that runs.
pub(super) struct Job {
    ranks: Vec<Option<Child>>,
    inbox: Receiver<Event>,
    events: Sender<Event>,
    /// Streams of output that are not at their end.
    streams: usize,
    /// Closed to tell the readers of output that no rank is left.
    over: Option<PipeWriter>,
    stage: Stage,
    deadline: Option<Instant>,
    timeout: Option<Duration>,
    grace: Duration,
    ended: Option<Ended>,
    _signals: Watch,
}

impl Job {
    /// Starts every rank, or none.
    pub(super) fn start(launch: &Launch) -> Result<Self, Error> {
        let (events, inbox) = channel();
        // Before the first rank, so that no signal finds ranks and nobody to hand it on.
        let signals = Watch::start(events.clone())?;
        let (over_reader, over_writer) = std::io::pipe().map_err(|e| system("pipe", &e))?;
        let mut job = Self {
            ranks: Vec::new(),
            inbox,
            events,
            streams: 0,
            over: Some(over_writer),
            stage: Stage::Running,
            deadline: launch.timeout.map(|t| Instant::now() + t),
            timeout: launch.timeout,
            grace: launch.grace,
            ended: None,
            _signals: signals,
        };
        let id = UniqueId::new();
        let over = Arc::new(over_reader);
        for rank in 0..launch.ranks {
            let (mut command, secret) = launch.command(rank, &id)?;
            let child = command.spawn().map_err(|error| unstartable(launch, rank, &error))?;
            drop(secret);
            job.ranks.push(Some(child));
            job.watch(rank)?;
            if launch.output == Output::Prefixed {
                job.read_output(rank, &over)?;
            }
        }
        Ok(job)
    }

    /// Waits for the end, whatever happens.
    pub(super) fn attend(&mut self) -> Ended {
        while self.ranks.iter().any(Option::is_some) {
            match self.next_event() {
                Ok(Event::Exited(rank)) => self.reap(rank),
                Ok(Event::Signal(signal)) => self.signalled(signal),
                Ok(Event::Drained(written)) => self.drained(written),
                Err(RecvTimeoutError::Timeout) => self.escalate(),
                Err(RecvTimeoutError::Disconnected) => unreachable!("the job holds a sender of its own"),
            }
        }
        // What the ranks wrote is in the pipes. Writing it out may take as long as the reader of our output
        // likes (a pager); a signal ends that.
        self.over = None;
        while self.streams > 0 {
            match self.inbox.recv() {
                Ok(Event::Drained(written)) => self.drained(written),
                Ok(Event::Signal(signal)) if signal != signal_hook::consts::SIGTSTP => break,
                _ => {}
            }
        }
        self.ended.clone().unwrap_or(Ended::Well)
    }

    fn next_event(&self) -> Result<Event, RecvTimeoutError> {
        match self.deadline {
            Some(deadline) => self.inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Tells the inbox when `rank` has ended, and leaves reaping it to the owner of the job.
    fn watch(&self, rank: u32) -> Result<(), Error> {
        let pid = self.group(rank).expect("the rank was just started");
        let events = self.events.clone();
        let wait = move || {
            while let Err(rustix::io::Errno::INTR) =
                waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            {}
            // The inbox is gone when a job was given up: then nobody wants to know.
            let _ = events.send(Event::Exited(rank));
        };
        thread(format!("wait {rank}"), wait)
    }

    /// Relays both streams of `rank`.
    fn read_output(&mut self, rank: u32, over: &Arc<PipeReader>) -> Result<(), Error> {
        let child = self.ranks[rank as usize].as_mut().expect("the rank was just started");
        let out = child.stdout.take().expect("the output of a rank is piped");
        let err = child.stderr.take().expect("the errors of a rank are piped");
        self.relay(rank, out, std::io::stdout(), over)?;
        self.relay(rank, err, std::io::stderr(), over)
    }

    fn relay(
        &mut self,
        rank: u32,
        mut pipe: impl Read + AsFd + Send + 'static,
        mut sink: impl Write + Send + 'static,
        over: &Arc<PipeReader>,
    ) -> Result<(), Error> {
        let events = self.events.clone();
        let over = Arc::clone(over);
        let work = move || {
            // The pipe stays open until this is told, so that a rank that dies of nobody reading does so afterwards.
            let done = relay(&mut pipe, over.as_fd(), Prefixer::new(rank), &mut sink);
            // As above: a job that was given up has no inbox.
            let _ = events.send(Event::Drained(done.is_ok()));
        };
        thread(format!("output {rank}"), work)?;
        self.streams += 1;
        Ok(())
    }

    fn group(&self, rank: u32) -> Option<Pid> {
        self.ranks[rank as usize].as_ref().map(Pid::from_child)
    }

    /// Ends what is left of the rank's group, then takes its status.
    fn reap(&mut self, rank: u32) {
        if let Some(group) = self.group(rank) {
            signal_group(group, Signal::KILL);
        }
        let Some(mut child) = self.ranks[rank as usize].take() else { return };
        let status = child.wait().expect("nobody else reaps the ranks of a job");
        if !status.success() {
            self.fail(failure(rank, status));
        }
    }

    /// The first thing that went wrong is how the job ended; the others get time to end by themselves.
    fn fail(&mut self, how: Ended) {
        self.ended.get_or_insert(how);
        if self.stage < Stage::Grace {
            self.enter(Stage::Grace);
        }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.deadline = (stage != Stage::Killed).then(|| Instant::now() + self.grace);
    }

    /// A deadline has passed.
    fn escalate(&mut self) {
        if self.stage == Stage::Running {
            let running = (0..).zip(&self.ranks).filter(|(_, child)| child.is_some()).map(|(r, _)| r);
            let after = self.timeout.unwrap_or_default();
            self.ended.get_or_insert(Ended::TimedOut { after, running: running.collect() });
        }
        if self.stage < Stage::Terminated {
            self.signal_all(Signal::TERM);
            // A stopped rank acts on SIGTERM only when it goes on.
            self.signal_all(Signal::CONT);
            self.enter(Stage::Terminated);
        } else {
            self.signal_all(Signal::KILL);
            self.enter(Stage::Killed);
        }
    }

    fn signalled(&mut self, number: i32) {
        if number == signal_hook::consts::SIGTSTP {
            return self.pause();
        }
        let signal = Signal::from_named_raw(number).expect("only named signals are watched");
        if matches!(self.ended, Some(Ended::Interrupted { .. })) {
            // Asked twice: no more patience.
            self.signal_all(Signal::KILL);
            return self.enter(Stage::Killed);
        }
        self.signal_all(signal);
        self.fail(Ended::Interrupted { signal: number as u8 });
    }

    /// Stops the ranks and this process, as a terminal's stop key asks, and goes on when the shell says so.
    fn pause(&mut self) {
        let stopped = Instant::now();
        self.signal_all(Signal::STOP);
        // If the launcher can not stop itself, it goes on, and so do the ranks.
        let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTSTP);
        self.signal_all(Signal::CONT);
        self.deadline = self.deadline.map(|deadline| deadline + stopped.elapsed());
    }

    fn drained(&mut self, written: bool) {
        self.streams = self.streams.saturating_sub(1);
        if !written {
            self.fail(Ended::Unread);
        }
    }

    fn signal_all(&self, signal: Signal) {
        for child in self.ranks.iter().flatten() {
            signal_group(Pid::from_child(child), signal);
        }
    }
}

impl Drop for Job {
    /// A job that could not start as a whole, or whose owner panicked, leaves nothing behind.
    fn drop(&mut self) {
        self.signal_all(Signal::KILL);
        for child in self.ranks.iter_mut().flatten() {
            // Waiting fails only for a child that was reaped, and then there is nothing to do.
            let _ = child.wait();
        }
    }
}

/// Sends `signal` to every process of the group. One that is gone already needs none.
fn signal_group(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal);
}

fn failure(rank: u32, status: ExitStatus) -> Ended {
    match status.code() {
        Some(code) => Ended::Exited { rank, code: code as u8 },
        None => Ended::Killed { rank, signal: status.signal().unwrap_or_default() as u8 },
    }
}

fn thread(name: String, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let started = std::thread::Builder::new().name(name.clone()).stack_size(256 << 10).spawn(work);
    started.map(drop).map_err(|error| system(&format!("thread {name:?}"), &error))
}

fn system(call: &str, error: &std::io::Error) -> Error {
    Error::System { call: call.into(), errno: error.raw_os_error().unwrap_or_default(), hint: String::new() }
}

fn unstartable(launch: &Launch, rank: u32, error: &std::io::Error) -> Error {
    let program = launch.program.to_string_lossy();
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound if program.contains('/') => {
            "; is the path right, and its interpreter there?"
        }
        std::io::ErrorKind::NotFound => "; is it in PATH? a program in this folder is ./name",
        std::io::ErrorKind::PermissionDenied => "; is it a program, and executable?",
        _ => "",
    };
    Error::System {
        call: format!("start of {program:?} as rank {rank}"),
        errno: error.raw_os_error().unwrap_or_default(),
        hint: hint.into(),
    }
}
