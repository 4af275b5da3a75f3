//! Reductions by functions of this program's, for which calls have a type.

use super::Op;
use crate::soak::values::by_bits;
use sohu_coll::{Buffers, Collective, Communicator, DType, E4m3, E5m2, Element, Error, Request, UserOp};
use sohu_coll::{bf16, f16};

/// Calls a function for the Rust type of an element type.
macro_rules! typed {
    ($dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            DType::I8 => $function::<i8>($($argument),*),
            DType::U8 => $function::<u8>($($argument),*),
            DType::I32 => $function::<i32>($($argument),*),
            DType::U32 => $function::<u32>($($argument),*),
            DType::I64 => $function::<i64>($($argument),*),
            DType::U64 => $function::<u64>($($argument),*),
            DType::F16 => $function::<f16>($($argument),*),
            DType::Bf16 => $function::<bf16>($($argument),*),
            DType::F32 => $function::<f32>($($argument),*),
            DType::F64 => $function::<f64>($($argument),*),
            DType::Fp8E4m3 => $function::<E4m3>($($argument),*),
            DType::Fp8E5m2 => $function::<E5m2>($($argument),*),
        }
    };
}

pub(super) use typed;

/// Makes a reduction by `op`, a function. The operation of the request is not looked at.
pub(super) fn run(comm: &mut Communicator, request: Request<'_>, op: Op) -> Result<(), Error> {
    typed!(request.dtype, run_typed(comm, request, op))
}

fn run_typed<T: Element>(comm: &mut Communicator, request: Request<'_>, op: Op) -> Result<(), Error> {
    let op = &operation::<T>(op)?;
    let Request { collective, root, buffers, .. } = request;
    match buffers {
        Buffers::InPlace(data) => {
            let data = bytemuck::cast_slice_mut::<u8, T>(data);
            match collective {
                Collective::AllReduce => comm.all_reduce_in_place(data, op),
                Collective::ReduceScatter => comm.reduce_scatter_in_place(data, op),
                _ => comm.reduce_in_place(data, op, root),
            }
        }
        Buffers::Apart { input, output } => {
            let (input, output) = (bytemuck::cast_slice(input), bytemuck::cast_slice_mut::<u8, T>(output));
            match collective {
                Collective::AllReduce => comm.all_reduce(input, output, op),
                Collective::ReduceScatter => comm.reduce_scatter(input, output, op),
                _ => comm.reduce(input, output, op, root),
            }
        }
    }
}

fn operation<T: Element>(op: Op) -> Result<UserOp<T>, Error> {
    let by_bits = move |left: T, right: T| {
        let folded = by_bits(op, 8 * size_of::<T>() as u32, bits(left), bits(right));
        bytemuck::pod_read_unaligned(&folded.to_le_bytes()[..size_of::<T>()])
    };
    match op {
        Op::Xor => UserOp::new("xor", by_bits)?.commutative(),
        _ => UserOp::new("compose", by_bits),
    }
}

/// The bits of an element, in the low end of a word.
fn bits<T: Element>(element: T) -> u64 {
    let mut word = [0; 8];
    word[..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(&element));
    u64::from_le_bytes(word)
}
