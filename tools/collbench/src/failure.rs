//! Why a run ended early, and the exit code that says so.

use core::fmt;
use sohu_coll::Error;

/// Exit code of a run whose data was wrong.
pub(crate) const WRONG: u8 = 1;

/// Exit code of a run that was slower than its baseline.
pub(crate) const SLOWER: u8 = 3;

/// Exit code of a run that the host did not allow.
pub(crate) const ENVIRONMENT: u8 = 5;

/// What ended a run.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line asks for something that makes no sense.
    Usage(String),
    /// The host would not do what is needed.
    Environment(String),
    /// There is no job to be a rank of.
    Alone(Error),
    /// A call failed.
    Call(Error),
    /// The same, on a known rank.
    On(u32, Box<Failure>),
}

impl Failure {
    /// No place in a job was found in the environment: where nobody launched this process, the reader wants
    /// to know how to. A setting that makes no sense explains itself.
    pub(crate) fn alone(error: Error, launched: bool) -> Self {
        if launched || matches!(error, Error::Misuse(_)) { Self::Call(error) } else { Self::Alone(error) }
    }

    /// The same failure, with the rank it happened on.
    pub(crate) fn on(self, rank: u32) -> Self {
        Self::On(rank, Box::new(self))
    }

    /// The exit code: 2 usage, 4 timeout, 5 environment.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Alone(_) => 2,
            Self::Environment(_) => ENVIRONMENT,
            Self::Call(error) => match error.root_cause() {
                Error::Timeout { .. } | Error::Missing { .. } => 4,
                Error::Misuse(_) => 2,
                _ => ENVIRONMENT,
            },
            Self::On(_, failure) => failure.code(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Environment(text) => f.write_str(text),
            Self::Alone(error) => write!(
                f,
                "{error}\nthis is no rank of a job; add --ranks 2 to start the ranks here, \
                 or start them with: sohu-coll run -n 2 -- sohu-collbench ..."
            ),
            Self::Call(error) => error.fmt(f),
            Self::On(rank, failure) => write!(f, "rank {rank}: {failure}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}
