//! Chooses an algorithm, a slice and a protocol for a call: a closed form over latency, bandwidth and steps.
//!
//! Invariant: a choice is a pure function of the machine's numbers, the job and the bytes, so ranks that agree on
//! those agree on the choice; and predictions never fall when bytes grow, but from what is fetched to what is staged.
//! The tuner only orders candidates: every one of them is correct, and each can be forced by name.

mod choice;
mod fetching;
mod machine;
mod work;

pub use choice::{Candidate, Choice};
pub use fetching::SLICE_FETCHED;
pub use machine::{Fabric, Machine};

use choice::{DIRECT, FETCHED, MIXED};
use sohu_coll_core::Collective;
use sohu_coll_core::plan::Job;
use work::Work;

#[cfg(test)]
mod tests;

/// The most bytes that travel inside one cache line, beside its header.
pub const LINE_BYTES: usize = 40;

/// Ranks do not come to a later round at the same moment: one or two line transfers of skew.
const ROUND_SLACK_NS: f64 = 100.0;

/// How much slower main memory is than the last-level cache: staged one-shot, 8.1 against 21.5 bytes/ns.
const MEMORY_SLOWDOWN: f64 = 2.7;

/// Part of a copy's time that it takes a fold to store what it finished into the peers' registered outputs in passing:
/// 0.22 us for 32 KiB, where the copy takes 0.5.
const PASSING_SHARE: f64 = 0.4;

/// Part of a copy's time that is saved where a fold stages its result while it has it: 1 MiB on 2 ranks takes 56 us instead of 60,
/// 128 KiB 7.4 instead of 7.8. What is stored past the caches gains nothing by it, and ranks that share a core lose by the other round.
const FUSING_SHARE: f64 = 0.2;

/// What a copy of some bytes within a rank's own memory costs beside them: an estimate, less than half of a step,
/// since nobody is told.
const COPY_NS: f64 = 8.0;

/// Part of its rate that a stream loses to each other one that comes in at the same time (part-filled
/// segments, a poll for each). An estimate: it makes the ring win where messages are large.
const CROWDING: f64 = 0.05;

/// Slice of small staged parts: at 64 KiB two of them were best, so that the peer reads one while the other is staged.
const SLICE_SMALL: usize = 32 << 10;
/// The least slice of parts that go one way, from or to a root: who receives has nothing to do until the first of them is there. A
/// quarter of the part is a slice, as far as [`SLICE_MIDDLE`]: a broadcast of 64 KiB takes 2.8 us so, and 3.5 in one slice, 512 KiB 15 us,
/// and 28 in two.
const SLICE_LEAST: usize = 16 << 10;
/// From here on a part that goes to a root is large as any other: to fold 4 MiB takes 150 us so, and 162 in middling slices.
const ROOT_LARGE: usize = 2 << 20;
/// Slice of middling staged parts: a few of them, so that the first wait stays short.
const SLICE_MIDDLE: usize = 64 << 10;
/// Slice of large staged parts: a quarter of what they use of the staging ring. Half of it waits for the ring to come
/// free at 4 MiB (326 us against 285), an eighth for hand-overs at 512 KiB (32 us against 29).
const SLICE_LARGE: usize = 256 << 10;
/// Parts of the cache that the buffers of all ranks fill before results are best stored past it, staged and direct: they would not be
/// found there when they are read. The staging memory has its place in the cache too. Of 32 MiB, on 2, 4 and 8 ranks: of 20 MiB, 4 ranks
/// gather 4 MiB in 960 us through the cache and 690 past it, out of registered memory in 350 and 627; of 32 MiB, they exchange 4 MiB in 1730
/// and 1140, and 2 ranks 8 MiB in 1200 and 740, out of registered memory in 830 and 630.
const STREAM_STAGED: f64 = 0.625;
const STREAM_DIRECT: f64 = 0.875;
/// Bytes of the vector that ranks which share a core go through at a time, for all of them, and the least that each does: half of its
/// staging memory, so that a rank can stage the next piece while others read this one. 4 MiB on 4 ranks take 1.2 ms so, and 1.5 ms in one
/// piece; on 8 ranks 3.6 ms, and 4.7 in pieces of twice that, with seven times as many turns of the cores. Smaller ones cost more turns
/// than they save.
const PIECE_BYTES: usize = 1 << 20;
const PIECE_LEAST: usize = 128 << 10;
/// The most pieces of all ranks together: a program has some steps for each piece and peer.
const PIECES_MAX: usize = 2048;
/// Slice of registered memory: nothing is copied, so slices only serve the passes that follow in the cache.
const SLICE_DIRECT: usize = 256 << 10;

