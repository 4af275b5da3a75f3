//! What the ranks run on, as numbers.

/// How bytes get from rank to rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fabric {
    /// Memory that all ranks map: what one rank stages, all others read.
    Memory,
    /// A pipe for each pair: what goes to two ranks is sent twice.
    Stream,
}

/// What the ranks run on, as numbers. All ranks of a communicator must use the same ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// How bytes get from rank to rank.
    pub fabric: Fabric,
    /// Ranks on this host, which share its cores.
    pub size: u32,
    /// Cores.
    pub cores: u32,
    /// What a call costs before its first step: arguments, the cached plan, the signature.
    pub call_ns: f64,
    /// What a send or a receive costs beside its bytes.
    pub step_ns: f64,
    /// From a peer's store, or send, until this rank sees it.
    pub handover_ns: f64,
    /// What it costs a core to go on with another rank.
    pub switch_ns: f64,
    /// Rate of one rank's copy into staging memory, or of one direction of its sockets.
    pub copy_bytes_per_ns: f64,
    /// Rate of one rank's fold (or copy) out of a peer's staging memory, or out of a socket's buffer.
    pub reduce_bytes_per_ns: f64,
    /// Rate of one rank's fold (or copy) out of a peer's registered buffer.
    pub direct_bytes_per_ns: f64,
    /// From how many bytes on the links lend registered memory.
    pub lent_min: usize,
    /// From how many bytes on the links fetch private memory, where that is faster than to stage it; `usize::MAX` where it is not.
    pub fetched_min: usize,
    /// Last-level cache that the ranks share, in bytes; beyond it rates are those of main memory.
    pub cache_bytes: f64,
    /// Bytes of all ranks that can be staged at once, each for one peer, where ranks share cores, before they take longer.
    pub parted_max: f64,
}

// The defaults are from two vCPUs of an EPYC behind one L3: minimal kernels with nothing around them,
// and the tool's own `limits`. Other machines set the fields from measurements.
impl Machine {
    /// Ranks that share memory.
    ///
    /// # Panics
    /// When there are no ranks or no cores.
    pub fn shm(size: u32, cores: u32) -> Self {
        assert!(size > 0 && cores > 0, "{size} ranks on {cores} cores");
        Self {
            fabric: Fabric::Memory,
            size,
            cores,
            // One all-reduce of 8 bytes takes 130 ns in the best library known: 60 are the line's, two steps' the rest.
            call_ns: 30.0,
            step_ns: 20.0,
            // 40-65 ns measured between cores behind one cache (260-310 between others).
            handover_ns: 60.0,
            // 1.5-1.7 us for a hand-over by yielding on one core.
            switch_ns: 1_500.0,
            // One-shot through staging: 3.0 us at 64 KiB and 24.5 at 512 KiB are 1/64 + 1/33 ns a byte, where
            // 64 is half of what two cores copy in L2 and the rest is reading lines that are dirty in the peer's.
            copy_bytes_per_ns: 64.0,
            reduce_bytes_per_ns: 33.0,
            // One-shot on buffers that both map: 1.45 us at 64 KiB (49) to 149 at 4 MiB (28); the middle.
            direct_bytes_per_ns: 40.0,
            lent_min: 1024,
            fetched_min: usize::MAX,
            cache_bytes: (32u64 << 20) as f64,
            // A reduce-scatter of 2 MiB on 4 ranks took 188 us directly and 229 round the ring, of 4 MiB 913 and 702.
            parted_max: (10u64 << 20) as f64,
        }
    }

    /// Ranks that talk through sockets on the loopback interface.
    ///
    /// # Panics
    /// When there are no ranks or no cores.
    pub fn tcp(size: u32, cores: u32) -> Self {
        Self {
            fabric: Fabric::Stream,
            call_ns: 50.0,
            // A send or receive system call with the loopback path behind it. Two of them and the
            // hand-over make the 6.3 us of the best 8-byte all-reduce seen.
            step_ns: 1_500.0,
            handover_ns: 3_300.0,
            // 3.2-3.5 GB/s each way at once, measured.
            copy_bytes_per_ns: 3.4,
            direct_bytes_per_ns: 3.4,
            ..Self::shm(size, cores)
        }
    }

    /// The same where private memory of `fetched_min` bytes and more is fetched: copies of the kernel are fast there, and what one core has just written comes slowly to
    /// another one, so what is staged takes twice as long (512 KiB one-shot 54 us, on cores of one mesh with sixty others), and a line 120 to 180 ns. Not so
    /// between ranks of one core.
    #[must_use]
    pub fn fetching(self, fetched_min: usize) -> Self {
        if self.share() > 1.0 {
            // 256 KiB on 8 ranks take 106 us directly and 94 down chains, 512 KiB 299 and 174: two caches of 2 MiB hold no more.
            return Self { fetched_min, parted_max: (3u64 << 19) as f64, ..self };
        }
        let (copy, reduce) = (self.copy_bytes_per_ns / 2.13, self.reduce_bytes_per_ns / 2.13);
        Self { fetched_min, handover_ns: 120.0, copy_bytes_per_ns: copy, reduce_bytes_per_ns: reduce, ..self }
    }

    /// How many ranks take turns on the busiest core.
    pub(super) fn share(&self) -> f64 {
        f64::from(self.size.div_ceil(self.cores).max(1))
    }
}
