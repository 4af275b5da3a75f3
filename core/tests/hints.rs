//! What an executor tells its links beside bytes.

use sohu_coll_algorithms::by_name;
use sohu_coll_conformance::{Faults, LoopLinks};
use sohu_coll_core::exec::{Binding, Bound, Executor, Fetched};
use sohu_coll_core::kernel::{Kernel, Store};
use sohu_coll_core::plan::{Extents, Job, fuse::fuse};
use sohu_coll_core::{Collective, DType, Rank, ReduceOp, Signature};
use sohu_coll_mem::ledger::Ledger;
use sohu_coll_mem::region::{Loan, scope};
use std::sync::Arc;

const COUNT: usize = 1 << 14;

/// What the links of rank 0 of 3 were asked for by the beginning of a chain whose plan says this.
fn asked(within: Option<usize>) -> Option<usize> {
    let job = Job { cores: 2, ..Job::new(Collective::AllReduce, 3) };
    let program = by_name("chains").expect("there is such an algorithm").program(&job, Rank(0));
    let binding = Binding {
        kernel: Kernel::new(DType::F32, ReduceOp::Sum),
        element: 4,
        slice: 4096,
        store: Store::Cached,
        input_registered: false,
        output_registered: false,
        fetched: Fetched::Nothing,
        within,
    };
    let extents = Extents::bind(&program, COUNT, 4);
    let bound = Bound::new(&program, &fuse(&program), &extents, &binding);
    let mut links = LoopLinks::fabric(3, Faults::NONE).swap_remove(0);
    let mut executor = Executor::new(Arc::new(bound));
    let (input, mut output) = (vec![0; COUNT * 4], vec![0; COUNT * 4]);
    let loan = Loan::Apart { input: &input, output: &mut output };
    let call = Signature { collective: Collective::AllReduce, count: COUNT as u64, ..Signature::none() };
    let begun = scope(&Ledger::new(), loan, &mut [], |regions| executor.begin(&call, 0, regions, &mut links));
    begun.expect("the links are well");
    links.within()
}

#[test]
fn links_are_told_in_how_much_to_stage_what_a_call_sends() {
    assert_eq!(asked(Some(256 << 10)), Some(256 << 10));
    assert_eq!(asked(None), None);
}
