//! One rank's part in calls whose blocks have lengths of their own.

use super::user::typed;
use super::{Flight, GUARD, Held, How, Memory, Op, Player, Sheets, Values, be_late, take_off, turned};
use crate::soak::draw::{Home, Lay, Ragged};
use crate::soak::flight::{filled, landed, registered, text};
use sohu_coll::{Blocks, Collective, Communicator, DType, E4m3, E5m2, Element, Error, Owned, bf16, f16};

impl Player {
    /// Makes the call as often as it is to be made, and looks at every byte each time.
    pub(super) fn ragged(&mut self, call: &Ragged) -> Result<(), String> {
        let Some(Held { comm, kept, flights }) = self.groups.get_mut(&call.group) else { return Ok(()) };
        let (rank, size) = (comm.rank(), comm.size());
        be_late(call.late, rank);
        let values = Values { dtype: call.dtype, op: Op::Known(call.op), salt: call.salt };
        let sheets = Sheets::ragged(call, rank);
        if call.how != How::Blocking {
            for _ in 0..call.times {
                let flight = typed!(call.dtype, start(comm, call, values, sheets.clone()))?;
                self.bytes += sheets.bytes() as u64;
                if call.how == How::Started {
                    take_off(flights, flight)?;
                }
            }
            return Ok(());
        }
        let given = sheets.input.as_ref().expect("such calls have two buffers");
        let offset = turned(call.offset, rank, call.dtype.size());
        let [private_in, private_out] = &mut self.private;
        let [kept_in, kept_out] = kept;
        let place = |room: usize| offset..offset + room;
        let mut input = Memory::take(comm, (private_in, kept_in), call.homes[0], place(given.room()))?;
        let mut output =
            Memory::take(comm, (private_out, kept_out), call.homes[1], place(sheets.before.room()))?;
        let (input, output) = (input.bytes(), output.bytes());
        given.fill(input, &values, size);
        for _ in 0..call.times {
            sheets.before.fill(output, &values, size);
            let from = &input[GUARD..GUARD + given.bytes()];
            let into = &mut output[GUARD..GUARD + sheets.before.bytes()];
            self.bytes += (from.len() + into.len()) as u64;
            typed!(call.dtype, run(comm, call, from, into)).map_err(|error| error.to_string())?;
            given.check(input, &values, size).map_err(|why| format!("the input: {why}"))?;
            sheets.after.check(output, &values, size).map_err(|why| format!("the output: {why}"))?;
        }
        Ok(())
    }
}

fn run<T: Element>(
    comm: &mut Communicator,
    call: &Ragged,
    input: &[u8],
    output: &mut [u8],
) -> Result<(), Error> {
    let (input, output) = (bytemuck::cast_slice::<u8, T>(input), bytemuck::cast_slice_mut::<u8, T>(output));
    let counts = &call.counts[0];
    match call.collective {
        Collective::AllGather => comm.all_gather_v(input, output, counts),
        Collective::ReduceScatter => comm.reduce_scatter_v(input, output, counts, call.op),
        Collective::Gather => comm.gather_v(input, output, counts, call.root),
        Collective::Scatter => comm.scatter_v(input, output, counts, call.root),
        _ => {
            let [gives, gets] = [true, false].map(|gives| call.lay(comm.rank(), gives));
            comm.all_to_all_v(input, blocks(&gives), output, blocks(&gets))
        }
    }
}

/// Starts the call on buffers of its own, of the homes that are drawn for it.
fn start<T: Element>(
    comm: &mut Communicator,
    call: &Ragged,
    values: Values,
    sheets: Sheets,
) -> Result<Flight, String> {
    let size = comm.size();
    let elements = |sheet| {
        let bytes = filled(sheet, &values, size);
        let mut elements = vec![T::zeroed(); bytes.len() / size_of::<T>()];
        bytemuck::cast_slice_mut(&mut elements).copy_from_slice(&bytes);
        elements
    };
    let input = elements(sheets.input.as_ref().expect("such calls have two buffers"));
    let output = elements(&sheets.before);
    let must = (values, sheets);
    match call.homes.map(|home| home != Home::Private) {
        [false, false] => start_on(comm, call, must, input, output),
        [false, true] => {
            let output = registered(comm, &output)?;
            start_on(comm, call, must, input, output)
        }
        [true, false] => {
            let input = registered(comm, &input)?;
            start_on(comm, call, must, input, output)
        }
        [true, true] => {
            let (input, output) = (registered(comm, &input)?, registered(comm, &output)?);
            start_on(comm, call, must, input, output)
        }
    }
}

fn start_on<I: Owned, O: Owned<Element = I::Element>>(
    comm: &mut Communicator,
    call: &Ragged,
    (values, sheets): (Values, Sheets),
    input: I,
    output: O,
) -> Result<Flight, String> {
    let size = comm.size();
    let (counts, salt) = (&call.counts[0][..], call.salt);
    let started = match call.collective {
        Collective::AllGather => comm.start_all_gather_v(input, output, counts),
        Collective::ReduceScatter => comm.start_reduce_scatter_v(input, output, counts, call.op),
        Collective::Gather => comm.start_gather_v(input, output, counts, call.root),
        Collective::Scatter => comm.start_scatter_v(input, output, counts, call.root),
        _ => {
            let [gives, gets] = [true, false].map(|gives| call.lay(comm.rank(), gives));
            comm.start_all_to_all_v(input, blocks(&gives), output, blocks(&gets))
        }
    };
    let pending = started.map_err(text)?;
    Ok(Flight::new(call.clone(), values, (sheets, size), move || {
        let (input, output) = landed(pending, salt)?;
        let bytes = |elements: &[I::Element]| bytemuck::cast_slice(elements).to_vec();
        Ok((Some(bytes(input.elements())), bytes(output.elements())))
    }))
}

fn blocks(lay: &Lay) -> Blocks<'_> {
    Blocks { counts: &lay.counts, displacements: lay.displacements.as_deref() }
}
