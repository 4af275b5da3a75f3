//! What a call would do, and why.

use crate::plans::{Plans, Shape};
use sohu_coll_algorithms::by_name;
use sohu_coll_core::Error;

/// One way to do a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The algorithm.
    pub algorithm: &'static str,
    /// Predicted time, in microseconds.
    pub predicted_us: f64,
    /// Why it was not chosen; `None` for the one that was.
    pub why_not: Option<String>,
}

/// What was chosen for a call, and what it was chosen from.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The algorithm.
    pub algorithm: &'static str,
    /// How bytes move: `line`, `staged`, `direct`, `fetched`, `mixed`, `stream` or `local`.
    pub protocol: &'static str,
    /// The most bytes that move in one trip.
    pub slice: usize,
    /// Predicted time, in microseconds.
    pub predicted_us: f64,
    /// The most sends of a rank that are outstanding at once; `None` where the algorithm sets no bound, and links take what they
    /// have room for.
    pub outstanding_max: Option<u32>,
    /// Everything there was to choose from.
    pub candidates: Vec<Candidate>,
}

impl Explanation {
    pub(crate) fn of(plans: &Plans, shape: &Shape, size: u32) -> Result<Self, Error> {
        let choice = plans.choose(shape)?;
        let job = shape.job(size);
        let all = plans.tuner().candidates(&job, shape.bytes(), shape.registered());
        let candidates = all.into_iter().map(|candidate| Candidate {
            algorithm: candidate.choice.algorithm,
            predicted_us: candidate.choice.predicted_us,
            why_not: candidate.why_not,
        });
        let chosen = by_name(choice.algorithm);
        Ok(Self {
            outstanding_max: chosen.and_then(|algorithm| algorithm.outstanding_max(&job)),
            algorithm: choice.algorithm,
            protocol: choice.protocol,
            slice: choice.slice,
            predicted_us: choice.predicted_us,
            candidates: candidates.collect(),
        })
    }
}
