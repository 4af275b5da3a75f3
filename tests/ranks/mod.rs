//! Tests over real processes: a test program starts itself again, once for each rank, and directs the ranks
//! through pipes.
//!
//! Invariant: nothing waits for time to pass. A rank says where it is in one line, the test answers in one line, and every
//! wait of the test ends at the group's deadline, which kills all ranks and shows what each of them said. No rank
//! outlives the [`Group`] that started it.

// Each test program uses its own part of this module.
#![allow(dead_code)]

pub(crate) mod exact;
pub(crate) mod host;
pub(crate) mod report;
pub(crate) mod values;

use rustix::process::{Pid, Signal, kill_process};
use sohu_coll::{Builder, Communicator, Fetch, TransportKind, UniqueId};
use std::io::{BufRead, BufReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The first argument of a test program that is to be a rank.
const RANK: &str = "as-rank";

/// How long one group may take in all, unless its test says otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a group gets once its time is over, to be told from a machine that stood still.
const GRACE: Duration = Duration::from_secs(5);

/// The ways there are between ranks, by their names: staged in shared memory, the same with private memory fetched by the kernel,
/// and sockets.
pub(crate) const TRANSPORTS: [&str; 3] = ["shm", "fetched", "tcp"];

/// A test: its name, which is a claim, and what shows that it holds.
pub(crate) type Test = (&'static str, fn());

/// A part that ranks play: its name, and what the rank does.
pub(crate) type Role = (&'static str, fn(&mut Member));

/// The `main` of a test program without Rust's own harness: runs the tests one after another, so that no test's
/// processes take the cores from another's, or plays the one role it was started for.
/// Understands what `cargo test -- ...` passes on as far as it chooses tests.
pub(crate) fn main(tests: &[Test], roles: &[Role]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == RANK) {
        let role = roles.iter().find(|(name, _)| arguments.get(1).is_some_and(|role| role == name));
        let (_, play) = role.expect("ranks are started with a role that this program has");
        // A test that is killed takes its ranks with it.
        sohu_coll::launch::die_with_parent();
        play(&mut Member { lines: std::io::stdin().lines() });
        return ExitCode::SUCCESS;
    }
    let chosen = choose(tests, &arguments);
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    for (name, test) in &chosen {
        print!("test {name} ... ");
        let _ = std::io::stdout().flush();
        let begun = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("{} ({:.1} s)", if passed { "ok" } else { "FAILED" }, begun.elapsed().as_secs_f64());
        failed.extend((!passed).then_some(*name));
    }
    println!("\ntest result: {} passed; {} failed {failed:?}\n", chosen.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// The tests that the arguments choose, by Rust's own rules.
fn choose(tests: &[Test], arguments: &[String]) -> Vec<Test> {
    const WITH_VALUE: [&str; 6] = ["--test-threads", "--format", "--color", "--logfile", "--skip", "-Z"];
    let (mut filters, mut skips) = (Vec::new(), Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if WITH_VALUE.contains(&argument.as_str()) {
            let value = rest.next();
            skips.extend(value.filter(|_| argument == "--skip"));
        } else if !argument.starts_with('-') {
            filters.push(argument);
        }
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let fits = |name: &str, filter: &String| {
        if has("--exact") { name == filter } else { name.contains(filter.as_str()) }
    };
    let wanted = tests.iter().filter(|(name, _)| {
        let kept = filters.is_empty() || filters.iter().any(|filter| fits(name, filter));
        // No test here is one that Rust would ignore.
        kept && !skips.iter().any(|skip| fits(name, skip)) && !has("--ignored")
    });
    wanted.copied().collect()
}

/// One rank, as it sees itself.
pub(crate) struct Member {
    lines: std::io::Lines<std::io::StdinLock<'static>>,
}

impl Member {
    /// The next line from the test; `None` when it has nothing more to say.
    pub(crate) fn hear_more(&mut self) -> Option<String> {
        self.lines.next()?.ok()
    }

    /// The next line from the test.
    pub(crate) fn hear(&mut self) -> String {
        self.hear_more().expect("the test says what it has to say before it lets go")
    }

    /// One line to the test.
    pub(crate) fn say(&mut self, line: &str) {
        println!("{}", line.replace('\n', " "));
    }
}

/// Which rank a process is to be, in which job: one line of text, the secret included, which is why it comes
/// through a pipe and not as an argument.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) rank: u32,
    pub(crate) size: u32,
    pub(crate) transport: String,
    pub(crate) timeout_ms: u64,
    /// The algorithm to force, or `-`.
    pub(crate) algorithm: String,
    pub(crate) id: String,
}

impl Post {
    /// The posts of all ranks of a job of its own.
    pub(crate) fn all(size: u32, transport: &str, timeout_ms: u64, algorithm: &str) -> Vec<Post> {
        let id = UniqueId::new().to_text();
        let post = |rank| Post {
            rank,
            size,
            transport: transport.into(),
            timeout_ms,
            algorithm: algorithm.into(),
            id: id.clone(),
        };
        (0..size).map(post).collect()
    }

    /// The line that says it.
    pub(crate) fn line(&self) -> String {
        let Self { rank, size, transport, timeout_ms, algorithm, id } = self;
        format!("{rank} {size} {transport} {timeout_ms} {algorithm} {id}")
    }

    /// Reads such a line.
    pub(crate) fn read(line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [rank, size, transport, timeout_ms, algorithm, id] = words[..] else {
            panic!("a post has six words, this one has {}", words.len());
        };
        Self {
            rank: rank.parse().expect("a rank"),
            size: size.parse().expect("a size"),
            transport: transport.into(),
            timeout_ms: timeout_ms.parse().expect("milliseconds"),
            algorithm: algorithm.into(),
            id: id.into(),
        }
    }

    /// The builder of a communicator of this post.
    pub(crate) fn builder(&self) -> Builder {
        let id = UniqueId::from_text(&self.id).expect("the test passed on a good id");
        // Both ways of private memory are tested, whichever one is faster here.
        let (transport, fetch) = match &*self.transport {
            "tcp" => (TransportKind::Tcp, Fetch::Never),
            "fetched" => (TransportKind::Shm, Fetch::Always),
            _ => (TransportKind::Shm, Fetch::Never),
        };
        let builder = Communicator::builder().rank(self.rank).size(self.size).id(&id);
        let builder = builder.transport(transport).fetch(fetch);
        let builder = builder.timeout(Duration::from_millis(self.timeout_ms));
        if self.algorithm == "-" { builder } else { builder.algorithm(&self.algorithm) }
    }

    /// The communicator, where nothing but success will do.
    pub(crate) fn join(&self) -> Communicator {
        self.builder().build().unwrap_or_else(|error| panic!("rank {} of {}: {error}", self.rank, self.size))
    }
}

/// One line of a rank, and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) at: Instant,
}

/// Everything a process wrote, for when its test fails.
type Log = Arc<Mutex<Vec<String>>>;

/// One rank, as its test sees it.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Line>,
    log: Log,
    readers: Vec<JoinHandle<()>>,
    killed: bool,
}

/// The processes of one test.
pub(crate) struct Group {
    processes: Vec<Process>,
    deadline: Instant,
}

impl Group {
    /// Starts `count` processes that play `role`.
    pub(crate) fn start(role: &str, count: u32) -> Self {
        let mut group = Self { processes: Vec::new(), deadline: Instant::now() + PATIENCE };
        for _ in 0..count {
            group.processes.push(Process::start(role));
        }
        group
    }

    /// The same, with more time.
    pub(crate) fn within(mut self, patience: Duration) -> Self {
        self.deadline = Instant::now() + patience;
        self
    }

    /// How many processes there are.
    pub(crate) fn len(&self) -> usize {
        self.processes.len()
    }

    /// One line to one process. What a dead one would have heard is of no interest.
    pub(crate) fn tell(&mut self, process: usize, line: &str) {
        if let Some(input) = &mut self.processes[process].input {
            let _ = writeln!(input, "{line}").and_then(|()| input.flush());
        }
    }

    /// The same line to all processes.
    pub(crate) fn tell_all(&mut self, line: &str) {
        (0..self.len()).for_each(|process| self.tell(process, line));
    }

    /// The next line of one process.
    #[track_caller]
    pub(crate) fn hear(&mut self, process: usize) -> Line {
        match self.hear_or_end(process) {
            Some(line) => line,
            None => self.fail(&format!("process {process} ended too early")),
        }
    }

    /// The next line of one process, or `None` when it ends without one.
    #[track_caller]
    pub(crate) fn hear_or_end(&mut self, process: usize) -> Option<Line> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // Clocks go on while a virtual machine is suspended: when it goes on, so may the ranks.
        let lines = &self.processes[process].lines;
        let first = lines.recv_timeout(left);
        let heard = if first == Err(RecvTimeoutError::Timeout) { lines.recv_timeout(GRACE) } else { first };
        match heard {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => self.fail(&format!("process {process} does nothing")),
        }
    }

    /// The next line of every process.
    #[track_caller]
    pub(crate) fn hear_all(&mut self) -> Vec<Line> {
        (0..self.len()).map(|process| self.hear(process)).collect()
    }

    /// The next line of every process, each of which must be `expected`.
    #[track_caller]
    pub(crate) fn all_say(&mut self, expected: &str) {
        for process in 0..self.len() {
            let line = self.hear(process);
            if line.text != expected {
                self.fail(&format!("process {process} said {:?}, not {expected:?}", line.text));
            }
        }
    }

    /// The number of a process at the kernel.
    pub(crate) fn pid(&self, process: usize) -> Pid {
        Pid::from_child(&self.processes[process].child)
    }

    /// Sends a signal.
    pub(crate) fn signal(&mut self, process: usize, signal: Signal) {
        let pid = self.pid(process);
        self.processes[process].killed |= signal == Signal::KILL;
        kill_process(pid, signal).expect("a process that was not waited for can be signalled");
    }

    /// Whether a process ends without another line.
    #[track_caller]
    pub(crate) fn ends(&mut self, process: usize) -> bool {
        self.hear_or_end(process).is_none()
    }

    /// Lets go of all processes and waits for their end: nothing more may be said, and whoever was not killed
    /// must end well.
    #[track_caller]
    pub(crate) fn end(mut self) {
        self.processes.iter_mut().for_each(|process| process.input = None);
        for at in 0..self.len() {
            if !self.ends(at) {
                self.fail(&format!("process {at} has more to say"));
            }
            let process = &mut self.processes[at];
            // Its output is at its end, and it holds that until it exits.
            let status = process.child.wait().expect("the test started it");
            if !status.success() && !process.killed {
                self.fail(&format!("process {at} ended with {status}"));
            }
        }
    }

    /// Kills all ranks and fails the test with all that they said.
    #[track_caller]
    pub(crate) fn fail(&mut self, why: &str) -> ! {
        let mut said = String::new();
        for (at, process) in self.processes.iter_mut().enumerate() {
            process.kill();
            let status = process.child.wait().map_or("gone".into(), |status| status.to_string());
            process.readers.drain(..).for_each(|reader| drop(reader.join()));
            let log = process.log.lock().map_or(Vec::new(), |log| log.clone());
            said += &format!("\n--- process {at} ({status}):\n{}", log.join("\n"));
        }
        panic!("{why}{said}\n---");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.processes.iter_mut().for_each(Process::kill);
        for process in &mut self.processes {
            let _ = process.child.wait();
        }
    }
}

impl Process {
    fn start(role: &str) -> Self {
        let program = std::env::current_exe().expect("a program knows where it is");
        let mut command = Command::new(program);
        command.args([RANK, role]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a test program can start itself");
        let (sender, lines) = channel();
        let log = Log::default();
        let output = child.stdout.take().expect("it was asked for");
        let errors = child.stderr.take().expect("it was asked for");
        let readers = vec![read(output, log.clone(), Some(sender)), read(errors, log.clone(), None)];
        Self { input: child.stdin.take(), child, lines, log, readers, killed: false }
    }

    fn kill(&mut self) {
        self.input = None;
        // It may have ended, which is as good.
        let _ = self.child.kill();
    }
}

/// Reads a stream to its end, line by line.
fn read(stream: impl Read + Send + 'static, log: Log, sender: Option<Sender<Line>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for text in BufReader::new(stream).lines().map_while(Result::ok) {
            let at = Instant::now();
            if let Ok(mut log) = log.lock() {
                log.push(text.clone());
            }
            if let Some(sender) = &sender {
                // A test that no longer listens is about to fail or to end.
                let _ = sender.send(Line { text, at });
            }
        }
    })
}
