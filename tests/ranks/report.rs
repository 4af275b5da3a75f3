//! How a rank tells its test in one line how a call went.

use sohu_coll::{Error, Rank};
use std::time::{Duration, Instant};

/// How a call went on one rank.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The kind of error the call returned; `None` if it succeeded.
    pub(crate) error: Option<String>,
    /// The kind of error that was the first cause.
    pub(crate) cause: String,
    /// The ranks that the cause blames.
    pub(crate) culprits: Vec<u32>,
    /// How long the call took.
    pub(crate) took: Duration,
    /// What became of the output: `right`, `untouched` or `wrong`.
    pub(crate) output: String,
    /// The error as a user reads it.
    pub(crate) text: String,
    /// When the report came.
    pub(crate) at: Instant,
}

/// The line for a call that took `took` and left its output as `output` says.
pub(crate) fn line(result: &Result<(), Error>, took: Duration, output: &str) -> String {
    let (error, cause, culprits, text) = match result {
        Ok(()) => ("-", "-", String::new(), String::new()),
        Err(error) => {
            let cause = error.root_cause();
            let culprits: Vec<String> = blamed(cause).iter().map(|rank| rank.0.to_string()).collect();
            (kind(error), kind(cause), culprits.join(","), error.to_string())
        }
    };
    format!("report {error} {cause} [{culprits}] {} {output} {text}", took.as_micros())
}

impl Report {
    /// Reads such a line.
    pub(crate) fn read(line: &super::Line) -> Option<Self> {
        let mut words = line.text.splitn(7, ' ');
        if words.next() != Some("report") {
            return None;
        }
        let error = words.next()?;
        let cause = words.next()?.to_owned();
        let culprits = words.next()?.trim_matches(['[', ']']);
        let culprits = culprits.split(',').filter(|rank| !rank.is_empty()).map(|rank| rank.parse().ok());
        Some(Self {
            error: (error != "-").then(|| error.to_owned()),
            cause,
            culprits: culprits.collect::<Option<_>>()?,
            took: Duration::from_micros(words.next()?.parse().ok()?),
            output: words.next()?.to_owned(),
            text: words.next()?.to_owned(),
            at: line.at,
        })
    }

    /// Whether the call failed, for a cause of this kind that blames these ranks.
    pub(crate) fn blames(&self, cause: &str, culprits: &[u32]) -> bool {
        self.error.is_some() && self.cause == cause && self.culprits == culprits
    }
}

/// The name of the variant.
fn kind(error: &Error) -> &'static str {
    match error {
        Error::Misuse(_) => "Misuse",
        Error::Mismatch { .. } => "Mismatch",
        Error::Mispaired { .. } => "Mispaired",
        Error::Missing { .. } => "Missing",
        Error::Refused(_) => "Refused",
        Error::PeerLost { .. } => "PeerLost",
        Error::Timeout { .. } => "Timeout",
        Error::Corrupt { .. } => "Corrupt",
        Error::System { .. } => "System",
        Error::Panicked { .. } => "Panicked",
        Error::Aborted { .. } => "Aborted",
        _ => "another",
    }
}

/// The ranks that an error is about.
fn blamed(error: &Error) -> Vec<Rank> {
    match error {
        Error::Missing { ranks, .. } => ranks.clone(),
        Error::Timeout { culprits, .. } => culprits.clone(),
        Error::Panicked { rank, .. } => vec![*rank],
        Error::PeerLost { peer, .. } | Error::Corrupt { peer, .. } => vec![*peer],
        _ => Vec::new(),
    }
}
