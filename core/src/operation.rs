//! Operations that are not complete by their names: what a call gives with them, and how ranks tell them apart.
//!
//! Invariant: two user operations that were made in one process under different names have different tags. Names that only
//! another process knows are shown as tags.

use crate::element::Scalar;
use crate::kernel::Fold;
use core::fmt;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// What a call folds with besides what its plan knows.
#[derive(Clone, Default)]
pub enum Operand {
    /// Nothing: the operation is complete by its name.
    #[default]
    None,
    /// What this rank's input is multiplied by.
    Scalar(Scalar),
    /// What elements are folded by.
    Fold(Arc<dyn Fold>),
}

impl fmt::Debug for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Scalar(scalar) => write!(f, "Scalar({scalar:?})"),
            Self::Fold(fold) => write!(f, "Fold({:?})", fold.name()),
        }
    }
}

/// What stands for the name of a user operation where there is no room for it: 22 bits of its hash, and whether it is commutative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(u32);

/// Bits of a tag.
pub(crate) const TAG_BITS: u32 = 23;

/// The most names that are remembered: far more than a program has operations. Others are shown as tags.
const NAMES_MAX: usize = 4096;

/// The names of this process.
static NAMES: Mutex<BTreeMap<Tag, Arc<str>>> = Mutex::new(BTreeMap::new());

impl Tag {
    /// The tag of a name, which is remembered.
    ///
    /// # Errors
    /// The other name that has this tag.
    pub fn of(name: &str, commutative: bool) -> Result<Self, Arc<str>> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let hash = hasher.finish() as u32 & ((1 << (TAG_BITS - 1)) - 1);
        let tag = Self(hash << 1 | u32::from(commutative));
        // Every change is one insertion: a map that a panic left behind is whole.
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        match names.get(&tag) {
            Some(other) if **other != *name => return Err(other.clone()),
            Some(_) => {}
            None if names.len() < NAMES_MAX => drop(names.insert(tag, name.into())),
            None => {}
        }
        Ok(tag)
    }

    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << TAG_BITS) - 1))
    }

    /// The tag as a number below 2^23; 0 where there is no user operation.
    #[inline]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether the order in which two elements are folded makes no difference.
    pub fn is_commutative(self) -> bool {
        self.0 & 1 == 1
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        match names.get(self) {
            Some(name) => write!(f, "{name:?}"),
            None => write!(f, "#{:06x}", self.0),
        }?;
        f.write_str(if self.is_commutative() { " (commutative)" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test, since names are those of the process, and the end of it uses all there may be.
    #[test]
    fn names_and_properties_are_told_apart_and_shown() {
        let one = Tag::of("operation::one", false).unwrap();
        assert_eq!(Tag::of("operation::one", false), Ok(one));
        assert_ne!(Tag::of("operation::two", false), Ok(one));
        assert_ne!(Tag::of("operation::one", true), Ok(one));
        assert_eq!(one.to_string(), "\"operation::one\"");
        assert_eq!(Tag::from_bits(!1).to_string(), "#7ffffe");
        // 22 bits: among so many names some share a tag, and the second of them is refused.
        let names = (0..NAMES_MAX * 16).map(|number| format!("operation::{number}"));
        let clashes: Vec<_> = names.filter_map(|name| Some((Tag::of(&name, false).err()?, name))).collect();
        assert!(!clashes.is_empty() && clashes.iter().all(|(other, name)| **other != **name), "{clashes:?}");
    }
}
