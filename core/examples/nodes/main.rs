//! The peers' benchmarks of nodes on our own decisions, one a process.
//!
//! `cargo run --release -p tandem-core --example nodes -- ROW` measures one row and prints it as JSON; without a row it lists
//! them. `cargo xtask bench nodes` runs them all and prints a table.

mod groups;
mod inputs;
mod packing;
mod pools;

use std::{
    env, fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// What was measured.
struct Measured {
    time: Duration,
    /// Processor time of the same section, which a busy machine changes less.
    processor: Duration,
    /// What came out, to be compared with the peer's answer.
    answer: Value,
}

/// A row: its name and how it is measured.
type Row = (&'static str, fn() -> Measured);

fn main() {
    let rows = [groups::ROWS, packing::ROWS, pools::ROWS].concat();
    let Some(wanted) = env::args().nth(1) else {
        for (name, _) in rows {
            println!("{name}");
        }
        return;
    };
    let Some((name, measure)) = rows.iter().find(|(name, _)| *name == wanted) else {
        eprintln!("there is no row {wanted}");
        return;
    };
    let Measured { time, processor, answer } = measure();
    let line = json!({
        "row": name,
        "ms": time.as_secs_f64() * 1e3,
        "processor_ms": processor.as_secs_f64() * 1e3,
        "peak_mib": peak_mib(),
        "answer": answer,
    });
    println!("{line}");
}

/// Times a section.
fn measure<T>(section: impl FnOnce() -> T) -> (T, Duration, Duration) {
    let processor = processor_time();
    let started = Instant::now();
    let result = section();
    let time = started.elapsed();
    (result, time, processor_time().saturating_sub(processor))
}

/// Times a section and keeps what its result says.
fn measured<T>(section: impl FnOnce() -> T, answer: impl FnOnce(T) -> Value) -> Measured {
    let (result, time, processor) = measure(section);
    Measured { time, processor, answer: answer(result) }
}

/// Time that this thread has been on a processor.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

/// The most memory that the process ever held (`VmHWM`).
fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
