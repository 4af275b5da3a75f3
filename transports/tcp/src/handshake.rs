//! Mutual proof of the job's secret over one connection, as a machine without sockets.
//!
//! The rank that calls sends a hello (who it is, whom it wants, what for, a nonce); the rank that answers sends a nonce
//! and its proof; the caller sends its own; the answer is a welcome. A proof is HMAC-SHA256 under the secret
//! over the side's label, the hello and the answer's nonce, so it is of no use on another connection,
//! between other ranks, in another job, or for the other side. Invariant: messages have fixed sizes, and
//! nothing in a hello is used before the caller's proof was checked.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sohu_coll_core::Rank;

/// Opens a hello: the protocol and its version.
const MAGIC: [u8; 8] = *b"sohutcp2";

/// Ends the handshake.
const WELCOME: [u8; 8] = *b"welcome\n";

const NONCE_BYTES: usize = 32;
const PROOF_BYTES: usize = 32;

/// Magic, job, caller's rank, answerer's rank, size, purpose, nonce.
const HELLO_BYTES: usize = 8 + 16 + 4 + 4 + 4 + 4 + NONCE_BYTES;

/// Sides of a connection, as they enter the proofs.
const CALLER: &[u8; 8] = b"caller\0\0";
const ANSWERER: &[u8; 8] = b"answerer";

/// What a connection between two ranks is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The link between them.
    Link,
    /// The pipe from the caller to the answerer.
    FromCaller,
    /// The pipe from the answerer to the caller.
    FromAnswerer,
}

impl Purpose {
    pub(crate) const ALL: [Purpose; 3] = [Self::Link, Self::FromCaller, Self::FromAnswerer];
}

/// What both sides must agree on. Its secret is never printed.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) secret: [u8; 32],
    pub(crate) job: [u8; 16],
    pub(crate) rank: Rank,
    pub(crate) size: u32,
}

/// How far a handshake has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// More messages must go to and fro.
    Underway,
    /// The other side is this rank, and the connection is for this.
    Proven(Rank, Purpose),
    /// The other side is nobody we know; why.
    Stranger(&'static str),
}

/// A message of fixed size on its way in or out.
struct Message {
    bytes: [u8; HELLO_BYTES],
    len: usize,
    at: usize,
}

impl Message {
    fn empty(len: usize) -> Self {
        Self { bytes: [0; HELLO_BYTES], len, at: 0 }
    }

    fn of(parts: &[&[u8]]) -> Self {
        let mut message = Self::empty(0);
        for part in parts {
            message.bytes[message.len..message.len + part.len()].copy_from_slice(part);
            message.len += part.len();
        }
        message
    }

