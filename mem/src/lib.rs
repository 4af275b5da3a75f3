//! Bytes in flight: views of memory that others may be writing, spans lent to a link, and the
//! lock-free pieces that ranks share (lines, the byte ring, the doorbell).
//!
//! This crate depends on nothing, names every atomic of the library in one place ([`words`]), and
//! is where soundness is proven: a caller of its safe items cannot read or write memory that was
//! not lent to it. The lock-free pieces are generic over their words, so that loom explores the
//! very code that runs on mapped memory.
#![expect(unsafe_code, reason = "one of the homes of unsafe: memory is lent here")]

pub mod byte_ring;
pub mod credit;
pub mod custody;
pub mod doorbell;
pub mod ledger;
pub mod line;
pub mod region;
pub mod view;
pub mod words;

pub use custody::Custody;
pub use region::{Ledger, ReadSpan, Region, Regions, WriteSpan};
pub use view::{View, ViewMut};
