//! A send or receive that a script makes.

use sohu_coll::{Communicator, DType, Error, Failed, Pending};

/// What nobody wrote yet.
const BLANK: u8 = 0xa5;

/// One half of a message, as a word says it: `send:float:10:1`.
pub(crate) struct Letter {
    sends: bool,
    dtype: DType,
    peer: u32,
    bytes: Vec<u8>,
    /// What must be in it in the end.
    expected: Vec<u8>,
}

impl Letter {
    /// The letter of `rank` that a word describes.
    pub(crate) fn read(text: &str, rank: u32) -> Self {
        let words: Vec<&str> = text.split(':').collect();
        let [way, dtype, count, peer] = words[..] else { panic!("a letter has four parts: {text:?}") };
        let dtype = DType::ALL.into_iter().find(|d| d.name() == dtype).expect("the test names what there is");
        let (count, peer): (usize, u32) = (count.parse().expect("a count"), peer.parse().expect("a rank"));
        let sends = way == "send";
        let (from, to) = if sends { (rank, peer) } else { (peer, rank) };
        let byte = |at: usize| (at * 31 + from as usize * 7 + to as usize * 3 + 1) as u8;
        let expected: Vec<u8> = (0..count * dtype.size()).map(byte).collect();
        let bytes = if sends { expected.clone() } else { vec![BLANK; expected.len()] };
        Self { sends, dtype, peer, bytes, expected }
    }

    /// Starts it.
    pub(crate) fn start(mut self, comm: &mut Communicator) -> Started {
        let bytes = std::mem::take(&mut self.bytes);
        let pending = match self.sends {
            true => comm.start_send_bytes(self.dtype, bytes, self.peer),
            false => comm.start_recv_bytes(self.dtype, bytes, self.peer),
        };
        Started { letter: self, pending }
    }

    /// Forgets what came.
    pub(crate) fn blank(&mut self) {
        if !self.sends {
            self.bytes.fill(BLANK);
        }
    }
}

/// One that was started.
pub(crate) struct Started {
    letter: Letter,
    pending: Result<Pending<Vec<u8>>, Failed<Vec<u8>>>,
}

impl Started {
    /// Waits for it. Says what came of it, and of what was to come.
    pub(crate) fn wait(mut self) -> (Result<(), Error>, &'static str) {
        let (result, bytes) = match self.pending.and_then(Pending::wait) {
            Ok(bytes) => (Ok(()), bytes),
            Err(Failed { error, buffers }) => (Err(*error), buffers),
        };
        self.letter.bytes = bytes;
        (result, output(&[self.letter]))
    }
}

/// Makes all of them: as a group, or the one that there is alone.
pub(crate) fn make(comm: &mut Communicator, letters: &mut [Letter], group: bool) -> Result<(), Error> {
    if group {
        return comm.group(|group| {
            for Letter { sends, dtype, peer, bytes, .. } in letters {
                match sends {
                    true => group.send_bytes(*dtype, bytes, *peer),
                    false => group.recv_bytes(*dtype, bytes, *peer),
                };
            }
        });
    }
    let [Letter { sends, dtype, peer, bytes, .. }] = letters else { panic!("one is made alone") };
    match sends {
        true => comm.send_bytes(*dtype, bytes, *peer),
        false => comm.recv_bytes(*dtype, bytes, *peer),
    }
}

/// What became of what was to come: `right`, `untouched`, or for several `mixed` where each is one or the other.
pub(crate) fn output(letters: &[Letter]) -> &'static str {
    let gets = || letters.iter().filter(|letter| !letter.sends && !letter.bytes.is_empty());
    let right = |letter: &Letter| letter.bytes == letter.expected;
    let untouched = |letter: &Letter| letter.bytes.iter().all(|byte| *byte == BLANK);
    match (gets().all(right), gets().all(untouched)) {
        // Who only sends keeps what it has.
        (true, _) => "right",
        (false, true) => "untouched",
        (false, false) if gets().all(|letter| right(letter) || untouched(letter)) => "mixed",
        (false, false) => "wrong",
    }
}
