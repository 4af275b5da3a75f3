//! When private memory is best fetched by the kernel, and how long that takes.

use super::work::Work;
use super::{Cost, Machine, Tuner, held_by_all};
use sohu_coll_core::Collective;
use sohu_coll_core::plan::Job;

/// Slice of what is fetched: the kernel takes it in one go, and a system call for each 64 KiB makes 512 KiB a quarter longer.
pub const SLICE_FETCHED: usize = 512 << 10;
/// Rate at which the kernel fetches, and what each system call costs beside the bytes: 64 KiB took 3.2 us and 512 KiB 20. What the
/// peer has just written, as the result of a fold, comes at half of that.
const FETCH_BYTES_PER_NS: f64 = 25.0;
const FETCH_WRITTEN_PER_NS: f64 = 12.0;
const FETCH_NS: f64 = 250.0;
/// From here on what is fetched to be folded takes twice as long: it leaves the core's own cache in between.
const FETCH_FOLD_NEAR: f64 = (512 << 10) as f64;
/// Where ranks share cores, what part of that time it takes, as what is staged is counted, since some of what they fetch is in the cache of their own
/// core: a reduce-scatter of 1 to 16 MiB on 4 ranks takes a tenth less fetched than down chains, on 8 ranks a fifth more.
const FETCH_CROWDED: f64 = 0.8;
/// How much longer than others parts are of which only the inputs are fetched: 8 ranks take 0.79 ms for 1 MiB either way, and for 4 MiB 3.1 ms and
/// 3.6 staged; 4 ranks for 512 KiB 175 us, and for 2 MiB 640 and 780.
const MIXED_TIMES: usize = 32;
/// The longest parts that are fetched where they go one way, and where they are folded at the root: who has them could stage the rest
/// meanwhile. A broadcast of 1 MiB takes 51 us fetched and 68 to 103 staged, of 4 MiB 374 and 340 to 420; to fold 256 KiB 18 and 18.
const FETCH_ONE_WAY_MAX: usize = 1 << 20;
const FETCH_ROOT_MAX: usize = 128 << 10;
/// The same of blocks of any lengths, which may go both ways or not: with 1.6 MiB one way and 0.4 the other, ranks take as long as staged, with
/// twice that 750 us and not 530. Ranks that share cores had something else to do: 4 of them take 2.1 ms for 8 MiB with blocks of 4.6, and 2.5.
const FETCH_BLOCK_MAX: usize = 2 << 20;
/// Parts of the cache that the buffers of all ranks fill up to which it pays to fetch: the kernel stores through the caches. An
/// all-to-all of 16 MiB takes 1.4 ms fetched and 1.9 staged, of 64 MiB 10.0 and 9.6.
const FETCH_CACHES_MAX: f64 = 2.0;

impl Tuner {
    /// Whether blocks of whatever lengths are best fetched, of which this rank has none longer than `longest` bytes and which have `mean` on
    /// average; all together have `held`. Where ranks share cores the long ones are not enough, and half of what all of one length take is: 4 ranks take
    /// 15.4 us with blocks of 37 KiB beside those of 9, and 15.8 staged (16.1 and 15.7 in small pages); with blocks of 75 and 19 KiB 17.9 and 19.8.
    pub fn fetches_blocks(&self, collective: Collective, [longest, mean]: [usize; 2], held: f64) -> bool {
        let (part, most) = match self.machine.share() > 1.0 {
            true => (2 * mean, usize::MAX),
            false => (longest, FETCH_BLOCK_MAX),
        };
        part >= self.fetched_from(collective)
            && longest <= most
            && held <= self.machine.cache_bytes * FETCH_CACHES_MAX
    }

    /// From how many bytes of a part on it pays to fetch. Who lends has to be left for the return, where ranks share cores, so there it
    /// takes longer parts. And where several read the same bytes, as those of a broadcast, their cores take the kernel's notes on each page from each
    /// other: 512 KiB on 4 ranks take 60 us staged, 104 fetched, and 27 only if they lie in huge pages.
    fn fetched_from(&self, collective: Collective) -> usize {
        let crowded = self.machine.share() > 1.0;
        let times = match collective {
            Collective::AllToAll if crowded => 4,
            // Of 256 KiB on 4 ranks, 26 us fetched and 30 staged; an all-gather on 8, of 512, 160 and 123.
            Collective::ReduceScatter if crowded => 8,
            Collective::AllGather if crowded => 16,
            // A scatter of 512 KiB on 4 ranks takes 12 to 17 us fetched, and 21 to 28 staged; a gather 18 and 25.
            Collective::Gather | Collective::Scatter if crowded => 4,
            _ if crowded => usize::MAX,
            _ => 1,
        };
        self.machine.fetched_min.saturating_mul(times)
    }

