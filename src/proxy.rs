//! A thread that drives the pending calls of a communicator, for callers that compute meanwhile.

use crate::queue::Queue;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// The thread. It sleeps while no call is pending, and ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts it; `None` where the system has no thread to give, and whoever waits drives.
    pub(crate) fn start(queue: &Arc<Queue>) -> Option<Self> {
        queue.expect_proxy(true);
        let served = queue.clone();
        let thread = Builder::new().name("sohu-coll proxy".into()).spawn(move || served.serve());
        match thread {
            Ok(thread) => Some(Self { queue: queue.clone(), thread: Some(thread) }),
            Err(_) => {
                queue.expect_proxy(false);
                None
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.queue.end_proxy();
        if let Some(thread) = self.thread.take() {
            // It catches what panics in a call, and does nothing else.
            let _ = thread.join();
        }
    }
}