/// Bytes more than half that a receiver reads while the sender writes the rest.
const SHARED_LEAD: f64 = 2048.0;
/// Slice of a socket: about what its buffer holds, so that the kernel copies while the rank folds.
const SLICE_STREAM: usize = 128 << 10;

/// By how much longer bytes take, for each rank that waits for the core, of which more than [`Machine::parted_max`] are staged at
/// once. A reduce-scatter of 4 MiB on 4 ranks of 2 cores takes 1110 us directly, 1340 round the ring and 690 down chains, of 16 MiB
/// 5530, 5270 and 2770; on 8 ranks 4 MiB take 2500, 3660 and 1390.
const PARTING: f64 = 0.4;
/// More waiting ranks add nothing: on 16 ranks 512 KiB take 1000 us directly and 580 down chains, 256 KiB 350 and 400.
const PARTING_MOST: f64 = 3.0;

/// The slice of chains, and how much of the staging memory they go round in: enough for one rank to fill a slice while the next one
/// of the core has the other, and little enough for what all ranks of a core stage to stay in the core's cache. 4 MiB on 8 ranks
/// take 2.3 ms so, and 2.6 round all of the staging memory; with one slice in all, ranks take as many turns again.
const SLICE_CHAINS: usize = 128 << 10;
const WITHIN_CHAINS: usize = 256 << 10;

/// Chooses among all algorithms of this crate.
#[derive(Clone, Copy, Debug)]
pub struct Tuner {
    machine: Machine,
}

/// A choice, and what its time consists of.
#[derive(Clone, Copy)]
struct Scored {
    choice: Choice,
    cost: Cost,
    rounds: f64,
    messages: f64,
}

/// A predicted time by what it is spent on, in nanoseconds.
#[derive(Clone, Copy)]
struct Cost {
    waiting: f64,
    steps: f64,
    bytes: f64,
}

impl Cost {
    fn total(&self) -> f64 {
        self.waiting + self.steps + self.bytes
    }
}

impl Tuner {
    /// A tuner for a machine.
    pub fn new(machine: Machine) -> Self {
        Self { machine }
    }

    /// What the tuner knows of the machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// A job as it is on this machine. No signature tells of the cores: all ranks count those of the same roster.
    #[must_use]
    pub fn place(&self, job: Job) -> Job {
        Job { cores: self.machine.cores.min(job.size), ..job }
    }

    /// Whether results are best stored past the caches, where all ranks together have buffers of `bytes` bytes: registered memory that
    /// is read in place, if the call `lends`.
    pub fn streams(&self, bytes: f64, lends: bool) -> bool {
        bytes >= self.machine.cache_bytes * if lends { STREAM_DIRECT } else { STREAM_STAGED }
    }

    /// From how many bytes on a message is best stored past the caches. A rank knows its own alone: this is as if every rank
    /// sent and received one like it.
    pub fn streams_messages_from(&self) -> usize {
        (self.machine.cache_bytes * STREAM_DIRECT / (2.0 * f64::from(self.machine.size))) as usize
    }

    /// The candidate with the least predicted time. `bytes` are those of `count` elements as the collective
    /// counts them; `registered` says that the buffers of all ranks are registered memory.
    ///
    /// # Panics
    /// When no algorithm fits the job: there is one for every job of at least one rank.
    pub fn choose(&self, job: &Job, bytes: usize, registered: bool) -> Choice {
        self.ranked(job, bytes, registered).first().expect("some algorithm fits every job").choice
    }

