//! One rank's part in messages.

use super::{Flight, GUARD, Held, How, Memory, Op, Player, Sheets, Values, be_late, take_off, turned};
use crate::soak::draw::{Home, Message, Messages, Part};
use crate::soak::flight::{filled, landed, registered, text};
use sohu_coll::{Buffer, Communicator, DType, Letter, Owned, ReduceOp};
use std::ops::Range;

/// One half of a message: what is sent or where it is received, and the other rank.
enum Half<'a> {
    Send(&'a [u8], u32),
    Recv(&'a mut [u8], u32),
}

impl Player {
    /// Makes this rank's halves of the messages, in calls of one or of several, and looks at every byte.
    pub(super) fn messages(&mut self, messages: &Messages) -> Result<(), String> {
        let Some(Held { comm, kept, flights }) = self.groups.get_mut(&messages.group) else { return Ok(()) };
        let (rank, size) = (comm.rank(), comm.size());
        be_late(messages.late, rank);
        let values = Values { dtype: messages.dtype, op: Op::Known(ReduceOp::Sum), salt: messages.salt };
        let sheets = Sheets::messages(messages, rank);
        if messages.how != How::Blocking {
            self.bytes += sheets.bytes() as u64;
            let flight = start(comm, messages, values, sheets)?;
            return if messages.how == How::Started { take_off(flights, flight) } else { Ok(()) };
        }
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

/// Letters that are pending, to be waited for.
type Mail = Box<dyn FnOnce() -> Result<Vec<Vec<u8>>, String>>;

/// Starts this rank's halves, part after part, each on a buffer of its own.
fn start(
    comm: &mut Communicator,
    messages: &Messages,
    values: Values,
    sheets: Sheets,
) -> Result<Flight, String> {
    let (rank, size) = (comm.rank(), comm.size());
    let sent = sheets.input.as_ref().expect("what is sent lies apart");
    let mut sides = [&sheets.before, sent].map(|sheet| filled(sheet, &values, size));
    let places = [false, true].map(|sends| places(messages, rank, sends));
    let parts = messages.parts(rank);
    let mut mails: Vec<Mail> = Vec::new();
    for part in &parts {
        let data = part.halves.iter().map(|&(number, sends)| {
            let side = usize::from(sends);
            sides[side][places[side][number].clone()].to_vec()
        });
        let data: Vec<Vec<u8>> = data.collect();
        mails.push(post(comm, messages, part, data).map_err(|why| format!("{part:?}: {why}"))?);
    }
    Ok(Flight::new(messages.clone(), values, (sheets, size), move || {
        for (part, mail) in parts.iter().zip(mails) {
            for (&(number, sends), data) in part.halves.iter().zip(mail()?) {
                let side = usize::from(sends);
                sides[side][places[side][number].clone()].copy_from_slice(&data);
            }
        }
        let [received, sent] = sides;
        Ok((Some(sent), received))
    }))
}

/// Where the bytes of each message lie among those that this rank sends, or receives; nowhere, if it does not.
fn places(messages: &Messages, rank: u32, sends: bool) -> Vec<Range<usize>> {
    let mut next = 0;
    let place = |message: &Message| {
        let own = rank == if sends { message.from } else { message.to };
        let at = next;
        let bytes = if own { message.count * messages.dtype.size() } else { 0 };
        next += if own { bytes + GUARD } else { 0 };
        at..at + bytes
    };
    messages.list.iter().map(place).collect()
}

/// One letter, in one of the two lists: in a vector of these, letters with either memory stand in any order.
type Posted = (Vec<Letter<Vec<u8>>>, Vec<Letter<Buffer<u8>>>);

/// Starts one call, on buffers of the homes that are drawn for it.
fn post(
    comm: &mut Communicator,
    messages: &Messages,
    part: &Part,
    mut data: Vec<Vec<u8>>,
) -> Result<Mail, String> {
    let is_registered = |sends: bool| messages.homes[usize::from(!sends)] != Home::Private;
    if let [half] = part.halves[..] {
        let Message { from, to, .. } = messages.list[half.0];
        // A message to oneself is for groups.
        if !part.grouped && from != to {
            let data = data.pop().expect("there is one");
            if !is_registered(half.1) {
                return alone(comm, messages, half, data);
            }
            let data = registered(comm, &data)?;
            return alone(comm, messages, half, data);
        }
    }
    let mut posted: Vec<Posted> = Vec::new();
    for (&half, data) in part.halves.iter().zip(data) {
        posted.push(match is_registered(half.1) {
            false => (vec![letter(messages, half, data)], Vec::new()),
            true => (Vec::new(), vec![letter(messages, half, registered(comm, &data)?)]),
        });
    }
    let (pending, salt) = (comm.start_group(posted).map_err(text)?, messages.salt);
    let bytes = |(private, registered): Posted| {
        let private = private.into_iter().map(Letter::into_data);
        private.chain(registered.into_iter().map(|letter| letter.data().to_vec()))
    };
    Ok(Box::new(move || landed(pending, salt).map(|posted| posted.into_iter().flat_map(bytes).collect())))
}

fn letter<D: Owned<Element = u8>>(messages: &Messages, (number, sends): (usize, bool), data: D) -> Letter<D> {
    let Message { from, to, .. } = messages.list[number];
    match sends {
        true => Letter::send_bytes(messages.dtype, data, to),
        false => Letter::recv_bytes(messages.dtype, data, from),
    }
}

fn alone<D: Owned<Element = u8>>(
    comm: &mut Communicator,
    messages: &Messages,
    (number, sends): (usize, bool),
    data: D,
) -> Result<Mail, String> {
    let (dtype, salt) = (messages.dtype, messages.salt);
    let Message { from, to, .. } = messages.list[number];
    let started = match sends {
        true => comm.start_send_bytes(dtype, data, to),
        false => comm.start_recv_bytes(dtype, data, from),
    };
    let pending = started.map_err(text)?;
    Ok(Box::new(move || landed(pending, salt).map(|data| vec![data.elements().to_vec()])))
}
