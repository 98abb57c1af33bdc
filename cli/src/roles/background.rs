//! Threads for the relay, the projections and the process managers.
//!
//! Where a process also answers requests, they work on threads that the scheduler prefers less: under more load than the machine can bear, webhooks are still acknowledged in time, and it is the read models
//! that fall behind (their lag is in their status). With time to spare there is no difference.

use tokio::runtime::{Builder, Handle, Runtime};

/// Weighs a tenth of what a thread without niceness does, where both want the same core.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// A runtime of its own; its tasks are dropped with it.
pub(super) struct Background(Option<Runtime>);

impl Background {
    /// `yields`: to threads that answer requests.
    pub(super) fn start(yields: bool) -> std::io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().thread_name("background");
        #[cfg(target_os = "linux")]
        builder.on_thread_start(move || {
            if !yields {
                return;
            }
            // On Linux this concerns the calling thread alone. Where it is not allowed, all threads are equal.
            if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                tracing::debug!(%error, "the background threads keep their priority");
            }
        });
        #[cfg(not(target_os = "linux"))]
        let _ = yields;
        builder.build().map(|runtime| Self(Some(runtime)))
    }

    pub(super) fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A runtime that is dropped where others run would block them.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
