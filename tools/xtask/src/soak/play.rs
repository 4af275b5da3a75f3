//! One rank's part in the calls.

mod messages;
mod ragged;
mod user;

use super::draw::{BYTES_MAX, Call, FLIGHTS_MAX, Group, Home, How, MESSAGES_MAX, OFFSET_MAX, Op, Rng, Step};
use super::flight::{self, Flight};
use super::sheet::{GUARD, Sheets};
use super::values::Values;
use sohu_coll::{Buffer, Buffers, Communicator, Error, ReduceOp, Request};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Range;

/// Registered memory that a group keeps for each side; what is longer gets memory of its own.
const KEPT_MAX: usize = 1 << 20;

/// The longest room that a step takes for one side: guards around the buffer, and between messages.
const ROOM_MAX: usize = BYTES_MAX + GUARD * (MESSAGES_MAX + 2) + OFFSET_MAX;

/// The name of the group of all ranks.
const WORLD: u32 = 0;

/// A communicator, its calls that are pending, and the memory that is registered with it: of inputs and of outputs.
struct Held {
    comm: Communicator,
    flights: Vec<Flight>,
    kept: [Option<Buffer<u8>>; 2],
}

impl Held {
    fn new(comm: Communicator) -> Self {
        Self { comm, flights: Vec::new(), kept: [None, None] }
    }

    /// Drops the communicator, and looks at what came of the calls that were pending.
    fn end(self) -> Result<(), String> {
        drop(self.comm);
        self.flights.into_iter().try_for_each(Flight::land)
    }
}

/// One rank, with the groups that it is in.
pub(super) struct Player {
    rank: u32,
    groups: BTreeMap<u32, Held>,
    /// Words, to be aligned for any element.
    private: [Vec<u64>; 2],
    bytes: u64,
}

impl Player {
    /// A rank of the world.
    pub(super) fn new(world: Communicator) -> Self {
        // At its largest and touched from the start, so that it is no growth later.
        let private = || vec![1; ROOM_MAX.div_ceil(size_of::<u64>())];
        let rank = world.rank();
        let groups = BTreeMap::from([(WORLD, Held::new(world))]);
        Self { rank, groups, private: [private(), private()], bytes: 0 }
    }

    /// Bytes of all buffers that this rank gave to calls.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Drops everything but the world, and waits for all that is pending.
    ///
    /// # Errors
    /// Says which call came to a wrong end.
    pub(super) fn rest(&mut self) -> Result<(), String> {
        let mut rest = std::mem::take(&mut self.groups);
        let world = rest.remove(&WORLD);
        rest.into_values().try_for_each(Held::end)?;
        if let Some(mut world) = world {
            world.kept = [None, None];
            std::mem::take(&mut world.flights).into_iter().try_for_each(Flight::land)?;
            self.groups.insert(WORLD, world);
        }
        Ok(())
    }

