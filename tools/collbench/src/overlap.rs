//! Several calls in flight on one communicator, each with buffers of its own: planned once (messages need no plan), started
//! together, and waited for in their order.

use crate::pattern::Place;
use sohu_coll::{Blocks, Communicator, Error, Failed, Letter, Owned, Pending, Persistent, Scalar, Untyped};

/// Writes the data of one call into its input and its output.
type Fill<'a> = &'a dyn Fn(&mut [u8], &mut [u8]);

/// Calls that are started together.
pub(crate) trait Flight {
    /// Starts all, and waits for all.
    ///
    /// # Errors
    /// As the first call that fails.
    fn go(&mut self, comm: &mut Communicator) -> Result<(), Error>;

    /// The sum of what `count` finds in each output (in place: in each buffer).
    fn wrong(&self, count: &dyn Fn(&[u8]) -> u64) -> u64;
}

/// Which calls are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) place: Place,
    /// Bytes of the input and the output (in place: nothing and the buffer).
    pub(crate) lengths: [usize; 2],
    pub(crate) count: u32,
    pub(crate) registered: bool,
    /// What the input is multiplied by, in a pre-multiplied sum.
    pub(crate) scalar: Option<Scalar>,
    /// Bytes of the blocks of the input and the output, where they have lengths of their own.
    pub(crate) blocks: Option<[Vec<usize>; 2]>,
    /// Whether they are messages: the input to the next rank, the output from the last.
    pub(crate) ring: bool,
}

/// Plans calls on buffers that `fill` fills.
///
/// # Errors
/// When there is no memory, or no such call.
pub(crate) fn board(
    comm: &mut Communicator,
    call: Untyped,
    wanted: Wanted,
    fill: Fill<'_>,
) -> Result<Box<dyn Flight>, Error> {
    match wanted.registered {
        true => plan(comm, call, wanted, fill, &|comm, len| comm.alloc::<u8>(len)),
        false => plan(comm, call, wanted, fill, &|_, len| Ok(vec![1; len])),
    }
}

fn plan<B: Owned<Element = u8>>(
    comm: &mut Communicator,
    call: Untyped,
    wanted: Wanted,
    fill: Fill<'_>,
    make: &dyn Fn(&mut Communicator, usize) -> Result<B, Error>,
) -> Result<Box<dyn Flight>, Error> {
    let [input, output] = wanted.lengths;
    if wanted.ring {
        let (rank, ranks) = (comm.rank(), comm.size());
        let (next, last) = ((rank + 1) % ranks, (rank + ranks - 1) % ranks);
        let mut ring = Ring { idle: Vec::new(), flying: Vec::new() };
        for _ in 0..wanted.count {
            let (mut input, mut output) = (make(comm, input)?, make(comm, output)?);
            fill(input.elements_mut(), output.elements_mut());
            let send = Letter::send_bytes(call.dtype, input, next);
            ring.idle.push((send, Letter::recv_bytes(call.dtype, output, last)));
        }
        return Ok(Box::new(ring));
    }
    let (mut apart, mut in_place) = (Calls::default(), Calls::default());
    for _ in 0..wanted.count {
        let mut output = make(comm, output)?;
        match wanted.place {
            Place::Apart => {
                let mut input = make(comm, input)?;
                fill(input.elements_mut(), output.elements_mut());
                let planned = match (&wanted.blocks, wanted.scalar) {
                    (None, None) => comm.plan_untyped(call, input, output),
                    (None, Some(scalar)) => comm.plan_scaled(call, scalar, input, output),
                    (Some([gives, gets]), _) => {
                        comm.plan_all_to_all_v(input, Blocks::packed(gives), output, Blocks::packed(gets))
                    }
                };
                apart.idle.push(planned.map_err(why)?);
            }
            Place::InPlace => {
                fill(&mut [], output.elements_mut());
                let planned = match (&wanted.blocks, wanted.scalar) {
                    (None, None) => comm.plan_untyped_in_place(call, output),
                    (None, Some(scalar)) => comm.plan_scaled_in_place(call, scalar, output),
                    (Some([blocks, _]), _) => comm.plan_all_to_all_v_in_place(output, Blocks::packed(blocks)),
                };
                in_place.idle.push(planned.map_err(why)?);
            }
        }
    }
    Ok(match wanted.place {
        Place::Apart => Box::new(Apart(apart)),
        Place::InPlace => Box::new(InPlace(in_place)),
    })
}

/// Calls on such buffers. While none is in flight, all are idle.
struct Calls<B> {
    idle: Vec<Persistent<B>>,
    flying: Vec<Pending<Persistent<B>>>,
}

impl<B> Default for Calls<B> {
    fn default() -> Self {
        Self { idle: Vec::new(), flying: Vec::new() }
    }
}

impl<B> Calls<B> {
    fn go(&mut self, comm: &mut Communicator) -> Result<(), Error> {
        for call in self.idle.drain(..) {
            self.flying.push(call.start(comm).map_err(why)?);
        }
        for call in self.flying.drain(..) {
            self.idle.push(call.wait().map_err(why)?);
        }
        Ok(())
    }
}

fn why<B>(failed: Failed<B>) -> Error {
    *failed.error
}

/// A message to the next rank, and one from the last.
type Pair<B> = (Letter<B>, Letter<B>);

/// As [`Calls`], of messages round the ring.
struct Ring<B> {
    idle: Vec<Pair<B>>,
    flying: Vec<Pending<Pair<B>>>,
}

impl<B: Owned<Element = u8>> Flight for Ring<B> {
    fn go(&mut self, comm: &mut Communicator) -> Result<(), Error> {
        for pair in self.idle.drain(..) {
            self.flying.push(comm.start_group(pair).map_err(why)?);
        }
        for pair in self.flying.drain(..) {
            self.idle.push(pair.wait().map_err(why)?);
        }
        Ok(())
    }

    fn wrong(&self, count: &dyn Fn(&[u8]) -> u64) -> u64 {
        self.idle.iter().map(|(_, got)| count(got.data())).sum()
    }
}

struct Apart<B>(Calls<(B, B)>);
struct InPlace<B>(Calls<B>);

impl<B: Owned<Element = u8>> Flight for Apart<B> {
    fn go(&mut self, comm: &mut Communicator) -> Result<(), Error> {
        self.0.go(comm)
    }

    fn wrong(&self, count: &dyn Fn(&[u8]) -> u64) -> u64 {
        self.0.idle.iter().map(|call| count(call.output())).sum()
    }
}

impl<B: Owned<Element = u8>> Flight for InPlace<B> {
    fn go(&mut self, comm: &mut Communicator) -> Result<(), Error> {
        self.0.go(comm)
    }

    fn wrong(&self, count: &dyn Fn(&[u8]) -> u64) -> u64 {
        self.0.idle.iter().map(|call| count(call.data())).sum()
    }
}
