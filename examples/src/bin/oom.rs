//! Takes memory and touches it, `STEP_MIB` (8 by default) every `STEP_MS` (20 by default), until it is killed.

use std::hint::black_box;
use std::io;
use std::time::Duration;

use eventflow_examples::{ending, settings};

fn main() -> io::Result<()> {
    ending::at_once()?;
    let (step, pause) = (settings::value("STEP_MIB", 8usize).clamp(1, 1024), settings::value("STEP_MS", 20u64));
    let mut held = Vec::new();
    loop {
        println!("oom: holding {} MiB", held.len() * step);
        // Not zero, or the kernel would not give real pages for it.
        held.push(black_box(vec![1u8; step << 20]));
        std::thread::sleep(Duration::from_millis(pause));
    }
}
