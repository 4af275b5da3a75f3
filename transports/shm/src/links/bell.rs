//! Where a rank sleeps until a peer rings its doorbell.

use super::ShmLinks;
use crate::futex::SharedFutex;
use sohu_coll_core::link::Sleep;

impl Sleep for ShmLinks {
    fn sleep(&mut self, nanos: u64) {
        self.bell.sleep(&SharedFutex, nanos);
    }

    fn prepare(&mut self) {
        self.bell.prepare(&SharedFutex);
    }

    fn cancel(&mut self) {
        self.bell.cancel();
    }
}
