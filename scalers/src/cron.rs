//! Scales by the calendar: a number of replicas between two cron lines.

use async_trait::async_trait;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use scalers_derive::Metadata;
use schedule::Schedule;

use crate::context::Context;
use crate::error::Error;
use crate::kind::{Example, Kind, Trigger};
use crate::metadata::{Finding, View};
use crate::names::normalize;
use crate::scaler::{Metric, Reading, Scaler};

pub(crate) const KIND: Kind = Kind::of::<Parameters>(
    &["cron"],
    "A number of replicas between two times of the calendar.\n\n\
     From each time of `start` until the next of `end`, the value is `desiredReplicas` against a target of 1; outside it \
     is 0, so that the other triggers or `minReplicaCount` decide. Lines have five fields (minute, hour, day of month, \
     month, day of week) and are read on the clock of `timezone`: what a change of the clock skips does not occur.",
    Example {
        metadata: &[
            ("timezone", "Europe/Berlin"),
            ("start", "0 8 * * 1-5"),
            ("end", "0 18 * * 1-5"),
            ("desiredReplicas", "10"),
        ],
        metric_type: None,
    },
);

#[derive(Debug, Metadata)]
struct Parameters {
    /// When the window opens, a cron line.
    start: String,
    /// When the window closes, a cron line.
    end: String,
    /// Time zone of both lines, a name of the IANA database such as `Europe/Berlin`.
    timezone: String,
    /// Replicas inside the window.
    desired_replicas: i64,
}

/// A window of the calendar.
#[derive(Debug)]
struct Cron {
    name: String,
    start: Schedule,
    end: Schedule,
    zone: TimeZone,
    desired_milli: i64,
}

impl Trigger for Parameters {
    fn build(self, view: &mut View<'_>) -> Option<Box<dyn Scaler>> {
        let start = schedule("start", &self.start, view);
        let end = schedule("end", &self.end, view);
        let zone = zone(&self.timezone, view);
        if self.start == self.end {
            view.error(Finding::of("end", "start and end can not have exactly same time input"));
        }
        if self.desired_replicas <= 0 {
            let message = format!("desiredReplicas must be greater than 0, is {}", self.desired_replicas);
            view.error(Finding::of("desiredReplicas", message));
        }
        let line = |line: &str| {
            line.replace(' ', "").replace('*', "x").replace('/', "Sl").replace('?', "Qm").replace(',', "Cm")
        };
        Some(Box::new(Cron {
            name: normalize(&format!("cron-{}-{}-{}", self.timezone, line(&self.start), line(&self.end))),
            start: start?,
            end: end?,
            zone: zone?,
            desired_milli: self.desired_replicas.saturating_mul(1000),
        }))
    }
}

fn schedule(param: &str, line: &str, view: &mut View<'_>) -> Option<Schedule> {
    match line.parse() {
        Ok(schedule) => Some(schedule),
        Err(problem) => {
            let message = format!("error parsing {param} schedule: {problem}");
            view.error(Finding::of(param, message).hint("minute hour day-of-month month day-of-week, e.g. \"0 8 * * 1-5\""));
            None
        }
    }
}

fn zone(name: &str, view: &mut View<'_>) -> Option<TimeZone> {
    if let Ok(zone) = TimeZone::get(name) {
        return Some(zone);
    }
    let known: Vec<String> = jiff::tz::db().available().map(|known| known.to_string()).collect();
    let finding = Finding::of("timezone", format!("unable to load timezone: unknown time zone {name}"));
    view.error(match crate::nearest::nearest(name, known.iter().map(String::as_str)).first() {
        Some(near) => finding.hint(format!("did you mean {near:?}?")),
        None => finding.hint("a name of the IANA database, e.g. \"Europe/Berlin\" or \"Etc/UTC\""),
    });
    None
}

impl Cron {
    /// Inside the window iff it closes before it opens again (KEDA, `pkg/scalers/cron_scaler.go`).
    fn inside(&self, now: Timestamp) -> bool {
        match (self.start.next(now, &self.zone), self.end.next(now, &self.zone)) {
            (Some(start), Some(end)) => end <= start,
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }

    fn reading(&self, now: Timestamp) -> Reading {
        let active = self.inside(now);
        Reading { milli: if active { self.desired_milli } else { 0 }, active }
    }
}

#[async_trait]
impl Scaler for Cron {
    async fn metrics(&self, _: &Context) -> Result<Vec<Metric>, Error> {
        Ok(vec![Metric::External { name: self.name.clone(), target_milli: 1000 }])
    }

