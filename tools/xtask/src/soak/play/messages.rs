//! One rank's part in messages.

use super::{GUARD, Held, Memory, Op, Player, Sheets, Values, be_late, turned};
use crate::soak::draw::{Message, Messages};
use sohu_coll::{Communicator, DType, ReduceOp};

/// One half of a message: what is sent or where it is received, and the other rank.
enum Half<'a> {
    Send(&'a [u8], u32),
    Recv(&'a mut [u8], u32),
}

impl Player {
    /// Makes this rank's halves of the messages, in calls of one or of several, and looks at every byte.
    pub(super) fn messages(&mut self, messages: &Messages) -> Result<(), String> {
        let Some(Held { comm, kept, .. }) = self.groups.get_mut(&messages.group) else { return Ok(()) };
        let (rank, size) = (comm.rank(), comm.size());
        be_late(messages.late, rank);
        let values = Values { dtype: messages.dtype, op: Op::Known(ReduceOp::Sum), salt: messages.salt };
        let sheets = Sheets::messages(messages, rank);
        let sent = sheets.input.as_ref().expect("what is sent lies apart");
        let offset = turned(messages.offset, rank, 1);
        let [private_in, private_out] = &mut self.private;
        let [kept_in, kept_out] = kept;
        let place = |room: usize| offset..offset + room;
        let mut input = Memory::take(comm, (private_in, kept_in), messages.homes[0], place(sent.room()))?;
        let mut output =
            Memory::take(comm, (private_out, kept_out), messages.homes[1], place(sheets.before.room()))?;
        let (input, output) = (input.bytes(), output.bytes());
        sent.fill(input, &values, size);
        sheets.before.fill(output, &values, size);
        self.bytes += (sent.bytes() + sheets.before.bytes()) as u64;
        let mut halves = halves(messages, rank, input, output);
        for part in messages.parts(rank) {
            let taken = part.halves.iter().map(|&(number, sends)| {
                halves[number][usize::from(sends)].take().expect("each half is in one part")
            });
            let taken: Vec<Half<'_>> = taken.collect();
            made(comm, messages.dtype, taken, part.grouped).map_err(|why| format!("{part:?}: {why}"))?;
        }
        sent.check(input, &values, size).map_err(|why| format!("what was sent: {why}"))?;
        sheets.after.check(output, &values, size).map_err(|why| format!("what was received: {why}"))
    }
}

/// This rank's halves by the number of their message: where it receives, what it sends.
fn halves<'a>(
    messages: &Messages,
    rank: u32,
    input: &'a [u8],
    output: &'a mut [u8],
) -> Vec<[Option<Half<'a>>; 2]> {
    let (mut input, mut output) = (&input[GUARD..], &mut output[GUARD..]);
    let half = |&Message { from, to, count }: &Message| {
        let bytes = count * messages.dtype.size();
        let mut halves = [None, None];
        if to == rank {
            let (data, rest) = std::mem::take(&mut output).split_at_mut(bytes);
            halves[0] = Some(Half::Recv(data, from));
            output = &mut rest[GUARD..];
        }
        if from == rank {
            halves[1] = Some(Half::Send(&input[..bytes], to));
            input = &input[bytes + GUARD..];
        }
        halves
    };
    messages.list.iter().map(half).collect()
}

/// Makes one call.
fn made(
    comm: &mut Communicator,
    dtype: DType,
    mut halves: Vec<Half<'_>>,
    grouped: bool,
) -> Result<(), String> {
    let rank = comm.rank();
    let own = |half: &Half<'_>| matches!(half, Half::Send(_, peer) | Half::Recv(_, peer) if *peer == rank);
    let made = match halves.as_mut_slice() {
        // A message to oneself is for groups.
        [half] if !grouped && !own(half) => match half {
            Half::Send(data, to) => comm.send_bytes(dtype, data, *to),
            Half::Recv(data, from) => comm.recv_bytes(dtype, data, *from),
        },
        _ => comm.group(|group| {
            for half in halves {
                match half {
                    Half::Send(data, to) => group.send_bytes(dtype, data, to),
                    Half::Recv(data, from) => group.recv_bytes(dtype, data, from),
                };
            }
        }),
    };
    made.map_err(|error| error.to_string())
}
