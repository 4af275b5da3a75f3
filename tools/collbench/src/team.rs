//! This rank's communicators: one that is measured, and one for what the bench itself has to say to the other ranks.
//!
//! They are the same one, unless an algorithm is forced: it may do no other collective than the measured one, and
//! the bench needs barriers and sums.

use crate::cli::Common;
use crate::failure::Failure;
use sohu_coll::{Builder, Communicator, Error};

/// One rank's place among the others.
pub(crate) struct Team {
    measured: Communicator,
    own: Option<Communicator>,
    /// As `measured`, with reproducible results.
    strict: Option<Communicator>,
}

impl Team {
    /// Joins the job that the launcher's environment tells of, as the flags have it; `reproducible` adds a communicator with
    /// reproducible results.
    pub(crate) fn join(common: &Common, reproducible: bool) -> Result<Self, Failure> {
        let mut first = builder(common)?;
        let chosen = common.algo.clone().or_else(|| first.wished_algorithm().map(str::to_owned));
        if chosen.is_some() {
            first = first.algorithm("one_shot");
        } else if reproducible {
            first = first.reproducible(false);
        }
        let mut first = first.build()?;
        let mut next = |strict: bool| -> Result<Communicator, Failure> {
            // When every rank is here, rank 0 no longer receives ranks for the communicator before.
            first.barrier()?;
            let mut builder = builder(common)?;
            if let Some(algorithm) = &chosen {
                builder = builder.algorithm(algorithm);
            }
            if reproducible {
                builder = builder.reproducible(strict);
            }
            Ok(builder.build()?)
        };
        let forced = chosen.as_ref().map(|_| next(false)).transpose()?;
        let strict = reproducible.then(|| next(true)).transpose()?;
        Ok(match forced {
            Some(measured) => Self { measured, own: Some(first), strict },
            None => Self { measured: first, own: None, strict },
        })
    }

    /// The communicator whose calls are measured.
    pub(crate) fn measured(&mut self) -> &mut Communicator {
        &mut self.measured
    }

    /// The communicator whose results are reproducible, where one was asked for.
    pub(crate) fn strict(&mut self) -> Option<&mut Communicator> {
        self.strict.as_mut()
    }

    /// The communicator to call on: with reproducible results, or the one that is measured anyway.
    pub(crate) fn calls(&mut self, strict: bool) -> &mut Communicator {
        match &mut self.strict {
            Some(comm) if strict => comm,
            _ => &mut self.measured,
        }
    }

    /// The communicator for everything else.
    pub(crate) fn own(&mut self) -> &mut Communicator {
        self.own.as_mut().unwrap_or(&mut self.measured)
    }

    /// This rank.
    pub(crate) fn rank(&self) -> u32 {
        self.measured.rank()
    }

    /// How many ranks there are.
    pub(crate) fn size(&self) -> u32 {
        self.measured.size()
    }

    /// What connects them.
    pub(crate) fn transport(&self) -> &'static str {
        self.measured.transport()
    }

    /// The exit code that what rank 0 alone does came to; every rank must ask, and only rank 0 is believed.
    pub(crate) fn first_says(&mut self, code: u8) -> Result<u8, Error> {
        let mut word = [code];
        self.own().broadcast_in_place(&mut word, 0)?;
        Ok(word[0])
    }
}

fn builder(common: &Common) -> Result<Builder, Failure> {
    let mut builder =
        Communicator::builder().from_env().map_err(|error| Failure::alone(error, common.launched))?;
    if let Some(transport) = common.transport {
        builder = builder.transport(transport.kind());
    }
    if let Some(timeout) = common.timeout {
        builder = builder.timeout(timeout);
    }
    Ok(builder)
}
