//! Every folder of `examples/` is what its README promises: the command there is run, and what it says to look at is looked at.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use simulate::{examples::EXAMPLES, outcome::Outcome, sweep::Sweep};

/// Largest history, so that a checkout stays small.
const MAX_BYTES: u64 = 300_000;

/// What the command of an example's README prints with `--output json`; its page is written too.
fn run(example: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("examples").join(example).join("README.md")).unwrap();
    let command = readme.lines().find_map(|line| line.strip_prefix("    tandem ")).unwrap();
    let (command, page) = command.split_once(" --report ").unwrap();
    let page = tempfile::tempdir().unwrap().keep().join(page);
    let output = Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(command.split(' '))
        .args(["--output", "json", "--report"])
        .arg(&page)
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.len() < 2_000_000, "{} bytes", html.len());
    fs::remove_dir_all(page.parent().unwrap()).unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn outcome(example: &str) -> Outcome {
    serde_json::from_value(run(example)).unwrap()
}

/// The points of an outcome from a time until another one.
fn between<'a, T>(outcome: &Outcome, values: &'a [T], from: &str, to: &str) -> &'a [T] {
    let point = |time: &str| {
        let time: jiff::Timestamp = time.parse().unwrap();
        let seconds = time.duration_since(outcome.axis.start).as_secs();
        usize::try_from(seconds / i64::from(outcome.axis.step_seconds)).unwrap()
    };
    &values[point(from)..point(to)]
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

#[test]
fn the_histories_are_those_that_the_generator_makes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for (name, _) in EXAMPLES {
        let generate = ["simulate", "--generate", name];
        let output = Command::new(env!("CARGO_BIN_EXE_tandem")).args(generate).output().unwrap();
        let files: Vec<_> = fs::read_dir(folder.join(name).join("history")).unwrap().collect();
        let [Ok(file)] = &files[..] else { panic!("{name}: {files:?}") };
        assert!(fs::read(file.path()).unwrap() == output.stdout, "{name}: write anew what --generate prints");
        assert!(file.metadata().unwrap().len() < MAX_BYTES, "{name}");
    }
}

#[test]
fn web_shop() {
    let week = outcome("web-shop");
    let web = &week.objects[0];
    assert_eq!(between(&week, &web.wanted, "2026-01-07T20:00:30Z", "2026-01-07T20:01:30Z"), [60; 4]);
    assert_eq!(between(&week, &web.pending, "2026-01-07T20:00:30Z", "2026-01-07T20:01:30Z"), [39; 4]);
    assert_eq!(between(&week, &web.ready, "2026-01-07T20:03:00Z", "2026-01-07T20:10:00Z"), [60; 28]);
    let sale = most(between(&week, &web.unserved, "2026-01-07T20:00:00Z", "2026-01-07T20:03:00Z"));
    let before = most(between(&week, &web.unserved, "2026-01-05T00:00:00Z", "2026-01-07T20:00:00Z"));
    let after = most(between(&week, &web.unserved, "2026-01-07T20:03:00Z", "2026-01-12T00:00:00Z"));
    assert!(sale > 10.0 * before.max(after), "{sale} in the sale, {before} before, {after} after");

    let away = between(&week, &web.wanted, "2026-01-09T10:01:30Z", "2026-01-09T11:00:00Z");
    assert!(away.iter().all(|wanted| *wanted == 15), "{away:?}");
    let reasons: Vec<_> = week.events.iter().map(|event| event.reason.as_str()).collect();
    assert!(
        reasons.contains(&"ScaledObjectFallbackActivated")
            && reasons.contains(&"ScaledObjectFallbackDeactivated")
    );
}

#[test]
fn queue_worker() {
    let sweep: Sweep = serde_json::from_value(run("queue-worker")).unwrap();
    let of = |threshold: f64, max: u64| {
        sweep
            .points
            .iter()
            .find(|point| point.values[0].as_f64() == Some(threshold) && point.values[1] == max)
            .unwrap()
    };
    for threshold in [1.5, 2.0] {
        assert_eq!(of(threshold, 20).summary, of(threshold, 40).summary);
    }
    let gain = |more: f64, less: f64| {
        (of(more, 20).summary.unserved_share - of(less, 20).summary.unserved_share)
            / (of(less, 20).cost - of(more, 20).cost)
    };
    assert!(
        gain(2.0, 1.0) > gain(1.0, 0.5) && gain(1.0, 0.5) > 0.0,
        "unserved load that a pod-hour more saves"
    );
    let recommended = &sweep.points[sweep.recommended.unwrap()];
    assert!(recommended.summary.unserved_share < 0.1 && recommended.front);
    assert!(
        sweep.patches.iter().any(|patch| patch.starts_with("kubectl patch scaledobject thumbnails -n media"))
    );
}

#[test]
fn nightly_cron() {
    let worlds: Vec<Outcome> = serde_json::from_value(run("nightly-cron")).unwrap();
    let [with, without] = worlds.as_slice() else { panic!("two worlds") };
    let ready = |outcome: &Outcome, time: &str, until: &str| {
        between(outcome, &outcome.objects[0].ready, time, until).iter().copied().max().unwrap()
    };
    // Berlin is one hour ahead of UTC in winter, two in summer.
    assert_eq!(ready(with, "2026-03-27T23:45:00Z", "2026-03-27T23:50:00Z"), 0);
    assert_eq!(ready(with, "2026-03-27T23:55:00Z", "2026-03-28T00:00:00Z"), 10);
    assert_eq!(ready(with, "2026-03-29T22:45:00Z", "2026-03-29T22:50:00Z"), 0);
    assert_eq!(ready(with, "2026-03-29T22:55:00Z", "2026-03-29T23:00:00Z"), 10);
    assert_eq!(ready(without, "2026-03-27T23:55:00Z", "2026-03-28T00:00:00Z"), 0);
    assert!(with.summary.unserved_share < 1e-9);
    assert!((0.025..0.035).contains(&without.summary.unserved_share), "{}", without.summary.unserved_share);
    let saved = 1.0 - without.summary.cost.unwrap() / with.summary.cost.unwrap();
    assert!((0.18..0.23).contains(&saved), "{saved}");
}

#[test]
fn spot_fleet() {
    let days = outcome("spot-fleet");
    let of = |name: &str| -> Vec<u32> {
        let kind = days.nodes.types.iter().find(|kind| kind.name == name).unwrap();
        kind.ready.iter().zip(&kind.starting).map(|(ready, starting)| ready + starting).collect()
    };
    let (small, large, on_demand) = (of("spot-small"), of("spot-large"), of("on-demand"));
    let grows = |nodes: &[u32], point: usize| nodes[point] > nodes[point - 1];
    let mut hours = Vec::new();
    for point in 1..days.axis.points {
        if grows(&on_demand, point) {
            assert_eq!((small[point], large[point]), (6, 5), "quotas are used up");
            hours.push(point * days.axis.step_seconds as usize / 3600 % 24);
        }
        if grows(&large, point) {
            assert_eq!(small[point], 6, "the small ones come first");
        }
    }
    assert!(hours.len() >= 3 && hours.iter().all(|hour| *hour >= 12), "{hours:?}");

    let node_hours = f64::from(on_demand.iter().sum::<u32>()) * f64::from(days.axis.step_seconds) / 3600.0;
    assert!(node_hours < days.summary.node_hours / 20.0, "{node_hours}");
    let share = node_hours * 0.68 / days.summary.cost.unwrap();
    assert!((0.15..0.2).contains(&share), "{share}");
}
