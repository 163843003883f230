//! How a program ends when the cluster asks it to.
//!
//! In a container the program has process id 1, and the kernel drops SIGTERM and SIGINT for such a process unless
//! it installed a handler: without one, every deletion of a pod would take the whole grace period and end in
//! SIGKILL. So each example calls one of these functions first.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// From now on SIGTERM and SIGINT end the program at once, with exit code 0.
pub fn at_once() -> io::Result<()> {
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 0, Arc::new(AtomicBool::new(true)))?;
    }
    Ok(())
}

/// Waits for SIGTERM or SIGINT; from this call on they no longer end the program by themselves.
pub fn wait() -> io::Result<()> {
    Signals::new([SIGTERM, SIGINT])?.forever().next();
    Ok(())
}

/// Runs `end` on a thread of its own once SIGTERM or SIGINT came. The handler is in place when this returns.
pub fn then(end: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::spawn(move || {
        signals.forever().next();
        end();
    });
    Ok(())
}