    fn planned(&self, now: Timestamp) -> Option<(Reading, Timestamp)> {
        let changes = [&self.start, &self.end].map(|line| line.next(now, &self.zone));
        let until = changes.into_iter().flatten().min().unwrap_or(Timestamp::MAX);
        Some((self.reading(now), until))
    }

    async fn read(&self, cx: &Context, _: &str) -> Result<Reading, Error> {
        Ok(self.reading((cx.now)()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, input};

    fn metadata<'a>(start: &'a str, end: &'a str, zone: &'a str) -> [(&'static str, &'a str); 4] {
        [("start", start), ("end", end), ("timezone", zone), ("desiredReplicas", "10")]
    }

    #[tokio::test]
    async fn the_window_is_open_between_its_lines() {
        for (start, end, zone, now, open) in [
            ("0 8 * * 1-5", "0 18 * * 1-5", "Etc/UTC", "2026-01-02T12:00:00Z", true),
            ("0 8 * * 1-5", "0 18 * * 1-5", "Etc/UTC", "2026-01-02T18:00:00Z", false),
            ("0 8 * * 1-5", "0 18 * * 1-5", "Etc/UTC", "2026-01-02T07:59:59Z", false),
            ("0 8 * * 1-5", "0 18 * * 1-5", "Etc/UTC", "2026-01-02T08:00:00Z", true),
            ("0 8 * * 1-5", "0 18 * * 1-5", "Etc/UTC", "2026-01-03T12:00:00Z", false),
            ("0 22 * * *", "0 6 * * *", "Europe/Berlin", "2026-01-02T22:30:00Z", true),
            ("0 22 * * *", "0 6 * * *", "Europe/Berlin", "2026-01-02T05:30:00Z", false),
        ] {
            let scaler = crate::build(&input("cron", &metadata(start, end, zone))).unwrap();
            let fixture = Fixture::at(now);
            let reading = scaler.read(&fixture.context, "").await.unwrap();
            let milli = if open { 10_000 } else { 0 };
            assert_eq!(reading, Reading { milli, active: open }, "{start} to {end} {zone} at {now}");
            let now: Timestamp = now.parse().unwrap();
            let (planned, until) = scaler.planned(now).unwrap();
            assert_eq!(planned, reading);
            assert!(until > now, "{until}");
            let before = until - std::time::Duration::from_secs(1);
            assert_eq!(scaler.planned(before), Some((reading, until)), "it holds until then");
        }
    }

    #[tokio::test]
    async fn the_name_spells_the_window() {
        let scaler =
            crate::build(&input("cron", &metadata("0,30 */2 ? * *", "15,45 * * * *", "Etc/UTC"))).unwrap();
        let metrics = scaler.metrics(&Fixture::new().context).await.unwrap();
        let name = "cron-Etc-UTC-0Cm30xSl2Qmxx-15Cm45xxxx".to_owned();
        assert_eq!(metrics, [Metric::External { name, target_milli: 1000 }]);
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let errors = crate::build(&input(
            "cron",
            &[("start", "0 8 * *"), ("end", "61 * * * *"), ("timezone", "Europe/Berln"), ("desiredReplicas", "0")],
        ))
        .err()
        .unwrap();
        let text = errors.to_string();
        for part in [
            "error parsing start schedule: expected exactly 5 fields, found 4: [0 8 * *]",
            "error parsing end schedule: end of range (61) above maximum (59)",
            "unable to load timezone: unknown time zone Europe/Berln (did you mean \"Europe/Berlin\"?)",
            "desiredReplicas must be greater than 0",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn metadata_is_refused_where_keda_refuses_it() {
        for (start, end, zone, fits) in [
            ("0 */2 * * *", "0 1-23/2 * * *", "Etc/UTC", true),
            ("30 * * * *", "45-50 * * * *", "Asia/Kolkata", true),
            ("30 * * * *", "-50 * * * *", "Asia/Kolkata", false),
            ("30 * * * *", "30 * * * *", "Asia/Kolkata", false),
            ("30 * * * *", "45 * * * *", "", false),
        ] {
            let built = crate::build(&input("cron", &metadata(start, end, zone)));
            assert_eq!(built.is_ok(), fits, "{start} to {end} {zone}");
        }
    }
}
