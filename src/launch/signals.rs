//! The launcher's signals, as events of its one inbox.

use super::job::Event;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::{Handle, Signals};
use sohu_coll_core::error::Error;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

/// Watches signals until dropped.
pub(super) struct Watch {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Sends [`Event::Signal`] for every signal that comes from now on.
    pub(super) fn start(events: Sender<Event>) -> Result<Self, Error> {
        let mut numbers = vec![SIGINT, SIGTERM, SIGQUIT, SIGTSTP];
        if !hangups_ignored() {
            numbers.push(SIGHUP);
        }
        let failed = |error: std::io::Error| Error::System {
            call: "watching signals".into(),
            errno: error.raw_os_error().unwrap_or_default(),
            hint: String::new(),
        };
        let mut signals = Signals::new(numbers).map_err(failed)?;
        let handle = signals.handle();
        let watch = move || {
            for signal in signals.forever() {
                if events.send(Event::Signal(signal)).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(failed)?;
        Ok(Self { handle, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was printed when it happened, and nothing here depends on it.
            let _ = thread.join();
        }
    }
}

/// Whether this program was started to survive the end of its terminal, as by `nohup`.
fn hangups_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    mask & 1 << (SIGHUP - 1) != 0
}

/// `SIGKILL`; `signal 64` for one without a name.
pub(super) fn name(signal: u8) -> String {
    signal_hook::low_level::signal_name(i32::from(signal))
        .map_or_else(|| format!("signal {signal}"), Into::into)
}