    /// Whether parts of `part` bytes are best fetched, of a call of `bytes` bytes.
    pub(super) fn fetches_part(&self, job: &Job, part: usize, bytes: usize) -> bool {
        let held = held_by_all(job, bytes as f64);
        // What a later pass stores over is not lent, and in place that is all that is sent.
        let is_kept =
            !job.in_place || !matches!(job.collective, Collective::AllReduce | Collective::AllToAll);
        is_kept
            && part >= self.fetched_from(job.collective)
            && match job.collective {
                // A gather of 16 MiB on 4 ranks takes 1.4 to 1.9 ms fetched and 1.4 staged, a scatter 0.7 to 1.0 and 1.4.
                Collective::Gather if self.machine.share() > 1.0 => part <= FETCH_BLOCK_MAX,
                Collective::Scatter if self.machine.share() > 1.0 => part <= 2 * FETCH_BLOCK_MAX,
                Collective::Broadcast | Collective::Gather | Collective::Scatter => part <= FETCH_ONE_WAY_MAX,
                Collective::Reduce => part <= FETCH_ROOT_MAX,
                Collective::AllReduce => !self.streams(held, false),
                // Staged, it takes twice as long and more: 16 MiB on 8 ranks 9 ms, and 16 to 29 round the ring. All-to-all of 64 MiB: 51 and 59.
                Collective::ReduceScatter | Collective::AllToAll if self.machine.share() > 1.0 => true,
                _ => held <= self.machine.cache_bytes * FETCH_CACHES_MAX,
            }
    }

    /// The same where private memory is not fetched: what a call scales on its way does not lie in anybody's memory as it is sent.
    #[must_use]
    pub fn staging(self) -> Self {
        Self { machine: Machine { fetched_min: usize::MAX, ..self.machine } }
    }

    /// Whether only what ranks give is best fetched, where the parts have `part` bytes. In place too, where all that they give is stored over and
    /// so is staged after all: pieces are what ranks must agree on, and who is in place is each one's own business. A rank stages its result as it folds it, and can be
    /// left for that.
    pub(super) fn fetches_inputs(&self, algorithm: &str, job: &Job, part: usize) -> bool {
        let is_crowded = self.machine.share() > 1.0;
        let takes_long = part >= self.machine.fetched_min.saturating_mul(MIXED_TIMES);
        algorithm == "two_shot" && job.collective == Collective::AllReduce && is_crowded && takes_long
    }

    /// Out of private memory, by the kernel: what is folded is fetched first, and nobody may leave before all have fetched.
    pub(super) fn fetched(&self, algorithm: &str, job: &Job, bytes: usize, work: &Work) -> Cost {
        let m = &self.machine;
        let moves = if work.folded > 0.0 { FETCH_WRITTEN_PER_NS } else { FETCH_BYTES_PER_NS };
        let is_crowded = m.share() > 1.0;
        let near = if is_crowded { f64::INFINITY } else { FETCH_FOLD_NEAR };
        let fetched = work.folded + (work.folded - near).max(0.0);
        let time = (fetched / FETCH_BYTES_PER_NS
            + work.moved / moves
            + (work.folded + work.kept) / m.copy_bytes_per_ns)
            * if is_crowded { FETCH_CROWDED } else { 1.0 };
        let mut cost = self.cost(work, work.writes, time * self.spill(work));
        cost.waiting += m.handover_ns;
        cost.steps += work.receives * FETCH_NS;
        // It takes no less than the longest parts that are staged.
        let shorter = bytes as f64 * (self.fetched_from(job.collective) - 1) as f64 / work.message;
        let least = self.staged(&Work::of(algorithm, job, shorter.round())).total();
        cost.waiting += (least - cost.total()).max(0.0);
        cost
    }
}