    /// Does this rank's part of a step.
    ///
    /// # Errors
    /// Says what was wrong.
    pub(super) fn play(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Call(call) => self.call(call),
            Step::Ragged(call) => self.ragged(call),
            Step::Messages(messages) => self.messages(messages),
            Step::Split { parent, said, made } => {
                let Some(held) = self.groups.get_mut(parent) else { return Ok(()) };
                let (colour, key) = said[held.comm.rank() as usize];
                let child = held.comm.split(colour, key).map_err(|error| format!("split: {error}"))?;
                self.join(child, made.iter().find(|group| group.members.contains(&self.rank)))
            }
            Step::Duplicate { parent, made } => {
                let Some(held) = self.groups.get_mut(parent) else { return Ok(()) };
                let copy = held.comm.duplicate().map_err(|error| format!("duplicate: {error}"))?;
                self.join(Some(copy), Some(made))
            }
            Step::Drop { group } => self.groups.remove(group).map_or(Ok(()), Held::end),
            Step::Wait { group, salt } => {
                let Some(Held { flights, .. }) = self.groups.get_mut(group) else { return Ok(()) };
                if flights.is_empty() {
                    return Ok(());
                }
                let at = Rng::new(*salt, self.rank.into()).next() % flights.len() as u64;
                flights.swap_remove(at as usize).land()
            }
            Step::Rest => self.rest(),
        }
    }

    /// Takes a new communicator, if it is the one that must come.
    fn join(&mut self, comm: Option<Communicator>, expected: Option<&Group>) -> Result<(), String> {
        let found = comm.as_ref().map(|comm| (comm.rank(), comm.size()));
        let place = |group: &Group| {
            let place = group.members.iter().position(|member| *member == self.rank);
            (place.expect("the rank is a member") as u32, group.members.len() as u32)
        };
        let wanted = expected.map(place);
        if found != wanted {
            return Err(format!("the new communicator has (rank, size) {found:?}, not {wanted:?}"));
        }
        if let (Some(comm), Some(group)) = (comm, expected) {
            self.groups.insert(group.name, Held::new(comm));
        }
        Ok(())
    }

    /// Makes one call and looks at every byte.
    fn call(&mut self, call: &Call) -> Result<(), String> {
        let Some(Held { comm, flights, kept }) = self.groups.get_mut(&call.group) else { return Ok(()) };
        let (rank, size) = (comm.rank(), comm.size());
        be_late(call.late, rank);
        let shape = &call.shape;
        if call.how != How::Blocking {
            let (bytes, flight) = flight::make(comm, call)?;
            self.bytes += bytes;
            return flight.map_or(Ok(()), |flight| take_off(flights, flight));
        }
        let values = Values { dtype: shape.dtype, op: shape.op, salt: call.salt };
        // What is folded by a function has a type, and lies where elements of that type can.
        let is_user = shape.op.name() == ReduceOp::User && shape.collective.reduces();
        let granule = if is_user { shape.dtype.size() } else { 1 };
        let call = &Call { spare: call.spare - call.spare % granule, ..*call };
        let sheets = Sheets::of(call, rank, size);
        let offset = turned(call.offset, rank, granule);
        let [private_in, private_out] = &mut self.private;
        let [kept_in, kept_out] = kept;
        let place = |room: usize| offset..offset + room;
        let mut output =
            Memory::take(comm, (private_out, kept_out), shape.homes[1], place(sheets.before.room()))?;
        let output = output.bytes();
        sheets.before.fill(output, &values, size);
        let request = |buffers| {
            let (collective, dtype, op, root) = (shape.collective, shape.dtype, shape.op.name(), call.root);
            let op = if collective.reduces() { op } else { ReduceOp::Sum };
            Request { collective, dtype, op, root, buffers }
        };
        let scalar = values.scalar(rank);
        let make = |comm: &mut Communicator, request: Request<'_>| match request.op {
            ReduceOp::PreMulSum => comm.run_scaled(request, scalar),
            ReduceOp::User => user::run(comm, request, shape.op),
            _ => comm.run(request),
        };
        let inside = |bytes: usize| GUARD..GUARD + bytes;
        let got = inside(sheets.before.bytes());
        self.bytes += got.len() as u64;
        let done = match &sheets.input {
            None => make(comm, request(Buffers::InPlace(&mut output[got]))),
            Some(sheet) => {
                let place = place(sheet.room());
                let mut memory = Memory::take(comm, (private_in, kept_in), shape.homes[0], place)?;
                let input = memory.bytes();
                sheet.fill(input, &values, size);
                let given = inside(sheet.bytes());
                self.bytes += given.len() as u64;
                let done =
                    make(comm, request(Buffers::Apart { input: &input[given], output: &mut output[got] }));
                if done.is_ok() {
                    sheet.check(input, &values, size).map_err(|why| format!("the input: {why}"))?;
                }
                done
            }
        };
        done.map_err(|error: Error| error.to_string())?;
        sheets.after.check(output, &values, size).map_err(|why| format!("the output: {why}"))
    }
}

/// Adds a flight, and waits for the first if they are too many.
fn take_off(flights: &mut Vec<Flight>, flight: Flight) -> Result<(), String> {
    flights.push(flight);
    if flights.len() > FLIGHTS_MAX { flights.remove(0).land() } else { Ok(()) }
}

/// Does so much work first, on the rank that it is for.
fn be_late(late: Option<(u32, u64)>, rank: u32) {
    let Some((_, work)) = late.filter(|late| late.0 == rank) else { return };
    let mut rng = Rng::new(work, 0);
    for _ in 0..work {
        black_box(rng.next());
    }
}

/// Where a rank's buffers start: each elsewhere, if not at the start of a page, but at a multiple of `granule`.
fn turned(offset: usize, rank: u32, granule: usize) -> usize {
    let at = if offset == 0 { 0 } else { (offset + 7 * rank as usize) % (OFFSET_MAX + 1) };
    at - at % granule
}

/// Memory for one buffer of one call.
enum Memory<'a> {
    Borrowed(&'a mut [u8]),
    Fresh(Buffer<u8>, Range<usize>),
}

impl<'a> Memory<'a> {
    /// The bytes at `place` of memory of that home.
    fn take(
        comm: &mut Communicator,
        (private, kept): (&'a mut Vec<u64>, &'a mut Option<Buffer<u8>>),
        home: Home,
        place: Range<usize>,
    ) -> Result<Self, String> {
        let mut alloc = |bytes| comm.alloc::<u8>(bytes).map_err(|error| error.to_string());
        match home {
            Home::Private => Ok(Self::Borrowed(&mut bytemuck::cast_slice_mut(private)[place])),
            Home::Registered if place.end <= KEPT_MAX => {
                if kept.is_none() {
                    *kept = Some(alloc(KEPT_MAX)?);
                }
                Ok(Self::Borrowed(&mut kept.as_mut().expect("it is there now")[place]))
            }
            Home::Registered | Home::Fresh => Ok(Self::Fresh(alloc(place.end)?, place)),
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Fresh(buffer, place) => &mut buffer[place.clone()],
        }
    }
}