    fn all(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

enum Stage {
    /// The caller waits for nonce and proof.
    Called,
    /// The caller waits for the welcome.
    Proved,
    /// The answerer waits for a hello.
    Listening,
    /// The answerer waits for the proof.
    Challenged,
    /// Nothing more is to come.
    Done(Rank, Purpose),
}

/// One connection's handshake.
pub(crate) struct Handshake {
    terms: Terms,
    /// Whom the caller calls, and what for; ourselves for an answerer.
    peer: Rank,
    purpose: Purpose,
    nonce: [u8; NONCE_BYTES],
    hello: [u8; HELLO_BYTES],
    stage: Stage,
    outgoing: Message,
    incoming: Message,
}

impl Handshake {
    /// The side that connected to `peer`.
    pub(crate) fn caller(terms: Terms, peer: Rank, purpose: Purpose, nonce: [u8; NONCE_BYTES]) -> Self {
        let numbers = [terms.rank.0, peer.0, terms.size, purpose as u32].map(u32::to_le_bytes);
        let outgoing = Message::of(&[&MAGIC, &terms.job, numbers.as_flattened(), &nonce]);
        let hello = outgoing.bytes;
        let incoming = Message::empty(NONCE_BYTES + PROOF_BYTES);
        Self { terms, peer, purpose, nonce, hello, stage: Stage::Called, outgoing, incoming }
    }

    /// The side that accepted.
    pub(crate) fn answerer(terms: Terms, nonce: [u8; NONCE_BYTES]) -> Self {
        Self {
            terms,
            peer: terms.rank,
            purpose: Purpose::Link,
            nonce,
            hello: [0; HELLO_BYTES],
            stage: Stage::Listening,
            outgoing: Message::empty(0),
            incoming: Message::empty(HELLO_BYTES),
        }
    }

    /// Bytes to write.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.outgoing.all()[self.outgoing.at..]
    }

    /// The first `count` of them were written.
    pub(crate) fn sent(&mut self, count: usize) {
        self.outgoing.at += count;
    }

    /// Room for the bytes that are missing: never more than the next message has.
    pub(crate) fn missing(&mut self) -> &mut [u8] {
        &mut self.incoming.bytes[self.incoming.at..self.incoming.len]
    }

    /// `count` of them were read. Call it with 0 after writing.
    pub(crate) fn got(&mut self, count: usize) -> Verdict {
        self.incoming.at += count;
        if self.incoming.at == self.incoming.len
            && let Err(why) = self.advance()
        {
            return Verdict::Stranger(why);
        }
        match self.stage {
            Stage::Done(peer, purpose) if self.unsent().is_empty() => Verdict::Proven(peer, purpose),
            _ => Verdict::Underway,
        }
    }

    /// Uses a whole message.
    fn advance(&mut self) -> Result<(), &'static str> {
        match self.stage {
            Stage::Called => {
                let reply = self.incoming.bytes;
                let (nonce, proof) = reply[..NONCE_BYTES + PROOF_BYTES].split_at(NONCE_BYTES);
                self.check(ANSWERER, nonce, proof)?;
                self.outgoing = Message::of(&[&self.proof(CALLER, nonce).finalize().into_bytes()]);
                self.incoming = Message::empty(WELCOME.len());
                self.stage = Stage::Proved;
            }
            Stage::Proved => {
                if self.incoming.all() != WELCOME {
                    return Err("it does not welcome this rank");
                }
                self.incoming = Message::empty(0);
                self.stage = Stage::Done(self.peer, self.purpose);
            }
            Stage::Listening => {
                if self.incoming.bytes[..MAGIC.len()] != MAGIC {
                    return Err("it speaks another protocol");
                }
                self.hello = self.incoming.bytes;
                let proof = self.proof(ANSWERER, &self.nonce).finalize().into_bytes();
                self.outgoing = Message::of(&[&self.nonce, &proof]);
                self.incoming = Message::empty(PROOF_BYTES);
                self.stage = Stage::Challenged;
            }
            Stage::Challenged => {
                let proof = self.incoming.bytes;
                self.check(CALLER, &self.nonce, &proof[..PROOF_BYTES])?;
                let (peer, purpose) = self.introduced()?;
                self.outgoing = Message::of(&[&WELCOME]);
                self.incoming = Message::empty(0);
                self.stage = Stage::Done(peer, purpose);
            }
            // The empty message that follows the last one is whole at once.
            Stage::Done(..) => {}
        }
        Ok(())
    }

