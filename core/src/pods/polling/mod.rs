//! When an object's sources are asked next: the earlier of what its polling interval and its readers need.

mod rhythm;

use std::{
    ops::{Add, Sub},
    time::Duration,
};

pub use rhythm::Rhythm;

/// A point on the caller's clock: a monotonic clock's instant, or the time since some beginning. What lies between two
/// of them is 0 where the first is the later.
pub trait Moment:
    Copy + Ord + Add<Duration, Output = Self> + Sub<Duration, Output = Self> + Sub<Self, Output = Duration>
{
}

impl<T> Moment for T where
    T: Copy + Ord + Add<Duration, Output = T> + Sub<Duration, Output = T> + Sub<T, Output = Duration>
{
}

/// A sample no older than this is fresh however short the polling interval is: a query takes its time.
const FRESH_AT_LEAST: Duration = Duration::from_secs(5);
/// A sample older than this is asked anew however long the polling interval is: it is the HPA's own period, and no
/// HPA has ever seen an older value.
const FRESH_AT_MOST: Duration = Duration::from_secs(15);
/// A source that answers within this may be waited for by the HPA controller, whose workers are few.
const QUICK: Duration = Duration::from_millis(100);

/// How old a sample may be for a reader that should not wait.
pub fn fresh_for(polling_interval: Duration) -> Duration {
    polling_interval.clamp(FRESH_AT_LEAST, FRESH_AT_MOST)
}

/// How old a sample may be for a reader with a rhythm, by how long the source took: a quick one is asked anew for a
/// visit out of turn, since the refresh that was meant for that visit then falls away.
pub fn fresh_for_reader(polling_interval: Duration, latency: Duration) -> Duration {
    if latency <= QUICK { FRESH_FOR_READER } else { fresh_for(polling_interval) }
}

/// How long before an expected visit the answer should be there: a reader is seldom early, and one who is late by more than
/// a second still finds it fresh.
const LEAD: Duration = Duration::from_millis(500);
/// A source that takes longer is not asked any earlier for it: its answer would no longer be fresh.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A sample that will be at most this old when the reader comes needs no refresh of its own.
pub const FRESH_FOR_READER: Duration = Duration::from_secs(2);

/// What the schedule depends on.
#[derive(Debug, Clone, Copy)]
pub struct Needs<T> {
    /// When the sources were last asked.
    pub last: Option<T>,
    /// The polling interval; `None` where nobody polls (a replica that does not own the object).
    pub polling: Option<Duration>,
    /// The first poll of a new object or after a start is not before this.
    pub first_poll: T,
    /// The next expected visit of a reader.
    pub visit: Option<T>,
    /// The visit after that, if the next needs no refresh.
    pub visit_after: Option<T>,
    /// How long the slowest source took.
    pub latency: Duration,
}

/// The next time to ask, or `None` if nobody needs a sample.
///
/// Every sample serves everyone, so a poll is due one interval after the last sample, whoever wanted it:
/// with the HPA's 15 s and the default 30 s, polls alone never happen.
pub fn next_due<T: Moment>(needs: Needs<T>) -> Option<T> {
    let poll = needs.polling.map(|interval| needs.last.map_or(needs.first_poll, |last| last + interval));
    let visit = [needs.visit, needs.visit_after].into_iter().flatten().find_map(|visit| {
        let fresh = needs.last.is_some_and(|last| last + FRESH_FOR_READER >= visit);
        (!fresh).then(|| visit - LEAD - needs.latency.min(LONGEST_WAIT))
    });
    [poll, visit].into_iter().flatten().min()
}

/// Where in `window` the object named `key` starts: the same place at every start, spread evenly over objects
/// (FNV-1a, which needs no state and no seed).
pub fn phase(key: &str, window: Duration) -> Duration {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
    // The high bits mix best.
    Duration::from_millis((hash >> 20) % millis)
}

#[cfg(test)]
mod tests {

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn due_times() {
        let now = SECOND;
        let needs = |last: Option<u32>, polling: Option<u32>, visit: Option<u32>| Needs {
            last: last.map(|s| now + SECOND * s),
            polling: polling.map(|s| SECOND * s),
            first_poll: now + SECOND * 100,
            visit: visit.map(|s| now + SECOND * s),
            visit_after: visit.map(|s| now + SECOND * (s + 15)),
            latency: Duration::ZERO,
        };
        let slow =
            |millis| Needs { latency: Duration::from_millis(millis), ..needs(Some(10), Some(30), Some(25)) };
        for (name, needs, want) in [
            ("nobody needs a sample", needs(Some(10), None, None), None),
            ("the first poll waits for its place", needs(None, Some(30), None), Some(100_000)),
            (
                "a poll comes one interval after the last sample",
                needs(Some(10), Some(30), None),
                Some(40_000),
            ),
            ("a visit before the poll is served ahead", needs(Some(10), Some(30), Some(25)), Some(24_500)),
            ("a slow source is asked earlier", slow(300), Some(24_200)),
            ("but not so early that its answer would be old", slow(5_000), Some(23_500)),
            (
                "a replica that does not poll still refreshes for its reader",
                needs(Some(10), None, Some(25)),
                Some(24_500),
            ),
            (
                "a sample fresh at the visit is not taken twice",
                needs(Some(24), Some(30), Some(25)),
                Some(39_500),
            ),
            ("a short interval polls between visits", needs(Some(10), Some(1), Some(25)), Some(11_000)),
        ] {
            assert_eq!(next_due(needs), want.map(|ms| now + Duration::from_millis(ms)), "{name}");
        }
    }

    #[test]
    fn phases_are_stable_and_spread() {
        let window = Duration::from_secs(30);
        assert_eq!(phase("web/nginx", window), phase("web/nginx", window));
        let mut seconds = [0_u32; 30];
        for n in 0..3000 {
            seconds[usize::try_from(phase(&format!("ns/so-{n}"), window).as_secs()).unwrap()] += 1;
        }
        assert!(seconds.iter().all(|&count| (50..=160).contains(&count)), "{seconds:?}");
    }
}
