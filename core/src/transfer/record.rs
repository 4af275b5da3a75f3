//! The head of a message and the answer to it, as two words each.

use super::Transfer;
use crate::element::DType;
use crate::error::LinkError;
use crate::pipe::Note;
use crate::rank::Rank;
use sohu_coll_mem::{View, ViewMut};

/// Bytes of a record.
pub(super) const RECORD_BYTES: usize = 16;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A message begins: its type and count are the sender's.
    Head = 1,
    /// A message was looked at: type and count are the receiver's.
    Answer = 2,
}

/// What one rank says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) dtype: DType,
    pub(super) count: u64,
    /// How many messages went through this pipe before, modulo 2^32.
    pub(super) sequence: u32,
    /// Of a head: whether all bytes of the message go ahead of the answer.
    pub(super) goes_ahead: bool,
}

/// Set in the first word of a head whose bytes all go ahead of the answer.
pub(super) const GOES_AHEAD: u64 = 1 << 16;

impl Record {
    /// What a rank says of the message with this number, of which it makes a half.
    #[inline]
    pub(super) fn of(kind: Kind, transfer: &Transfer, sequence: u32) -> Self {
        Self { kind, dtype: transfer.dtype, count: transfer.count, sequence, goes_ahead: false }
    }

    #[inline]
    pub(super) fn to_words(self) -> Note {
        let kinds = u64::from(self.kind as u8) | u64::from(self.dtype as u8) << 8;
        let ahead = if self.goes_ahead { GOES_AHEAD } else { 0 };
        [kinds | ahead | u64::from(self.sequence) << 32, self.count]
    }

    #[inline]
    pub(super) fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let [kinds, count] = self.to_words();
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&kinds.to_le_bytes());
        bytes[8..].copy_from_slice(&count.to_le_bytes());
        bytes
    }

    /// Reads what `peer` wrote, which must be of this kind and number.
    #[inline]
    pub(super) fn from_bytes(
        bytes: [u8; RECORD_BYTES],
        kind: Kind,
        sequence: u32,
        peer: Rank,
    ) -> Result<Self, LinkError> {
        let corrupt = |what| LinkError::Corrupt { peer, what };
        let goes_ahead = bytes[2] == 1 && kind == Kind::Head;
        if bytes[0] != kind as u8 || bytes[2..4] != [u8::from(goes_ahead), 0] {
            return Err(corrupt("no message begins where one should"));
        }
        let dtype = DType::from_code(bytes[1]).ok_or(corrupt("a message of no known type"))?;
        let [_, _, _, _, a, b, c, d, count @ ..] = bytes;
        if u32::from_le_bytes([a, b, c, d]) != sequence {
            return Err(corrupt("a message out of its turn"));
        }
        let count = u64::from_le_bytes(count);
        if count > Transfer::COUNT_MAX {
            return Err(corrupt("a message of more elements than there can be"));
        }
        Ok(Self { kind, dtype, count, sequence, goes_ahead })
    }
}

/// A record that comes in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arriving {
    bytes: [u8; RECORD_BYTES],
    len: usize,
}

impl Arriving {
    /// How many bytes are missing.
    #[inline]
    pub(super) fn missing(&self) -> usize {
        RECORD_BYTES - self.len
    }

    /// Takes what has come of it. Says how many bytes, and the record once it is whole.
    #[inline]
    pub(super) fn push(&mut self, bytes: View<'_>) -> (usize, Option<[u8; RECORD_BYTES]>) {
        let count = self.missing().min(bytes.len());
        bytes.first(count).copy_to(ViewMut::from(&mut self.bytes[self.len..][..count]));
        self.len += count;
        if self.len < RECORD_BYTES {
            return (count, None);
        }
        self.len = 0;
        (count, Some(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Rank = Rank(3);

    fn head() -> Record {
        let sequence = u32::MAX - 1;
        Record { kind: Kind::Head, dtype: DType::Bf16, count: 0x1234_5678_9abc, sequence, goes_ahead: false }
    }

    #[test]
    fn what_is_written_is_read() {
        for (kind, goes_ahead) in [(Kind::Head, false), (Kind::Head, true), (Kind::Answer, false)] {
            for dtype in DType::ALL {
                for count in [0, 1, 255, 1 << 32, Transfer::COUNT_MAX] {
                    let record = Record { kind, dtype, count, goes_ahead, ..head() };
                    assert_eq!(
                        Record::from_bytes(record.to_bytes(), kind, record.sequence, PEER),
                        Ok(record)
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_no_record_of_its_turn_is_corrupt() {
        let spoilt = |at: usize, byte: u8| {
            let mut bytes = head().to_bytes();
            bytes[at] = byte;
            Record::from_bytes(bytes, Kind::Head, head().sequence, PEER)
        };
        let wrong = [(0, 0), (0, 2), (0, 255), (1, 0), (1, 13), (2, 2), (3, 9), (4, 1), (7, 0), (14, 1)];
        for (at, byte) in wrong {
            let told = spoilt(at, byte);
            assert!(
                matches!(told, Err(LinkError::Corrupt { peer: PEER, .. })),
                "byte {at} is {byte}: {told:?}"
            );
        }
        let answer = Record { kind: Kind::Answer, goes_ahead: true, ..head() };
        let told = Record::from_bytes(answer.to_bytes(), Kind::Answer, answer.sequence, PEER);
        assert!(matches!(told, Err(LinkError::Corrupt { .. })), "an answer has no bytes: {told:?}");
    }
}
