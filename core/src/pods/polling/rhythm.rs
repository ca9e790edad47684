//! When a periodic reader will come next: the HPA controller reads each metric every 15 s, and a sample that
//! is taken just before it comes is fresh without an extra query.

use std::time::Duration;

use super::Moment;

/// Reads closer together than this are one visit: an HPA with several metrics reads them in one pass.
const ONE_VISIT: Duration = Duration::from_secs(1);
/// A reader slower than this has no rhythm worth following (`--horizontal-pod-autoscaler-sync-period` is 15 s).
const SLOWEST: Duration = Duration::from_mins(2);
/// A reader that missed this many periods is gone.
const PERIODS_UNTIL_GONE: u32 = 3;

/// The learned rhythm of one reader.
#[derive(Debug, Clone)]
pub struct Rhythm<T> {
    last: Option<T>,
    period: Option<Duration>,
    candidate: Option<Duration>,
}

impl<T> Default for Rhythm<T> {
    fn default() -> Self {
        Self { last: None, period: None, candidate: None }
    }
}

impl<T: Moment> Rhythm<T> {
    /// A reader came at `now`.
    pub fn observe(&mut self, now: T) {
        let Some(last) = self.last else {
            self.last = Some(now);
            return;
        };
        let gap = now - last;
        if gap < ONE_VISIT {
            return;
        }
        self.last = Some(now);
        if gap > SLOWEST {
            (self.period, self.candidate) = (None, None);
            return;
        }
        match self.period {
            None => self.period = Some(gap),
            // The HPA controller waits its period after a visit, and is late when it is busy, never early: the shorter
            // gaps are what it means.
            Some(period) if near(gap, period) => {
                let (old, new) = if gap < period { (1, 1) } else { (7, 1) };
                self.period = Some((period * old + gap * new) / (old + new));
                self.candidate = None;
            }
            // One visit out of turn (the HPA was edited) is no new rhythm; two alike are.
            Some(_) => match self.candidate {
                Some(candidate) if near(gap, candidate) => {
                    self.period = Some(gap);
                    self.candidate = None;
                }
                _ => self.candidate = Some(gap),
            },
        }
    }

    /// How often the reader comes, once that is known.
    pub fn period(&self) -> Option<Duration> {
        self.period
    }

    /// The next expected visit after `now`; `None` while no rhythm is known or the reader is gone.
    pub fn next(&self, now: T) -> Option<T> {
        let (last, period) = (self.last?, self.period?);
        (1..=PERIODS_UNTIL_GONE).map(|n| last + period * n).find(|&visit| visit > now)
    }
}

fn near(a: Duration, b: Duration) -> bool {
    a.abs_diff(b) <= b / 4
}

#[cfg(test)]
mod tests {

    use super::*;

    fn at(base: Duration, seconds: f64) -> Duration {
        base + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn learns_the_hpa_period_and_expects_the_next_visit() {
        let base = Duration::ZERO;
        let mut rhythm = Rhythm::default();
        assert_eq!(rhythm.next(base), None);
        rhythm.observe(base);
        assert_eq!(rhythm.next(base), None, "one visit is no rhythm");
        for second in [15.0, 15.2, 30.1, 45.0] {
            rhythm.observe(at(base, second));
        }
        let next = rhythm.next(at(base, 46.0)).expect("a rhythm");
        let seconds = next.as_secs_f64();
        assert!((59.5..60.5).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_reader_that_is_late_at_times_is_expected_on_time() {
        let base = Duration::ZERO;
        let mut rhythm = Rhythm::default();
        let mut second = 0.0;
        for late in [0.0, 0.1, 0.0, 2.0, 0.1, 0.0, 1.5, 0.0] {
            second += 15.0 + late;
            rhythm.observe(at(base, second));
        }
        let expected = rhythm.next(at(base, second)).expect("a rhythm");
        let early = expected.as_secs_f64() - (second + 15.0);
        assert!((0.0..0.3).contains(&early), "{early}");
    }

    #[test]
    fn one_visit_out_of_turn_does_not_change_the_rhythm_but_two_do() {
        let base = Duration::ZERO;
        let mut rhythm = Rhythm::default();
        for second in [0.0, 15.0, 30.0, 34.0] {
            rhythm.observe(at(base, second));
        }
        assert_eq!(rhythm.next(at(base, 34.0)), Some(at(base, 49.0)));
        rhythm.observe(at(base, 38.0));
        assert_eq!(rhythm.next(at(base, 38.0)), Some(at(base, 42.0)));
    }

    #[test]
    fn a_reader_that_stays_away_is_forgotten() {
        let base = Duration::ZERO;
        let mut rhythm = Rhythm::default();
        rhythm.observe(base);
        rhythm.observe(at(base, 15.0));
        assert_eq!(
            rhythm.next(at(base, 31.0)),
            Some(at(base, 45.0)),
            "a late reader is expected one period on"
        );
        assert_eq!(rhythm.next(at(base, 61.0)), None);
    }
}
