//! Plans as text: what golden files, `explain` and errors show, and what [`parse`] reads back.
//!
//! Invariant: a program that is printed and parsed again is the same program (but for where its steps were
//! written), and no text, however made, makes [`parse`] panic or take more memory than a small multiple of
//! the text. The format is described in `docs/plan.md`.

use super::fuse::{Pass, Passes, Source};
use super::{Action, Buffer, Chunks, Edge, Job, Program, Step, Wait};
use crate::rank::{ChannelId, Rank};
use crate::signature::Collective;
use core::fmt;
use core::panic::Location;

#[cfg(test)]
mod tests;

/// The most ranks a parsed program may speak of: a root travels in 16 bits of the signature.
pub const RANKS_MAX: u32 = 1 << 16;

/// The most chunks a parsed program may cut its vector into: binding takes one word for each (8 MiB).
pub const CHUNKS_MAX: u32 = 1 << 20;

/// The most bytes of text that [`parse`] reads: a million steps, far more than any algorithm here writes.
pub const TEXT_BYTES_MAX: usize = 64 << 20;

/// Where the notes of a step, and of a pass, start, so that they stand in one column in all but long lines.
const NOTES_COLUMN: [usize; 2] = [38, 56];

impl fmt::Display for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Scratch => "scratch",
        })
    }
}

impl fmt::Display for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{}[{}]", self.buffer, self.first),
            // Widened: a program that was never checked may name chunks beyond any buffer.
            _ => {
                write!(
                    f,
                    "{}[{}..{}]",
                    self.buffer,
                    self.first,
                    u64::from(self.first) + u64::from(self.count)
                )
            }
        }
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wait {
            Wait::Streaming => write!(f, "{}~", self.on),
            Wait::Whole => write!(f, "{}", self.on),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy { from, into } => write!(f, "copy         {from} -> {into}"),
            Self::Reduce { from, into } => write!(f, "reduce       {from} -> {into}"),
            Self::Send { from, peer } => write!(f, "send         {from} -> {peer}"),
            Self::Recv { into, peer } => write!(f, "recv         {peer} -> {into}"),
            Self::RecvReduce { into, peer } => write!(f, "recv_reduce  {peer} -> {into}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut notes: Vec<String> = channel(self.channel).into_iter().chain(after(&self.after)).collect();
        if self.finishes {
            notes.push("finishes".into());
        }
        line(f, &self.action.to_string(), NOTES_COLUMN[0], &notes)
    }
}

/// One line for the program, one for each step.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Job { collective, size, root, in_place, pieces, cores } = self.job;
        write!(
            f,
            "program {collective} rank {} of {size} chunks {} pieces {pieces}",
            self.rank.0, self.chunks
        )?;
        if cores < size {
            write!(f, " cores {cores}")?;
        }
        if let Some(most) = self.outstanding_max {
            write!(f, " outstanding {most}")?;
        }
        if self.scratch_chunks > 0 {
            write!(f, " scratch {}", self.scratch_chunks)?;
        }
        if collective.rooted() || root != Rank(0) {
            write!(f, " root {}", root.0)?;
        }
        f.write_str(if in_place { " in_place\n" } else { "\n" })?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{number:>4}  {step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(chunks) => chunks.fmt(f),
            Self::Peer(peer) => peer.fmt(f),
        }
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.sources.len() > 1 { "fold" } else { "move" };
        let sources: Vec<String> = self.sources.iter().map(Source::to_string).collect();
        let sinks: Vec<String> =
            self.into.iter().map(Chunks::to_string).chain(self.to.iter().map(Rank::to_string)).collect();
        let mut notes: Vec<String> = channel(self.channel).into_iter().chain(after(&self.after)).collect();
        if self.finishes {
            notes.push("finishes".into());
        }
        let steps: Vec<String> = self.steps.iter().map(u32::to_string).collect();
        notes.push(format!("steps {}", steps.join(" ")));
        let what = format!("{verb}  {} -> {}", sources.join(" + "), sinks.join(", "));
        line(f, &what, NOTES_COLUMN[1], &notes)
    }
}

/// One line for all passes, one for each.
impl fmt::Display for Passes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "passes {}", self.passes.len())?;
        if self.scratch_chunks > 0 {
            write!(f, " scratch {}", self.scratch_chunks)?;
        }
        f.write_str("\n")?;
        for (number, pass) in self.passes.iter().enumerate() {
            writeln!(f, "{number:>4}  {pass}")?;
        }
        Ok(())
    }
}

fn channel(channel: ChannelId) -> Option<String> {
    // Nearly all programs use one; it goes without saying.
    (channel != ChannelId(0)).then(|| format!("channel {}", channel.0))
}

fn after(edges: &[Edge]) -> Option<String> {
    let edges: Vec<String> = edges.iter().map(Edge::to_string).collect();
    (!edges.is_empty()).then(|| format!("after {}", edges.join(" ")))
}

fn line(f: &mut fmt::Formatter<'_>, what: &str, column: usize, notes: &[String]) -> fmt::Result {
    // No padding without notes: golden files have no blanks at the ends of lines.
    if notes.is_empty() { f.write_str(what) } else { write!(f, "{what:<column$}  {}", notes.join("  ")) }
}