    /// As [`choose`](Self::choose), among the algorithms that `may` be chosen, by name.
    ///
    /// # Errors
    /// The names of all that fit the job, when none of them may.
    pub fn choose_among(
        &self,
        job: &Job,
        bytes: usize,
        registered: bool,
        may: impl Fn(&str) -> bool,
    ) -> Result<Choice, Vec<&'static str>> {
        let ranked = self.ranked(job, bytes, registered);
        let chosen = ranked.iter().map(|s| s.choice).find(|choice| may(choice.algorithm));
        chosen.ok_or_else(|| crate::all().iter().filter(|a| a.fits(job)).map(|a| a.name()).collect())
    }

    /// Every algorithm: the chosen one first, then the others by predicted time, then those that can not do the job.
    pub fn candidates(&self, job: &Job, bytes: usize, registered: bool) -> Vec<Candidate> {
        let ranked = self.ranked(job, bytes, registered);
        let mut candidates: Vec<Candidate> = ranked
            .iter()
            .enumerate()
            .map(|(place, s)| Candidate {
                choice: s.choice,
                why_not: (place > 0).then(|| slower(s, &ranked[0])),
            })
            .collect();
        candidates.extend(crate::all().iter().filter(|a| !a.fits(job)).map(|a| Candidate {
            choice: Choice {
                algorithm: a.name(),
                slice: SLICE_SMALL,
                pieces: 1,
                within: None,
                protocol: "none",
                streams: false,
                predicted_us: f64::INFINITY,
            },
            why_not: Some(format!("does not do {} on {} ranks", job.collective, job.size)),
        }));
        candidates
    }

    /// The algorithms that fit, best first; of equal ones the first in the crate's list.
    fn ranked(&self, job: &Job, bytes: usize, registered: bool) -> Vec<Scored> {
        let mut ranked: Vec<Scored> = crate::all()
            .iter()
            .filter(|a| a.fits(job))
            .map(|a| self.score(a.name(), job, bytes, registered))
            .collect();
        ranked.sort_by(|a, b| a.cost.total().total_cmp(&b.cost.total()));
        ranked
    }

    /// Whether the job is that of a barrier, or as good as one, of ranks that share cores. What they do next often begins with what rank 0
    /// does, so that is the one to leave first: a broadcast of 8 bytes on 4 ranks of 2 cores takes 0.23 us behind such a barrier, and 2.3
    /// behind one that all leave as their turn comes.
    fn is_barrier(&self, job: &Job, bytes: usize) -> bool {
        let is_memory = self.machine.fabric == Fabric::Memory;
        is_memory && self.machine.share() > 1.0 && job.collective == Collective::AllReduce && bytes <= 1
    }

    fn score(&self, algorithm: &'static str, job: &Job, bytes: usize, registered: bool) -> Scored {
        let job = &self.place(*job);
        let is_memory = self.machine.fabric == Fabric::Memory;
        let gains = is_memory && self.machine.share() > 1.0 && !registered;
        // Where nothing is left in a core's cache, or nothing has to be copied there, a chain has nothing before a ring, which stands
        // before it.
        let like = if algorithm == "chains" && !gains { "ring" } else { algorithm };
        let work = Work::of(like, job, bytes as f64);
        let part = work.message as usize;
        let (mut cost, protocol, slice) = match self.machine.fabric {
            _ if job.size == 1 => (self.staged(&work), "local", SLICE_LARGE),
            Fabric::Stream => (self.stream(&work), "stream", SLICE_STREAM),
            Fabric::Memory => {
                let staged = (self.staged(&work), "staged", self.staged_slice(job, part));
                let direct = (self.direct(&work), DIRECT, SLICE_DIRECT);
                // With a core for each rank what is lent is soon back; else its owner has to be left for that.
                let is_lent = self.machine.share() <= 1.0 && part >= self.machine.lent_min;
                let is_direct = registered && (is_lent || direct.0.total() < staged.0.total());
                match part {
                    _ if like == "chains" => staged,
                    ..=LINE_BYTES => (if is_direct { direct.0 } else { staged.0 }, "line", SLICE_SMALL),
                    _ if is_direct => direct,
                    _ if !registered && self.fetches_part(job, part, bytes) => {
                        (self.fetched(like, job, bytes, &work), FETCHED, SLICE_FETCHED)
                    }
                    _ if !registered && self.fetches_inputs(algorithm, job, part) => {
                        // It takes 5 to 25 % less than if all of it were staged.
                        (staged.0, MIXED, SLICE_LARGE)
                    }
                    _ => staged,
                }
            }
        };
        if algorithm == "star" && self.is_barrier(job, bytes) {
            // Rank 0, which counts, finds all there and waits for no turn.
            cost.waiting -= work.rounds * (self.machine.share() - 1.0) * self.machine.switch_ns;
        }
        // What goes down a chain is a sum that lies nowhere else, so it is staged, whatever it is scored like.
        let (protocol, slice, within) = if algorithm == "chains" && is_memory && job.size > 1 {
            ("staged", slice.min(SLICE_CHAINS), Some(WITHIN_CHAINS))
        } else {
            (protocol, slice, None)
        };
        let pieces = self.pieces(algorithm, job, bytes, protocol);
        let streams = self.streams(held_by_all(job, bytes as f64), protocol == DIRECT);
        let choice =
            Choice { algorithm, slice, pieces, within, protocol, streams, predicted_us: cost.total() / 1e3 };
        let sends = if self.machine.fabric == Fabric::Memory { work.writes } else { work.sends };
        Scored { choice, cost, rounds: work.rounds, messages: sends + work.receives }
    }

    /// How many pieces to go through one after the other. Where ranks share cores, what all of them stage for a
    /// long vector does not fit in a core's own cache, but what they stage for a piece of it does.
    fn pieces(&self, algorithm: &str, job: &Job, bytes: usize, protocol: &str) -> u32 {
        let crowded = self.machine.share() > 1.0 && job.size > 2;
        if algorithm != "two_shot" || protocol != "staged" || !crowded {
            return 1;
        }
        let piece = (PIECE_BYTES / self.machine.share() as usize).max(PIECE_LEAST);
        bytes.div_ceil(piece).clamp(1, (PIECES_MAX / job.size as usize).max(1)) as u32
    }

    /// Through staging memory: each distinct byte is staged once, whoever reads it.
    fn staged(&self, work: &Work) -> Cost {
        let m = &self.machine;
        // Bytes out of a peer's dirty lines cost the same whether they are folded or stored.
        let gains = m.share() <= 1.0 && !self.streams(work.buffers * f64::from(m.size), false);
        let fused = if gains { work.fused * FUSING_SHARE } else { 0.0 };
        let bytes = (work.staged - fused + work.kept) / m.copy_bytes_per_ns
            + (work.folded + work.moved) / m.reduce_bytes_per_ns;
        self.cost(work, work.writes, bytes * self.spill(work) * self.parting(work))
    }

    /// The slice for staged parts of `part` bytes.
    fn staged_slice(&self, job: &Job, part: usize) -> usize {
        let crowded = self.machine.share() > 1.0;
        let [quarter, eighth] = [4, 8].map(|parts| (part / parts).next_power_of_two());
        match job.collective {
            // A rank that shares its core leaves it for each slice that it waits for.
            Collective::Broadcast | Collective::Scatter if crowded => eighth.clamp(SLICE_MIDDLE, SLICE_LARGE),
            Collective::Broadcast => quarter.clamp(SLICE_LEAST, SLICE_MIDDLE),
            // The receiver is not the last: the root has its own block to copy.
            Collective::Scatter => quarter.clamp(SLICE_SMALL, SLICE_MIDDLE),
            Collective::Gather | Collective::Reduce if !crowded && part < ROOT_LARGE => {
                quarter.clamp(SLICE_LEAST, SLICE_MIDDLE)
            }
            _ if part < SLICE_MIDDLE => SLICE_SMALL,
            _ if part < SLICE_LARGE => SLICE_MIDDLE,
            _ => SLICE_LARGE,
        }
    }

    /// How much longer bytes take because peers that do not run keep their parts of the staging memory from those that do.
    fn parting(&self, work: &Work) -> f64 {
        let (waiting, all) = (self.machine.share() - 1.0, work.parted * f64::from(self.machine.size));
        let parts = all > self.machine.parted_max;
        if waiting > 0.0 && parts { 1.0 + PARTING * waiting.min(PARTING_MOST) } else { 1.0 }
    }

    /// Out of registered memory: nothing is staged, but nobody may leave before all have read.
    fn direct(&self, work: &Work) -> Cost {
        let m = &self.machine;
        let read = work.folded + work.moved - work.passed - work.shared;
        let bytes =
            read / m.direct_bytes_per_ns + (work.kept + work.passed * PASSING_SHARE) / m.copy_bytes_per_ns;
        let mut cost = self.cost(work, work.writes, bytes * self.spill(work));
        cost.waiting += m.handover_ns + m.switch_ns * (m.share() - 1.0);
        if m.size == 2 && work.passed > 0.0 {
            // A swap: the return of what was lent says that the answer is there, so there is no second round.
            cost.waiting -= m.handover_ns;
        }
        cost
    }

    /// Through sockets: every peer has its own copy, both directions run at once, and several at a time crowd.
    fn stream(&self, work: &Work) -> Cost {
        let m = &self.machine;
        let crowd = 1.0 + CROWDING * (work.streams - 1.0).max(0.0);
        let received = work.folded + work.moved;
        let bytes = work.sent.max(received) * crowd / m.copy_bytes_per_ns
            + (work.folded + work.kept) / m.reduce_bytes_per_ns;
        self.cost(work, work.sends, bytes)
    }

    fn cost(&self, work: &Work, sends: f64, bytes: f64) -> Cost {
        let m = &self.machine;
        let share = m.share();
        // Ranks of one core come to the call in turn, and every round goes around the others once more.
        let turns = if share > 1.0 { share + (share - 1.0) * work.rounds } else { 0.0 };
        Cost {
            waiting: m.call_ns
                + work.rounds * m.handover_ns
                + (work.rounds - 1.0).max(0.0) * ROUND_SLACK_NS
                + turns * m.switch_ns,
            steps: (sends + work.receives) * m.step_ns * share,
            bytes: (bytes + work.copies * COPY_NS) * (share * (1.0 - work.idle)).max(1.0),
        }
    }

    /// How much longer bytes take because the buffers of all ranks do not fit in the cache.
    fn spill(&self, work: &Work) -> f64 {
        let (cache, all) = (self.machine.cache_bytes, work.buffers * f64::from(self.machine.size));
        if all <= cache { 1.0 } else { (cache + (all - cache) * MEMORY_SLOWDOWN) / all }
    }
}

