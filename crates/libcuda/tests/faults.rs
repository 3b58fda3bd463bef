//! The seam for failures on demand. One test, since the seam is global to the process.
use cust::error::CudaError;
use libcuda::fault;

#[test]
fn the_chosen_call_fails_and_no_other() {
    let init = || cust::init(cust::CudaFlags::empty());
    fault::clear();
    let usual = init();
    assert_eq!(fault::calls(), 1);

    fault::fail_nth(2, 2);
    assert_eq!(init(), usual);
    assert_eq!(init(), Err(CudaError::OutOfMemory));
    assert_eq!(init(), usual);
    assert_eq!(fault::calls(), 3);

    fault::fail_nth(1, 123_456);
    assert_eq!(init(), Err(CudaError::UnknownError));
    fault::clear();
    assert_eq!(fault::calls(), 0);
}
