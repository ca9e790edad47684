//! The report page in a real browser: it draws what the outcome says, and it can be asked.
#![expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap, reason = "counts of a made-up world")]
#![allow(clippy::unwrap_used)]

#[path = "report/browser.rs"]
mod browser;
#[path = "report/worlds.rs"]
mod worlds;

use std::fs;
use std::path::PathBuf;

use browser::Browser;
use serde_json::json;
use simulate::outcome::Outcome;
use simulate::report::page;
use worlds::{STEP, world};

/// Points of seven days.
const WEEK: usize = 7 * 86_400 / STEP as usize + 1;

/// Writes the page where a person can look at it too.
fn written(name: &str, html: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.html"));
    fs::write(&path, html).unwrap();
    path
}

fn opened(name: &str, outcomes: &[Outcome]) -> Browser {
    let mut browser = Browser::start("America/New_York");
    browser.resize(1400, 1000);
    browser.open(&written(name, &page(outcomes)));
    browser
}

/// The middle of a chart, in pixels, and its width.
fn middle(browser: &mut Browser, chart: &str) -> (f64, f64, f64) {
    let rect = browser.eval(&format!(
        "(() => {{ const svg = document.querySelector('[data-chart={chart}] svg.plot'); svg.scrollIntoView({{ block: 'center' }}); \
         const box = svg.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2, box.width]; }})()"
    ));
    (rect[0].as_f64().unwrap(), rect[1].as_f64().unwrap(), rect[2].as_f64().unwrap())
}

/// The span of the charts' axis, in milliseconds since 1970.
fn window(browser: &mut Browser) -> (f64, f64) {
    (
        browser.number("+document.getElementById('charts').dataset.from"),
        browser.number("+document.getElementById('charts').dataset.to"),
    )
}

#[test]
fn a_week_is_drawn_hovered_zoomed_and_printed() {
    let week = world("Shop, one week", WEEK, 12, 40);
    let mut browser = opened("week", std::slice::from_ref(&week));
}