/// Bytes of the buffers of all ranks.
fn held_by_all(job: &Job, bytes: f64) -> f64 {
    let held = |is_root| {
        let [input, output] = job.collective.held(job.size, is_root).map(f64::from);
        if job.in_place { input.max(output) } else { input + output }
    };
    bytes * (held(true) + f64::from(job.size - 1) * held(false))
}

/// Why `this` lost to `best`: what most of the difference is.
fn slower(this: &Scored, best: &Scored) -> String {
    let (t, b) = (&this.cost, &best.cost);
    let (waiting, steps, bytes) = (t.waiting - b.waiting, t.steps - b.steps, t.bytes - b.bytes);
    let name = best.choice.algorithm;
    let by = t.total() - b.total();
    if by <= 0.0 {
        return format!("no faster than {name}");
    }
    let why = if waiting >= steps && waiting >= bytes && this.rounds <= best.rounds {
        "rank 0 has to wait for its turn".into()
    } else if waiting >= steps && waiting >= bytes {
        format!("{} rounds, one after another, not {}", this.rounds, best.rounds)
    } else if steps >= bytes {
        format!("{} messages a rank, not {}", this.messages, best.messages)
    } else {
        format!("its bytes take {:.1} us, not {:.1}", t.bytes / 1e3, b.bytes / 1e3)
    };
    format!("{:.2} us slower than {name}: {why}", by / 1e3)
}