    /// Who the hello says is calling and what for, once its sender is known to hold the secret.
    fn introduced(&self) -> Result<(Rank, Purpose), &'static str> {
        let number = |at: usize| {
            let bytes = self.hello[at..at + 4].try_into().expect("a slice of 4 is 4 bytes");
            u32::from_le_bytes(bytes)
        };
        let (from, to, size, purpose) = (number(24), number(28), number(32), number(36));
        if self.hello[8..24] != self.terms.job {
            return Err("it belongs to another job");
        }
        if size != self.terms.size || to != self.terms.rank.0 || from <= to || from >= size {
            return Err("it calls as a rank that does not call this one");
        }
        let purpose = Purpose::ALL.into_iter().find(|known| *known as u32 == purpose);
        Ok((Rank(from), purpose.ok_or("it calls for no known purpose")?))
    }

    fn proof(&self, side: &[u8; 8], nonce: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.terms.secret).expect("HMAC takes keys of any length");
        mac.update(side);
        mac.update(&self.hello);
        mac.update(nonce);
        mac
    }

    /// Compares in constant time.
    fn check(&self, side: &[u8; 8], nonce: &[u8], proof: &[u8]) -> Result<(), &'static str> {
        self.proof(side, nonce).verify_slice(proof).map_err(|_| "it does not know the job's secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(rank: u32) -> Terms {
        Terms { secret: [7; 32], job: [9; 16], rank: Rank(rank), size: 3 }
    }

    /// Moves what `from` has to say, `piece` bytes at a time, until it is silent or `to` has a verdict.
    fn tell(from: &mut Handshake, to: &mut Handshake, piece: usize) -> Verdict {
        let mut verdict = Verdict::Underway;
        while verdict == Verdict::Underway && !from.unsent().is_empty() {
            let room = to.missing();
            let count = room.len().min(piece).min(from.unsent().len());
            room[..count].copy_from_slice(&from.unsent()[..count]);
            from.sent(count);
            verdict = to.got(count);
        }
        verdict
    }

    /// Runs a whole handshake; returns what caller and answerer think.
    fn shake(mut caller: Handshake, mut answerer: Handshake, piece: usize) -> (Verdict, Verdict) {
        let mut verdicts = (Verdict::Underway, Verdict::Underway);
        for _ in 0..3 {
            if !matches!(verdicts.1, Verdict::Stranger(_)) {
                verdicts.1 = tell(&mut caller, &mut answerer, piece);
            }
            if !matches!(verdicts.0, Verdict::Stranger(_)) && verdicts.0 == Verdict::Underway {
                verdicts.0 = tell(&mut answerer, &mut caller, piece);
            }
        }
        if !matches!(verdicts.1, Verdict::Stranger(_)) {
            verdicts.1 = answerer.got(0);
        }
        verdicts
    }

    #[test]
    fn both_sides_are_proven_whatever_the_pieces() {
        for (piece, purpose) in [1, 7, 64, 1000].into_iter().zip(Purpose::ALL.into_iter().cycle()) {
            let caller = Handshake::caller(terms(2), Rank(0), purpose, [1; 32]);
            let answerer = Handshake::answerer(terms(0), [2; 32]);
            let proven = (Verdict::Proven(Rank(0), purpose), Verdict::Proven(Rank(2), purpose));
            assert_eq!(shake(caller, answerer, piece), proven);
        }
    }

    #[test]
    fn a_caller_sees_that_the_other_side_has_another_secret() {
        let caller = Handshake::caller(terms(2), Rank(0), Purpose::Link, [1; 32]);
        let answerer = Handshake::answerer(Terms { secret: [8; 32], ..terms(0) }, [2; 32]);
        let (caller, answerer) = shake(caller, answerer, 64);
        assert_eq!(caller, Verdict::Stranger("it does not know the job's secret"));
        assert_eq!(answerer, Verdict::Underway);
    }

    #[test]
    fn an_answerer_refuses_a_wrong_proof() {
        let mut answerer = Handshake::answerer(terms(0), [2; 32]);
        let mut caller = Handshake::caller(terms(2), Rank(0), Purpose::Link, [1; 32]);
        tell(&mut caller, &mut answerer, 100);
        answerer.sent(64);
        answerer.missing().fill(0x55);
        assert_eq!(answerer.got(32), Verdict::Stranger("it does not know the job's secret"));
    }

    #[test]
    fn a_proof_sent_back_to_its_maker_is_refused() {
        // A stranger without the secret answers a challenge with the very proof it was shown.
        let mut answerer = Handshake::answerer(terms(0), [2; 32]);
        let mut caller = Handshake::caller(terms(2), Rank(0), Purpose::Link, [1; 32]);
        tell(&mut caller, &mut answerer, 100);
        let shown = answerer.unsent()[32..64].to_vec();
        answerer.sent(64);
        answerer.missing().copy_from_slice(&shown);
        assert_eq!(answerer.got(32), Verdict::Stranger("it does not know the job's secret"));
    }

    #[test]
    fn garbage_is_refused_after_one_message() {
        let mut answerer = Handshake::answerer(terms(0), [2; 32]);
        let len = answerer.missing().len();
        answerer.missing().fill(b'G');
        assert_eq!(answerer.got(len), Verdict::Stranger("it speaks another protocol"));
        assert!(answerer.unsent().is_empty());
    }

    #[test]
    fn other_jobs_sizes_and_ranks_are_refused_with_the_right_secret() {
        let refused = |calls: Terms, whom: u32, why| {
            let caller = Handshake::caller(calls, Rank(whom), Purpose::Link, [1; 32]);
            let (_, verdict) = shake(caller, Handshake::answerer(terms(1), [2; 32]), 1000);
            assert_eq!(verdict, Verdict::Stranger(why));
        };
        refused(Terms { job: [1; 16], ..terms(2) }, 1, "it belongs to another job");
        let why = "it calls as a rank that does not call this one";
        refused(Terms { size: 4, ..terms(2) }, 1, why);
        refused(terms(2), 0, why);
        refused(terms(0), 1, why);
        refused(terms(1), 1, why);
        refused(terms(3), 1, why);
    }

    #[test]
    fn a_purpose_that_is_none_is_refused() {
        let mut caller = Handshake::caller(terms(2), Rank(1), Purpose::Link, [1; 32]);
        caller.hello[36] = 3;
        caller.outgoing.bytes[36] = 3;
        let (_, verdict) = shake(caller, Handshake::answerer(terms(1), [2; 32]), 1000);
        assert_eq!(verdict, Verdict::Stranger("it calls for no known purpose"));
    }
}
