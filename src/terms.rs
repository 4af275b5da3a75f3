//! What is asked of a call that outlives its caller's function: everything but its buffers.

use crate::mail;
use crate::operation::Folding;
use crate::owned::Owner;
use crate::plans::{Asked, Shape};
use crate::ragged::{Blocks, Cut};
use crate::request::{Buffers, Request, incomplete};
use sohu_coll_core::{Collective, DType, Error, Rank, Signature};
use sohu_coll_mem::region::Loan;
use std::sync::Arc;

/// What a started call is to do.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// A call of all ranks, which is planned.
    Call(Terms),
    /// Messages, which their owner knows all about. The name is for errors.
    Messages(&'static str),
}

impl Task {
    /// The name of the call, for errors.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Call(terms) => terms.name(),
            Self::Messages(name) => name,
        }
    }

    /// Whether it makes sense on the buffers of its owner.
    ///
    /// # Errors
    /// [`Error::Misuse`] says what does not.
    pub(crate) fn check(&self, rank: Rank, size: u32, owner: &mut dyn Owner) -> Result<(), Error> {
        match self {
            Self::Call(terms) => terms.check(rank, size, owner.buffers()),
            Self::Messages(name) => mail::check(rank, size, owner, *name == "group"),
        }
    }
}

/// What is asked of a call of all ranks, its buffers apart.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) collective: Collective,
    pub(crate) dtype: DType,
    pub(crate) folding: Folding,
    pub(crate) root: u32,
    /// What else the signature says: see [`Signature::algorithm`].
    pub(crate) flags: u8,
    /// Where the blocks lie, where they have lengths of their own.
    pub(crate) lengths: Option<Arc<Lengths>>,
}

/// The blocks of the input and the output.
#[derive(Debug)]
pub(crate) struct Lengths([List; 2]);

#[derive(Debug)]
struct List {
    counts: Box<[usize]>,
    displacements: Option<Box<[usize]>>,
}

impl Lengths {
    /// Keeps blocks of the input and the output, which may be the same.
    pub(crate) fn of(blocks: [Blocks<'_>; 2]) -> Arc<Self> {
        let list = |blocks: Blocks<'_>| List {
            counts: blocks.counts.into(),
            displacements: blocks.displacements.map(Box::from),
        };
        Arc::new(Self(blocks.map(list)))
    }
}

impl List {
    fn blocks(&self) -> Blocks<'_> {
        Blocks { counts: &self.counts, displacements: self.displacements.as_deref() }
    }
}

impl Terms {
    /// The name of the call, for errors.
    pub(crate) fn name(&self) -> &'static str {
        match self.cut() {
            _ if self.flags & Signature::BARRIER != 0 => "barrier",
            Some(cut) => cut.name(),
            None => self.collective.name(),
        }
    }

    /// The same, where blocks have lengths of their own.
    pub(crate) fn cut(&self) -> Option<Cut<'_>> {
        let Lengths([gives, gets]) = &**self.lengths.as_ref()?;
        let Self { collective, dtype, folding, root, .. } = self;
        Some(Cut {
            collective: *collective,
            dtype: *dtype,
            op: folding.op,
            tag: folding.tag,
            is_incomplete: folding.is_incomplete(),
            root: *root,
            blocks: [gives.blocks(), gets.blocks()],
        })
    }

    /// Whether the call makes sense on these buffers.
    ///
    /// # Errors
    /// [`Error::Misuse`] says what does not.
    pub(crate) fn check(&self, rank: Rank, size: u32, buffers: Buffers<'_>) -> Result<(), Error> {
        match self.cut() {
            Some(cut) => cut.lay(rank, size, &buffers).map(drop),
            None => self.shape(rank, size, buffers, |_| false).map(drop),
        }
    }

    /// The buffers, as the call borrows them.
    ///
    /// # Errors
    /// As for [`check`](Self::check).
    pub(crate) fn loan<'a>(&self, rank: Rank, size: u32, buffers: Buffers<'a>) -> Result<Loan<'a>, Error> {
        match self.cut() {
            Some(cut) => Ok(cut.loan(rank, buffers)),
            None => self.shape(rank, size, buffers, |_| false).map(|(_, loan)| loan),
        }
    }

    /// What a call asks for whose blocks are all as long.
    ///
    /// # Errors
    /// As for [`check`](Self::check).
    pub(crate) fn shape<'a>(
        &self,
        rank: Rank,
        size: u32,
        buffers: Buffers<'a>,
        is_registered: impl Fn(&[u8]) -> bool,
    ) -> Result<(Shape, Loan<'a>), Error> {
        if self.folding.is_incomplete() && self.collective.reduces() {
            return Err(incomplete(self.name(), self.folding.op));
        }
        self.request(buffers).shape_with(rank, size, is_registered, self.folding.tag)
    }

    /// By what such a call is recalled.
    pub(crate) fn asked(&self, buffers: Buffers<'_>) -> Asked {
        let asked = Asked::new(&self.request(buffers));
        if self.folding.op.is_open() { asked.with_operand(self.folding.tag) } else { asked }
    }

    fn request<'a>(&self, buffers: Buffers<'a>) -> Request<'a> {
        let Self { collective, dtype, root, .. } = *self;
        Request { collective, dtype, op: self.folding.op, root, buffers }
    }
}