/// Text that is no program: where, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

/// Reads one program as `Display` prints it. Blank lines and lines that start with `#` are skipped.
///
/// The dependencies are those of the text, not derived anew: whether they suffice is for
/// [`check`](super::check) to say. Every number is bounded by the program's own line, so a parsed program
/// names no rank, chunk or step that it does not have.
///
/// # Errors
/// With the line and the reason, when the text is anything but one program.
#[track_caller]
pub fn parse(text: &str) -> Result<Program, ParseError> {
    let written_at = Location::caller();
    if text.len() > TEXT_BYTES_MAX {
        let reason =
            format!("{} bytes of text are more than {TEXT_BYTES_MAX}, the most there may be", text.len());
        return Err(ParseError { line: 1, reason });
    }
    let mut program: Option<Program> = None;
    let mut last = 1;
    for (index, text) in text.lines().enumerate() {
        last = index + 1;
        let mut line = Line { number: last, words: text.split_ascii_whitespace(), ahead: None };
        match line.peek() {
            None => continue,
            Some(word) if word.starts_with('#') => continue,
            Some("program") => {
                if program.is_some() {
                    return line.fail("a second program; one text holds one rank's program");
                }
                program = Some(line.program()?);
            }
            Some(word) => {
                let Some(program) = &mut program else {
                    return line.fail(format!("{} before the line `program ...`", quoted(word)));
                };
                let step = line.step(program, written_at)?;
                program.steps.push(step);
            }
        }
    }
    program.ok_or_else(|| ParseError { line: last, reason: "no line `program ...`".into() })
}

