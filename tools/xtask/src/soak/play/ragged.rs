//! One rank's part in calls whose blocks have lengths of their own.

use super::user::typed;
use super::{GUARD, Held, Memory, Op, Player, Sheets, Values, be_late, turned};
use crate::soak::draw::Ragged;
use sohu_coll::{Blocks, Collective, Communicator, DType, E4m3, E5m2, Element, Error, bf16, f16};

impl Player {
    /// Makes the call as often as it is to be made, and looks at every byte each time.
    pub(super) fn ragged(&mut self, call: &Ragged) -> Result<(), String> {
        let Some(Held { comm, kept, .. }) = self.groups.get_mut(&call.group) else { return Ok(()) };
        let (rank, size) = (comm.rank(), comm.size());
        be_late(call.late, rank);
        let values = Values { dtype: call.dtype, op: Op::Known(call.op), salt: call.salt };
        let sheets = Sheets::ragged(call, rank);
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
            let [gives, gets] = [&gives, &gets]
                .map(|lay| Blocks { counts: &lay.counts, displacements: lay.displacements.as_deref() });
            comm.all_to_all_v(input, gives, output, gets)
        }
    }
}
