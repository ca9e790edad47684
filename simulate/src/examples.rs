//! The histories of the project's examples, made up by seeded arithmetic.

use std::{f64::consts::TAU, fmt::Write};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use tandem_core::draws::Draws;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// An example, by the name of its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Example {
    /// A week of a shop.
    WebShop,
    /// Two days of a queue.
    QueueWorker,
    /// Four nights of reports.
    NightlyCron,
    /// Three days of videos.
    SpotFleet,
}

/// Names and examples.
pub const EXAMPLES: [(&str, Example); 4] = [
    ("web-shop", Example::WebShop),
    ("queue-worker", Example::QueueWorker),
    ("nightly-cron", Example::NightlyCron),
    ("spot-fleet", Example::SpotFleet),
];

impl Example {
    /// Its history, lines `time,value`.
    pub fn history(self) -> String {
        match self {
            Self::WebShop => web_shop(),
            Self::QueueWorker => queue_worker(),
            Self::NightlyCron => nightly_cron(),
            Self::SpotFleet => spot_fleet(),
        }
    }
}

/// The lines of a history: `value` tells the value at a second after `start`, `None` where the source failed.
fn lines(
    start: &str,
    length: i64,
    step: i64,
    mut value: impl FnMut(i64, Timestamp) -> Option<f64>,
) -> String {
    let start: Timestamp = start.parse().unwrap_or_default();
    let mut text = "time,value\n".to_owned();
    for second in (0..length).step_by(step.unsigned_abs().try_into().unwrap_or(1)) {
        let time = start + SignedDuration::from_secs(second);
        let value = value(second, time).map(|value| format!("{value:.1}")).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{time},{value}");
    }
    text
}

/// Seconds as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "a few days of seconds")]
fn real(seconds: i64) -> f64 {
    seconds as f64
}

/// About -1 to 1, mostly near 0.
fn stray(random: &mut Draws) -> f64 {
    (random.unit() + random.unit() + random.unit()) * 2.0 / 3.0 - 1.0
}

/// Requests a second of a shop over a week: quiet nights, a peak at noon and a higher one in the evening, a flash sale on
/// Wednesday at 20:00, and a monitoring that is away on Friday from 10:00 to 11:00.
fn web_shop() -> String {
    let mut random = Draws(1);
    let peak = |hour: f64, at: f64, width: f64| (-((hour - at) / width).powi(2)).exp();
    lines("2026-01-05T00:00:00Z", 7 * DAY, MINUTE, |second, _| {
        let hour = real(second % DAY) / 3600.0;
        let weekend = if second / DAY >= 5 { 1.25 } else { 1.0 };
        let day = 150.0 + weekend * (900.0 * peak(hour, 12.5, 3.0) + 1600.0 * peak(hour, 20.0, 2.6));
        let sale = second - (2 * DAY + 20 * HOUR);
        // Everybody comes with the first minute, and leaves over an hour.
        let rush = if sale >= 0 { 4500.0 * (-real(sale) / 2400.0).exp() } else { 0.0 };
        let load = (day + rush) * (1.0 + 0.06 * stray(&mut random));
        let away = 4 * DAY + 10 * HOUR;
        (!(away..away + HOUR).contains(&second)).then_some(load)
    })
}

/// Images that are uploaded a second over two days: albums come at random times, most are small, a few are enormous (Pareto
/// with an exponent of 1.1), and are uploaded over a few minutes.
fn queue_worker() -> String {
    const STEP: i64 = 30;
    let mut random = Draws(7);
    let mut uploading: Vec<(f64, u32)> = Vec::new();
    lines("2026-02-02T00:00:00Z", 2 * DAY, STEP, |second, _| {
        let hour = real(second % DAY) / 3600.0;
        let awake = ((hour - 15.0) / 24.0 * TAU).cos().max(0.0);
        // Up to one album in two minutes.
        if random.unit() < 0.25 * awake {
            let images = (60.0 * (1.0 - random.unit()).powf(-1.0 / 1.1)).min(100_000.0);
            let steps = 4 + u32::from(images > 2000.0) * 6 + u32::from(images > 10_000.0) * 20;
            uploading.push((images / f64::from(steps) / real(STEP), steps));
        }
        let rate = uploading.iter().fold(0.0, |sum, (rate, _)| sum + rate);
        for (_, steps) in &mut uploading {
            *steps -= 1;
        }
        uploading.retain(|(_, steps)| *steps > 0);
        Some(rate)
    })
}

/// Rows a second that reports aggregate, each night from one to five in Berlin, over the weekend on which the clocks change.
fn nightly_cron() -> String {
    let mut random = Draws(3);
    let berlin = TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::UTC);
    lines("2026-03-27T12:00:00Z", 4 * DAY, MINUTE, |_, time| {
        let clock = time.to_zoned(berlin.clone());
        let at_work = (1..5).contains(&clock.hour());
        Some(if at_work { 9000.0 * (1.0 + 0.08 * stray(&mut random)) } else { 0.0 })
    })
}

/// Videos that wait for being encoded over three days: few at night, many in the evening, and a noisy noon.
fn spot_fleet() -> String {
    let mut random = Draws(11);
    let mut drift = 0.0;
    lines("2026-04-13T00:00:00Z", 3 * DAY, MINUTE, |second, _| {
        let hour = real(second % DAY) / 3600.0;
        drift = 0.97 * drift + 0.06 * stray(&mut random);
        let wave = (1.0 - ((hour - 4.0) / 24.0 * TAU).cos()) / 2.0;
        Some((20.0 + 380.0 * wave.powi(2) * (1.0 + drift)).max(0.0))
    })
}