/// What is left of one line.
struct Line<'a> {
    number: usize,
    words: core::str::SplitAsciiWhitespace<'a>,
    ahead: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn fail<T>(&self, reason: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError { line: self.number, reason: reason.into() })
    }

    fn peek(&mut self) -> Option<&'a str> {
        self.ahead = self.ahead.or_else(|| self.words.next());
        self.ahead
    }

    fn next(&mut self) -> Option<&'a str> {
        self.ahead.take().or_else(|| self.words.next())
    }

    /// The next word, which must be there: `what` says what it should be.
    fn word(&mut self, what: &str) -> Result<&'a str, ParseError> {
        match self.next() {
            Some(word) => Ok(word),
            None => self.fail(format!("the line ends where {what} should be")),
        }
    }

    fn keyword(&mut self, keyword: &str) -> Result<(), ParseError> {
        match self.word(keyword)? {
            word if word == keyword => Ok(()),
            word => self.fail(format!("{} where {keyword} should be", quoted(word))),
        }
    }

    /// A number from `least` to `most`.
    fn number(&mut self, what: &str, least: u32, most: u32) -> Result<u32, ParseError> {
        let word = self.word(what)?;
        self.bounded(word, what, least, most)
    }

    fn bounded(&self, word: &str, what: &str, least: u32, most: u32) -> Result<u32, ParseError> {
        // `parse` alone would take a sign.
        let digits = word.bytes().all(|b| b.is_ascii_digit());
        match word.parse::<u32>() {
            Ok(number) if digits && (least..=most).contains(&number) => Ok(number),
            _ => self.fail(format!("{what} {} is no number from {least} to {most}", quoted(word))),
        }
    }

    fn end(&mut self) -> Result<(), ParseError> {
        match self.next() {
            None => Ok(()),
            Some(word) => self.fail(format!("{} is more than the line can hold", quoted(word))),
        }
    }

    fn program(&mut self) -> Result<Program, ParseError> {
        self.keyword("program")?;
        let name = self.word("a collective")?;
        let Some(collective) = Collective::ALL.into_iter().find(|c| c.name() == name) else {
            let known = Collective::ALL.map(Collective::name).join(", ");
            return self.fail(format!("no collective is called {}; there are {known}", quoted(name)));
        };
        self.keyword("rank")?;
        // Below `size`, which comes after it.
        let rank = self.number("rank", 0, RANKS_MAX - 1)?;
        self.keyword("of")?;
        let size = self.number("the number of ranks", 1, RANKS_MAX)?;
        if rank >= size {
            return self.fail(format!("rank {rank} is not one of {size} ranks"));
        }
        self.keyword("chunks")?;
        let chunks = self.number("the number of chunks", 1, CHUNKS_MAX)?;
        self.keyword("pieces")?;
        let pieces = self.number("the number of pieces", 1, CHUNKS_MAX)?;
        let mut job = Job { pieces, ..Job::new(collective, size) };
        if self.skip("cores") {
            job.cores = self.number("the number of cores", 1, size)?;
        }
        let mut outstanding_max = None;
        if self.skip("outstanding") {
            outstanding_max = Some(self.number("the most sends outstanding", 1, u32::MAX)?);
        }
        let mut scratch_chunks = 0;
        if self.skip("scratch") {
            scratch_chunks = self.number("the number of scratch chunks", 0, chunks)?;
        }
        if self.skip("root") {
            job.root = Rank(self.number("root", 0, size - 1)?);
        }
        job.in_place = self.skip("in_place");
        self.end()?;
        if !job.can_have(chunks) {
            let blocks = job.blocks();
            return self.fail(format!("{chunks} chunks can not be dealt out evenly to {blocks} blocks"));
        }
        Ok(Program { job, rank: Rank(rank), chunks, steps: Vec::new(), scratch_chunks, outstanding_max })
    }

    /// Takes the next word if it is `word`.
    fn skip(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        if found {
            self.ahead = None;
        }
        found
    }

    fn step(&mut self, program: &Program, at: &'static Location<'static>) -> Result<Step, ParseError> {
        let number = program.steps.len() as u32;
        self.number("step", number, number)?;
        let action = self.action(program)?;
        let mut step =
            Step { action, channel: ChannelId(0), finishes: false, after: Vec::new(), written_at: at };
        if self.skip("channel") {
            step.channel = ChannelId(self.number("channel", 0, u32::from(u16::MAX))? as u16);
        }
        if self.skip("after") {
            step.after.push(self.edge(number)?);
            while self.peek().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
                step.after.push(self.edge(number)?);
            }
        }
        step.finishes = self.skip("finishes");
        self.end()?;
        Ok(step)
    }

    fn action(&mut self, program: &Program) -> Result<Action, ParseError> {
        let verb = self.word("a verb")?;
        match verb {
            "copy" | "reduce" => {
                let from = self.chunks(program)?;
                self.keyword("->")?;
                let into = self.chunks(program)?;
                if from.count != into.count {
                    return self.fail(format!("{from} and {into} are not as many chunks"));
                }
                Ok(if verb == "copy" { Action::Copy { from, into } } else { Action::Reduce { from, into } })
            }
            "send" => {
                let from = self.chunks(program)?;
                self.keyword("->")?;
                Ok(Action::Send { from, peer: self.peer(program)? })
            }
            "recv" | "recv_reduce" => {
                let peer = self.peer(program)?;
                self.keyword("->")?;
                let into = self.chunks(program)?;
                Ok(if verb == "recv" {
                    Action::Recv { into, peer }
                } else {
                    Action::RecvReduce { into, peer }
                })
            }
            _ => self.fail(format!(
                "{} is no verb; there are copy, reduce, send, recv and recv_reduce",
                quoted(verb)
            )),
        }
    }

    fn peer(&mut self, program: &Program) -> Result<Rank, ParseError> {
        self.keyword("rank")?;
        let peer = Rank(self.number("rank", 0, program.job.size - 1)?);
        if peer == program.rank {
            return self.fail(format!("{peer} has no link to itself"));
        }
        Ok(peer)
    }

    /// `input[3]` or `input[3..5]`.
    fn chunks(&mut self, program: &Program) -> Result<Chunks, ParseError> {
        let word = self.word("chunks")?;
        let parts = word.strip_suffix(']').and_then(|w| w.split_once('['));
        let Some((name, range)) = parts else {
            return self.fail(format!("{} is no run of chunks like output[3] or output[3..5]", quoted(word)));
        };
        let (buffer, most) = match name {
            "input" => (Buffer::Input, program.chunks),
            "output" => (Buffer::Output, program.chunks),
            "scratch" => (Buffer::Scratch, program.scratch_chunks),
            _ => {
                return self.fail(format!("{} is no buffer; there are input, output, scratch", quoted(name)));
            }
        };
        let (first, end) = match range.split_once("..") {
            Some((first, end)) => {
                let first = self.bounded(first, "chunk", 0, most)?;
                let end = self.bounded(end, "the end of the chunks", 0, most)?;
                if end <= first {
                    return self.fail(format!("{} names no chunk", quoted(word)));
                }
                (first, end)
            }
            None => {
                let Some(last) = most.checked_sub(1) else {
                    return self.fail(format!("{} of a program without {buffer} chunks", quoted(word)));
                };
                let first = self.bounded(range, "chunk", 0, last)?;
                (first, first + 1)
            }
        };
        Ok(Chunks { buffer, first, count: end - first })
    }

    /// `3` or `3~`, of a step before `number`.
    fn edge(&mut self, number: u32) -> Result<Edge, ParseError> {
        let word = self.word("the number of an earlier step")?;
        let (digits, wait) = match word.strip_suffix('~') {
            Some(digits) => (digits, Wait::Streaming),
            None => (word, Wait::Whole),
        };
        let Some(last) = number.checked_sub(1) else {
            return self.fail("step 0 comes after no step");
        };
        Ok(Edge { on: self.bounded(digits, "earlier step", 0, last)?, wait })
    }
}

/// A word of the text as errors show it: short, and with nothing that a terminal would obey.
fn quoted(word: &str) -> String {
    const SHOWN_MAX: usize = 40; // a longer one says no more
    let shown: String = word.chars().take(SHOWN_MAX).flat_map(char::escape_default).collect();
    if word.chars().nth(SHOWN_MAX).is_some() { format!("`{shown}...`") } else { format!("`{shown}`") }
}
