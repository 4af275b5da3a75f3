//! Calls that own their buffers: started and looked at when they have landed, or planned and made several times.
//!
//! Invariant: what a call must come to is written down when it is started, so that it can be looked at any time later.

use super::draw::{Call, Home, How, Rng};
use super::sheet::{GUARD, Sheet, Sheets};
use super::values::Values;
use sohu_coll::{
    Buffer, Communicator, Element, Failed, Owned, Pending, Persistent, ReduceOp, Scalar, Untyped,
};
use std::fmt::Debug;

/// The input, where there is one apart, and the output of a call that is over.
pub(super) type Bytes = (Option<Vec<u8>>, Vec<u8>);

/// A call that is pending, and what must come of it.
pub(super) struct Flight {
    /// What was called.
    what: Box<dyn Debug>,
    values: Values,
    sheets: Sheets,
    size: u32,
    wait: Box<dyn FnOnce() -> Result<Bytes, String>>,
}

/// Makes a call in the way it is to be made. Returns the bytes of its buffers, and the call if it is to be waited for.
///
/// # Errors
/// Says what was wrong.
pub(super) fn make(comm: &mut Communicator, call: &Call) -> Result<(u64, Option<Flight>), String> {
    let (rank, size) = (comm.rank(), comm.size());
    let sheets = Sheets::of(call, rank, size);
    let input = sheets.input.as_ref().map(|sheet| filled(sheet, &values(call), size));
    let output = filled(&sheets.before, &values(call), size);
    let bytes = (input.as_ref().map_or(0, Vec::len) + output.len()) as u64;
    let (homes, wants) = (call.shape.homes, call.how);
    let made = Made { call: *call, sheets, size };
    let flight = match (input, homes.map(|home| home != Home::Private)) {
        (None, [_, false]) => in_place(comm, made, output),
        (None, [_, true]) => {
            let output = registered(comm, &output)?;
            in_place(comm, made, output)
        }
        (Some(input), [false, false]) => apart(comm, made, input, output),
        (Some(input), [false, true]) => {
            let output = registered(comm, &output)?;
            apart(comm, made, input, output)
        }
        (Some(input), [true, false]) => {
            let input = registered(comm, &input)?;
            apart(comm, made, input, output)
        }
        (Some(input), [true, true]) => {
            let (input, output) = (registered(comm, &input)?, registered(comm, &output)?);
            apart(comm, made, input, output)
        }
    }?;
    // What is forgotten is dropped here, pending as it is.
    Ok((bytes, flight.filter(|_| wants == How::Started)))
}

/// A call that is about to be made.
struct Made {
    call: Call,
    sheets: Sheets,
    size: u32,
}

impl Made {
    fn untyped(&self) -> Untyped {
        let Call { shape, root, .. } = self.call;
        Untyped { collective: shape.collective, dtype: shape.dtype, op: shape.op.name(), root }
    }

    /// What this rank's input is multiplied by, where it is.
    fn scalar(&self, comm: &Communicator) -> Option<Scalar> {
        let Call { shape, salt, .. } = self.call;
        let values = Values { dtype: shape.dtype, op: shape.op, salt };
        (shape.op.name() == ReduceOp::PreMulSum).then(|| values.scalar(comm.rank()))
    }

    fn fly(self, wait: impl FnOnce() -> Result<Bytes, String> + 'static) -> Flight {
        let Self { call, sheets, size } = self;
        Flight::new(call, values(&call), (sheets, size), wait)
    }

    /// Puts into the output what is there before the call.
    fn blank(&self, output: &mut [u8]) {
        output.copy_from_slice(&filled(&self.sheets.before, &values(&self.call), self.size));
    }

    fn check(&self, bytes: (Option<&[u8]>, &[u8])) -> Result<(), String> {
        let checked = check(&self.sheets, &values(&self.call), self.size, bytes);
        checked.map_err(|why| format!("{:?}: {why}", self.call))
    }
}

fn in_place<D: Owned<Element = u8>>(
    comm: &mut Communicator,
    made: Made,
    data: D,
) -> Result<Option<Flight>, String> {
    if let How::Persistent(runs) = made.call.how {
        let planned = match made.scalar(comm) {
            None => comm.plan_untyped_in_place(made.untyped(), data),
            Some(scalar) => comm.plan_scaled_in_place(made.untyped(), scalar, data),
        };
        let mut plan = planned.map_err(text)?;
        for run in 0..runs {
            made.blank(plan.data_mut());
            plan = one_run(comm, plan, &made.call, run)?;
            made.check((None, plan.data()))?;
        }
        return Ok(None);
    }
    let pending = match made.scalar(comm) {
        None => comm.start_untyped_in_place(made.untyped(), data),
        Some(scalar) => comm.start_scaled_in_place(made.untyped(), scalar, data),
    };
    let pending = pending.map_err(text)?;
    let salt = made.call.salt;
    Ok(Some(made.fly(move || landed(pending, salt).map(|data| (None, data.elements().to_vec())))))
}

