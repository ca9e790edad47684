//! What the operating system says of a process.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// Clock ticks a second in `/proc/PID/stat`: 100 on every Linux that Rust's std supports (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Resident memory, bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resident {
    /// What the process holds of its own.
    pub own: u64,
    /// Pages of its binary and other files, which the kernel takes back when it needs the room.
    pub files: u64,
}

/// Resident memory of a process.
pub(super) fn resident(pid: u32) -> Result<Resident> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let bytes = |name: &str| -> Result<u64> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        let kib: u64 = line.split_whitespace().next().context("no value")?.parse()?;
        Ok(kib * 1024)
    };
    Ok(Resident { own: bytes("RssAnon:")?, files: bytes("RssFile:")? + bytes("RssShmem:")? })
}

/// Processor time used so far, user and system.
pub(super) fn processor_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field, the command, may hold spaces; it ends at the last parenthesis.
    let fields: Vec<_> = stat.rsplit_once(')').context("no command")?.1.split_whitespace().collect();
    let ticks =
        |index: usize| fields.get(index).context("too few fields")?.parse::<f64>().map_err(Into::into);
    let (user, system): (Result<f64>, Result<f64>) = (ticks(11), ticks(12));
    Ok(Duration::from_secs_f64((user? + system?) / TICKS))
}
