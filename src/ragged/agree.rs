//! How calls with blocks of any lengths are made, and how ranks agree on the lengths before.
//!
//! Invariant: by which calls ranks agree, and whether the blocks went along, every rank decides by what all of them know: how
//! many ranks there are, and all memos of this call and of those before.

use super::memos::{Memos, Said};
use super::plans::{Key, Layout};
use super::{Cut, Words};
use crate::lane::{Comparison, Lane, Pinned};
use crate::plans::Forced;
use crate::request::Buffers;
#[cfg(doc)]
use crate::{Communicator, Misuse};
use sohu_coll_core::Error;
use sohu_coll_core::exec::Executor;
use sohu_coll_core::operation::Operand;

impl Lane {
    /// Makes a call, planned now if it is a new one.
    ///
    /// # Errors
    /// As described at [`Communicator`].
    pub(crate) fn run_ragged(
        &mut self,
        cut: &Cut<'_>,
        mut buffers: Buffers<'_>,
        operand: Operand,
    ) -> Result<(), Error> {
        let key = cut.key(&buffers, &self.engine.fabric);
        let (place, layout) = self.place_of(cut, &key, &buffers)?;
        // Each rank knows its own lengths alone, so those of others may have changed where these have not.
        if cut.is_compared() && self.agree(cut, &mut buffers, self.ragged.number(place))? {
            return Ok(());
        }
        let mut executor = self.executor_at(place, layout, (cut, &key, &buffers))?;
        executor.fold_with(operand);
        let made = self.make(&mut executor, key.call, cut.loan(self.rank, buffers));
        executor.fold_with(Operand::None);
        self.ragged.put_back(place, executor);
        made
    }

    /// The place of the plan for a call, and, of a new one, where its blocks lie.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the call makes no sense.
    fn place_of(
        &mut self,
        cut: &Cut<'_>,
        key: &Key<'_>,
        buffers: &Buffers<'_>,
    ) -> Result<(usize, Option<Layout>), Error> {
        if let Some(place) = self.ragged.find(key) {
            return Ok((place, None));
        }
        let layout = cut.lay(self.rank, self.size, buffers).map_err(|error| self.named(error))?;
        Ok((self.ragged.add(key), Some(layout)))
    }

    /// The executor of the plan at a place, bound now if it was not.
    ///
    /// # Errors
    /// As for [`place_of`](Self::place_of).
    fn executor_at(
        &mut self,
        place: usize,
        layout: Option<Layout>,
        (cut, key, buffers): (&Cut<'_>, &Key<'_>, &Buffers<'_>),
    ) -> Result<Executor, Error> {
        if let Some(executor) = self.ragged.take(place) {
            return Ok(executor);
        }
        let layout = match layout {
            Some(layout) => layout,
            None => cut.lay(self.rank, self.size, buffers).map_err(|error| self.named(error))?,
        };
        Ok(self.ragged.bind(self.rank, self.plans.tuner(), key, &layout))
    }

    /// A plan for such calls that is nobody else's.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the call makes no sense.
    pub(crate) fn pin_ragged(
        &mut self,
        cut: &Cut<'_>,
        operand: &Operand,
        buffers: Buffers<'_>,
    ) -> Result<Box<Pinned>, Error> {
        let key = cut.key(&buffers, &self.engine.fabric);
        let (place, layout) = self.place_of(cut, &key, &buffers)?;
        let kept = self.executor_at(place, layout, (cut, &key, &buffers))?;
        let mut executor = kept.twin();
        self.ragged.put_back(place, kept);
        executor.fold_with(operand.clone());
        let is_told = cut.is_compared() && !Memos::are_for(self.size);
        let comparison = if is_told { Some(self.pin_comparison(cut)?) } else { None };
        let number = self.ragged.number(place);
        Ok(Box::new(Pinned { executor, signature: key.call, number, comparison }))
    }

    /// Plans the two calls in which ranks tell each other their lengths.
    ///
    /// # Errors
    /// As for [`pin`](Self::pin).
    pub(crate) fn pin_comparison(&mut self, cut: &Cut<'_>) -> Result<Box<Comparison>, Error> {
        self.unsteered(|lane| {
            let mut words = Box::<Words>::default();
            words.tell(cut);
            let tells = lane.pin(&words.terms(), &mut *words)?;
            words.judge(lane.rank, cut);
            let judges = lane.pin(&words.terms(), &mut *words)?;
            Ok(Box::new(Comparison { words: Some(words), pins: [Some(tells), Some(judges)] }))
        })
    }

    /// Makes calls of the library's own directly where the caller has chosen an algorithm for its calls: that may do no such ones.
    fn unsteered<R>(&mut self, calls: impl FnOnce(&mut Self) -> R) -> R {
        if !self.plans.is_steered() {
            return calls(self);
        }
        let before = self.plans.force(Forced::named("one_shot"));
        let result = calls(self);
        self.plans.force(before);
        result
    }

    /// Sees to it that all ranks agree on the lengths of all blocks. Says whether the call is made with that: short blocks go
    /// along, and are where they belong. It is the call of that [`number`](super::plans::Plans::number).
    ///
    /// # Errors
    /// [`Misuse::Disagree`], on all ranks, when two disagree; else as described at [`Communicator`].
    pub(crate) fn agree(
        &mut self,
        cut: &Cut<'_>,
        buffers: &mut Buffers<'_>,
        number: u64,
    ) -> Result<bool, Error> {
        let Some(mut memos) = self.ragged.take_memos(self.rank, self.plans.tuner().machine()) else {
            return self.compare(cut).map(|()| false);
        };
        let said = self.tell_all(&mut memos, cut, buffers, number);
        self.ragged.memos = Some(memos);
        match said? {
            Said::Everything => Ok(true),
            Said::Agreed => Ok(false),
            Said::Unclear => self.compare(cut).map(|()| false),
        }
    }

    /// Tells all ranks this one's memo, and reads those of all.
    fn tell_all(
        &mut self,
        memos: &mut Memos,
        cut: &Cut<'_>,
        buffers: &mut Buffers<'_>,
        number: u64,
    ) -> Result<Said, Error> {
        let mut pinned = memos.write(cut, buffers, number);
        let made = self.make(&mut pinned.executor, pinned.signature, memos.loan());
        memos.put_back(pinned);
        made?;
        memos.read(cut, buffers, number).map_err(|error| self.named(error))
    }

    /// Has each rank tell every other one the length of the block that it has for it, and all ranks what it heard.
    ///
    /// # Errors
    /// As for [`agree`](Self::agree).
    fn compare(&mut self, cut: &Cut<'_>) -> Result<(), Error> {
        let mut words = std::mem::take(&mut self.ragged.words);
        let compared = self.unsteered(|lane| lane.tell_and_judge(cut, &mut words));
        self.ragged.words = words;
        compared
    }

    fn tell_and_judge(&mut self, cut: &Cut<'_>, words: &mut Words) -> Result<(), Error> {
        words.tell(cut);
        self.run(words.request(), 0)?;
        words.judge(self.rank, cut);
        self.run(words.request(), 0)?;
        words.verdict().map_err(|error| self.named(error))
    }
}