fn apart<I: Owned<Element = u8>, O: Owned<Element = u8>>(
    comm: &mut Communicator,
    made: Made,
    input: I,
    output: O,
) -> Result<Option<Flight>, String> {
    if let How::Persistent(runs) = made.call.how {
        let planned = match made.scalar(comm) {
            None => comm.plan_untyped(made.untyped(), input, output),
            Some(scalar) => comm.plan_scaled(made.untyped(), scalar, input, output),
        };
        let mut plan = planned.map_err(text)?;
        for run in 0..runs {
            made.blank(plan.output_mut());
            plan = one_run(comm, plan, &made.call, run)?;
            made.check((Some(plan.input()), plan.output()))?;
        }
        return Ok(None);
    }
    let pending = match made.scalar(comm) {
        None => comm.start_untyped(made.untyped(), input, output),
        Some(scalar) => comm.start_scaled(made.untyped(), scalar, input, output),
    };
    let pending = pending.map_err(text)?;
    let salt = made.call.salt;
    Ok(Some(made.fly(move || {
        let (input, output) = landed(pending, salt)?;
        Ok((Some(input.elements().to_vec()), output.elements().to_vec()))
    })))
}

/// Makes a planned call once, blocking or not.
fn one_run<B>(
    comm: &mut Communicator,
    mut plan: Persistent<B>,
    call: &Call,
    run: u64,
) -> Result<Persistent<B>, String> {
    if Rng::new(call.salt, run).next().is_multiple_of(2) {
        plan.run(comm).map_err(|error| error.to_string())?;
        return Ok(plan);
    }
    landed(plan.start(comm).map_err(text)?, call.salt)
}

/// Waits for a call, by looking again and again or not.
pub(super) fn landed<B>(mut pending: Pending<B>, salt: u64) -> Result<B, String> {
    if salt.is_multiple_of(4) {
        while !pending.test() {
            std::thread::yield_now();
        }
    }
    pending.wait().map_err(text)
}

pub(super) fn text<B>(failed: Failed<B>) -> String {
    failed.to_string()
}

/// Registered memory with these elements.
pub(super) fn registered<T: Element>(comm: &mut Communicator, elements: &[T]) -> Result<Buffer<T>, String> {
    let mut buffer = comm.alloc(elements.len()).map_err(|error| error.to_string())?;
    buffer.copy_from_slice(elements);
    Ok(buffer)
}

fn values(call: &Call) -> Values {
    Values { dtype: call.shape.dtype, op: call.shape.op, salt: call.salt }
}

/// What is in a buffer. One that a call owns has no room for guards.
pub(super) fn filled(sheet: &Sheet, values: &Values, size: u32) -> Vec<u8> {
    let mut room = vec![0; sheet.room()];
    sheet.fill(&mut room, values, size);
    room[GUARD..GUARD + sheet.bytes()].to_vec()
}

/// Looks at every byte of what came back.
fn check(sheets: &Sheets, values: &Values, size: u32, bytes: (Option<&[u8]>, &[u8])) -> Result<(), String> {
    let look = |name: &str, sheet: &Sheet, bytes: &[u8]| {
        let mut room = vec![0; sheet.room()];
        // The guards that the buffer did not have.
        sheet.fill(&mut room, values, size);
        room[GUARD..GUARD + sheet.bytes()].copy_from_slice(bytes);
        sheet.check(&room, values, size).map_err(|why| format!("the {name}: {why}"))
    };
    if let (Some(sheet), Some(bytes)) = (&sheets.input, bytes.0) {
        look("input", sheet, bytes)?;
    }
    look("output", &sheets.after, bytes.1)
}

impl Flight {
    /// What was called is pending, and over when `wait` returns.
    pub(super) fn new(
        what: impl Debug + 'static,
        values: Values,
        (sheets, size): (Sheets, u32),
        wait: impl FnOnce() -> Result<Bytes, String> + 'static,
    ) -> Self {
        Self { what: Box::new(what), values, sheets, size, wait: Box::new(wait) }
    }

    /// Waits for the call and looks at every byte.
    ///
    /// # Errors
    /// Says what was wrong, and with which call.
    pub(super) fn land(self) -> Result<(), String> {
        let Self { what, values, sheets, size, wait } = self;
        let landed =
            wait().and_then(|(input, output)| check(&sheets, &values, size, (input.as_deref(), &output)));
        landed.map_err(|why| format!("{what:?}: {why}"))
    }
}
