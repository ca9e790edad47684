//! The report page in a real browser: it draws what the outcome says, and it can be asked.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "counts of a made-up world"
)]
#![allow(clippy::unwrap_used)]

#[path = "report/browser.rs"]
mod browser;
#[path = "report/worlds.rs"]
mod worlds;

use std::fs;
use std::path::PathBuf;

use browser::Browser;
use serde_json::json;
use simulate::outcome::{Axis, Event, MetricSeries, Outcome, Summary};
use simulate::report::{self, page, page_of_sweep};
use simulate::sweep::{CostUnit, Point, Sweep};
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

/// The value that the legend shows for a series.
fn legend(browser: &mut Browser, chart: &str, series: &str) -> String {
    browser.text(&format!("[data-chart={chart}] .legend [data-series={series}] output"))
}

fn background(browser: &mut Browser) -> String {
    browser.eval("getComputedStyle(document.body).backgroundColor").as_str().unwrap().to_owned()
}

#[test]
fn a_week_is_drawn_and_hovered() {
    let week = world("Shop, one week", WEEK, 12, 40);
    let html = page(std::slice::from_ref(&week));
    assert!(html.len() < 500_000, "a week of one object is {} bytes", html.len());
    let mut browser = opened("week", std::slice::from_ref(&week));

    // Drawn: each chart, and in it each series.
    let charts =
        browser.eval("[...document.querySelectorAll('figure.chart')].map(chart => chart.dataset.chart)");
    assert_eq!(charts, json!(["metric-0", "replicas", "pending", "nodes", "cost"]));
    let empty = browser.eval(
        "[...document.querySelectorAll('svg.plot path[data-series]')].filter(path => path.getAttribute('d').length < 10).length",
    );
    assert_eq!(empty, json!(0));
    let drawn =
        browser.eval("document.querySelectorAll('[data-chart=replicas] svg.plot path[data-series]').length");
    assert_eq!(drawn, json!(3));
    let longest = browser.number("Math.max(...[...document.querySelectorAll('svg.plot path')].map(path => path.getAttribute('d').length))");
    assert!(
        longest < 120_000.0,
        "40,000 points are thinned out to what the screen has, not to {longest} characters"
    );
    assert_eq!(browser.text("h1"), "Shop, one week");
    assert_eq!(browser.text("#summary .tiles dd"), format!("${:.2}", week.summary.cost.unwrap()));

    // Hovered: the values of that time, in every chart, and the time in both zones.
    let (x, y, _) = middle(&mut browser, "replicas");
    browser.mouse("mouseMoved", x, y, &json!({}));
    let time = browser.number("Date.parse(document.getElementById('utc').dateTime)");
    let point = ((time / 1000.0) as i64 - week.axis.start.as_second()) as usize / STEP as usize;
    assert!(point.abs_diff(WEEK / 2) < WEEK / 50, "the middle of the week, not point {point}");
    let web = &week.objects[0];
    assert_eq!(legend(&mut browser, "replicas", "wanted"), web.wanted[point].to_string());
    assert_eq!(legend(&mut browser, "replicas", "ready"), web.ready[point].to_string());
    assert_eq!(legend(&mut browser, "pending", "pending"), web.pending[point].to_string());
    assert_eq!(legend(&mut browser, "cost", "cost"), dollars(week.nodes.cost_per_hour[point]));
    let metric = legend(&mut browser, "metric-0", "metric").replace(',', "").parse::<f64>().unwrap();
    assert!((metric - web.metrics[0].values[point].unwrap()).abs() < 0.1, "{metric}");
    let crosses = browser.eval("document.querySelectorAll('.cross[visibility=visible]').length");
    assert_eq!(crosses, json!(5), "one crosshair over all charts");
    let at = jiff::Timestamp::from_millisecond(time as i64).unwrap();
    let clock = |zone| at.in_tz(zone).unwrap().strftime("%H:%M:%S").to_string();
    assert!(browser.text("#utc").contains(&clock("UTC")));
    assert!(browser.text("#local").contains(&clock("America/New_York")));

    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn the_time_is_zoomed_by_mouse_and_keys() {
    let week = world("Shop, one week", WEEK, 12, 40);
    let mut browser = opened("zoomed", &[week]);
    // A drag over an eighth of the width shows an eighth of the time, in every chart; a double click all of it.
    let (x, y, width) = middle(&mut browser, "replicas");
    let whole = window(&mut browser);
    drag(&mut browser, (x, y), (x + width / 8.0, y));
    let zoomed = window(&mut browser);
    let share = (zoomed.1 - zoomed.0) / (whole.1 - whole.0);
    assert!((share - 0.132).abs() < 0.01, "{share} of the week");
    assert!(
        (zoomed.0 - f64::midpoint(whole.0, whole.1)).abs() < 3_600_000.0 * 4.0,
        "from where the drag began"
    );
    browser.mouse("mouseWheel", x, y, &json!({ "deltaX": 0, "deltaY": -120 }));
    let wheeled = window(&mut browser);
    assert!(wheeled.1 - wheeled.0 < 0.9 * (zoomed.1 - zoomed.0), "the wheel zooms in further");
    click(&mut browser, (x, y), 1);
    click(&mut browser, (x, y), 2);
    assert_eq!(window(&mut browser), whole);

    // Keys: zoom in, an event ahead, and all of it again.
    browser.eval("document.getElementById('charts').focus()");
    browser.key("+");
    let keyed = window(&mut browser);
    assert!((2.0 * (keyed.1 - keyed.0) - (whole.1 - whole.0)).abs() < 1.0);
    browser.key("n");
    assert!(browser.text("#spoken").contains("Replicas Wanted"), "the values are said");
    browser.key("Escape");
    assert_eq!(window(&mut browser), whole);

    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn an_event_takes_the_charts_to_its_time() {
    let week = world("Shop, one week", WEEK, 12, 40);
    let mut browser = opened("events", std::slice::from_ref(&week));
    // Filtered to the outage, which takes the charts there.
    let all = browser.number("document.querySelectorAll('.events tbody tr').length");
    browser.eval("(() => { const text = document.querySelector('#events input'); text.value = 'no data'; text.dispatchEvent(new Event('input')); })()");
    assert!(all > 100.0);
    assert_eq!(browser.eval("document.querySelectorAll('.events tbody tr').length"), json!(1));
    browser.eval("document.querySelector('.events tbody button').click()");
    browser.frame();
    let (from, to) = window(&mut browser);
    let outage = week.axis.start.as_millisecond() as f64 + 20_000.0 * f64::from(STEP) * 1000.0;
    assert!((f64::midpoint(from, to) - outage).abs() < 1.0 && to - from < 86_400_000.0);
    assert_eq!(legend(&mut browser, "metric-0", "metric"), "–", "the source failed");

    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn the_page_is_dark_printed_and_narrow() {
    let week = world("Shop, one week", WEEK, 12, 40);
    let mut browser = opened("looks", &[week]);
    // Dark where the viewer's system is, and on request; printed, it is light.
    browser.prefer("light");
    let light = background(&mut browser);
    browser.prefer("dark");
    let dark = background(&mut browser);
    assert_ne!(light, dark);
    browser.eval("document.querySelector('#theme [data-value=light]').click()");
    assert_eq!(background(&mut browser), light);
    let printed = browser.call("Page.printToPDF", &json!({ "printBackground": true }));
    let pdf = printed["data"].as_str().unwrap();
    assert!(pdf.starts_with("JVBERi0") && pdf.len() > 40_000, "a PDF of {} characters", pdf.len());

    // Narrow: nothing is wider than the screen.
    browser.resize(400, 800);
    assert_eq!(browser.eval("document.documentElement.scrollWidth"), json!(400));
    assert_eq!(browser.complaints, Vec::<String>::new());
}

fn drag(browser: &mut Browser, from: (f64, f64), to: (f64, f64)) {
    browser.mouse(
        "mousePressed",
        from.0,
        from.1,
        &json!({ "button": "left", "buttons": 1, "clickCount": 1 }),
    );
    browser.mouse(
        "mouseMoved",
        f64::midpoint(from.0, to.0),
        to.1,
        &json!({ "button": "left", "buttons": 1 }),
    );
    browser.mouse("mouseMoved", to.0, to.1, &json!({ "button": "left", "buttons": 1 }));
    browser.mouse("mouseReleased", to.0, to.1, &json!({ "button": "left", "clickCount": 1 }));
}

fn click(browser: &mut Browser, at: (f64, f64), count: u32) {
    browser.mouse(
        "mousePressed",
        at.0,
        at.1,
        &json!({ "button": "left", "buttons": 1, "clickCount": count }),
    );
    browser.mouse("mouseReleased", at.0, at.1, &json!({ "button": "left", "clickCount": count }));
}

/// As the page writes them: two digits, three below a dollar where they are needed.
fn dollars(value: f64) -> String {
    let text = if value < 1.0 { format!("${value:.3}") } else { format!("${value:.2}") };
    match text.strip_suffix('0') {
        Some(short) if value < 1.0 => short.to_owned(),
        _ => text,
    }
}

#[test]
fn several_worlds_stand_side_by_side_or_one_over_another() {
    let day = 86_400 / STEP as usize;
    let worlds = [world("as it is", day, 12, 40), world("max 12 & faster pods", day, 4, 12)];
    let mut browser = opened("compare", &worlds);
    assert_eq!(browser.eval("document.querySelectorAll('#charts > .column').length"), json!(2));
    let deltas = browser.eval("document.querySelectorAll('.compared .delta').length");
    assert!(deltas.as_f64().unwrap() >= 2.0, "what differs is told in percent");
    // Both columns have the same time and the same scale.
    let scales = browser.eval(
        "[...document.querySelectorAll('[data-chart=replicas] .grid')].map(grid => [...grid.querySelectorAll('text')].map(text => text.textContent).join())",
    );
    assert_eq!(scales[0], scales[1]);
    browser.eval("document.querySelector('.bar [data-value=over]').click()");
    browser.frame();
    assert_eq!(browser.eval("document.querySelectorAll('#charts > .column').length"), json!(1));
    let (x, y, _) = middle(&mut browser, "replicas");
    browser.mouse("mouseMoved", x, y, &json!({}));
    let point = (browser.number("Date.parse(document.getElementById('utc').dateTime)") as i64 / 1000
        - worlds[0].axis.start.as_second()) as usize
        / STEP as usize;
    for (index, world) in worlds.iter().enumerate() {
        let wanted = world.objects[0].wanted[point].to_string();
        assert_eq!(legend(&mut browser, "replicas", &format!("wanted-{index}")), wanted);
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn each_object_has_its_charts_and_all_of_them_a_sum() {
    let mut outcome = world("two objects", 600, 4, 40);
    let mut other = outcome.objects[0].clone();
    "api".clone_into(&mut other.name);
    other.wanted.iter_mut().for_each(|wanted| *wanted += 1);
    outcome.objects.push(other);
    let wanted: Vec<_> = outcome.objects.iter().map(|object| object.wanted[0]).collect();
    let mut browser = opened("objects", &[outcome]);
    let first = |browser: &mut Browser| {
        let (x, y, width) = middle(browser, "replicas");
        // The left end of the axis.
        browser.mouse("mouseMoved", x - width / 2.0 + 55.0, y, &json!({}));
        legend(browser, "replicas", "wanted")
    };
    assert_eq!(first(&mut browser), wanted[0].to_string());
    browser.eval("document.querySelectorAll('#summary button.link')[1].click()");
    browser.frame();
    assert_eq!(browser.eval("document.getElementById('object').value"), json!("shop/api"));
    assert_eq!(first(&mut browser), wanted[1].to_string());
    browser.eval("(() => { const object = document.getElementById('object'); object.value = ''; object.dispatchEvent(new Event('change')); })()");
    browser.frame();
    assert_eq!(first(&mut browser), (wanted[0] + wanted[1]).to_string());
    let charts =
        browser.eval("[...document.querySelectorAll('figure.chart')].map(chart => chart.dataset.chart)");
    assert_eq!(charts, json!(["replicas", "pending", "nodes", "cost"]), "no metric is that of all");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn names_from_outside_are_shown_and_never_run() {
    let name = "</script><script>document.title = 'run'</script><img src=x onerror=alert(1)>{{data}}";
    let mut outcome = world(name, 600, 4, 40);
    outcome.events[0].message = name.to_owned();
    outcome.objects[0].name = name.to_owned();
    let mut browser = opened("names", &[outcome]);
    assert_eq!(browser.text("h1"), name);
    assert_eq!(browser.text(".events .message"), name);
    assert_eq!(browser.eval("document.querySelectorAll('img').length"), json!(0));
    assert_eq!(browser.text("title"), format!("{name} · Tandem"));
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn worlds_without_nodes_metrics_or_events_are_drawn_too() {
    let mut bare = world("bare", 5, 1, 40);
    bare.nodes = simulate::outcome::NodesOutcome::default();
    bare.objects[0].metrics.clear();
    bare.events.clear();
    bare.summary.cost = None;
    let mut browser = opened("bare", &[bare]);
    let charts =
        browser.eval("[...document.querySelectorAll('figure.chart')].map(chart => chart.dataset.chart)");
    assert_eq!(charts, json!(["replicas", "pending"]));
    assert_eq!(browser.text("#events .empty"), "Nothing happened.");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn a_sweep_is_a_scatter_with_its_front_and_a_recommendation() {
    let point = |max: u32, cost: f64, unserved_share: f64, front| Point {
        values: vec![json!(100), json!(max)],
        summary: Summary { unserved_share, pod_hours: cost * 20.0, cost: Some(cost), ..Summary::default() },
        cost,
        front,
    };
    let mut points: Vec<_> =
        (1..=8).map(|i| point(i * 5, 4.0 + f64::from(i), 0.2 / f64::from(i * i * i), true)).collect();
    points.extend((1..=8).map(|i| point(i * 5 + 2, 5.5 + f64::from(i), 0.3 / f64::from(i * i), false)));
    let sweep = Sweep {
        keys: vec!["threshold".to_owned(), "max".to_owned()],
        unit: CostUnit::Dollars,
        points,
        limit: Some(0.001),
        recommended: Some(5),
        patches: vec![
            "kubectl patch scaledobject web -n shop --type merge -p '{\"spec\":{\"maxReplicaCount\":30}}'"
                .to_owned(),
        ],
    };
    let day = 86_400 / STEP as usize;
    let worlds = [world("as it is", day, 12, 40), world("threshold=100 max=30", day, 12, 30)];
    let mut browser = Browser::start("UTC");
    browser.resize(1400, 1000);
    browser.open(&written("sweep", &page_of_sweep(&sweep, &worlds)));
    browser.frame();
    let count = |browser: &mut Browser, kind: &str| {
        browser.eval(&format!("document.querySelectorAll('.scatter path.{kind}').length"))
    };
    assert_eq!([count(&mut browser, "front"), count(&mut browser, "recommended")], [json!(7), json!(1)]);
    assert_eq!(browser.text("#sweep code"), sweep.patches[0]);
    let best = browser.eval(
        "(() => { const mark = document.querySelector('.scatter path.recommended'); mark.scrollIntoView({ block: 'center' }); \
         const box = mark.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()",
    );
    browser.mouse("mouseMoved", best[0].as_f64().unwrap(), best[1].as_f64().unwrap(), &json!({}));
    assert_eq!(browser.text(".told"), "threshold 100, max 30: $10.00, 0.0926% unserved");
    assert_eq!(browser.text(".settings tr.pointed td:nth-child(2)"), "30");
    browser.eval("document.querySelector('.settings th:nth-child(2) button').click()");
    let first = |browser: &mut Browser| browser.text(".settings tbody tr td:nth-child(2)");
    assert_eq!(first(&mut browser), "5");
    browser.eval("document.querySelector('.settings th:nth-child(2) button').click()");
    assert_eq!(first(&mut browser), "42");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn a_dry_run_lays_two_worlds_over_each_other() {
    let start = "2024-05-06T00:00:00Z".parse().unwrap();
    let counts = |change: usize| (0..600).map(|i| Some(if i < change { 1 } else { 4 })).collect::<Vec<_>>();
    let metric = MetricSeries {
        name: "s0-prometheus".to_owned(),
        target: 10.0,
        per_replica: true,
        values: (0..600)
            .map(|i| (!(400..450).contains(&i)).then_some(if i < 290 { 8.0 } else { 38.0 }))
            .collect(),
    };
    let world = |name: &str, reason: &str, change: usize| report::World {
        name: name.to_owned(),
        objects: vec![report::Object {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            replica_bounds: (1, 10),
            metrics: vec![metric.clone()],
            replicas: counts(change),
        }],
        nodes: vec![report::Nodes {
            name: "node group workers".to_owned(),
            ready: counts(change + 60),
            starting: vec![Some(0); 600],
        }],
        events: vec![Event {
            at: start,
            object: "ScaledObject shop/web".to_owned(),
            reason: reason.to_owned(),
            message: "so it is".to_owned(),
            kind: "Normal".to_owned(),
        }],
    };
    let run = report::DryRun {
        axis: Axis { start, step_seconds: 1, points: 600 },
        worlds: [world("The others", "Scaled", 320), world("Tandem", "SuccessfulRescale", 300)],
        pending: vec![Some(2); 600],
        differences: vec![report::Difference {
            name: "shop/web".to_owned(),
            is_object: true,
            differs_seconds: 20.0,
            known_seconds: 600.0,
            most: 3,
            changes: [1, 1],
            tandem_first: 1,
            others_first: 0,
            lead_seconds: Some(20.0),
        }],
        notes: vec!["the last line was cut off".to_owned()],
    };
    let mut browser = Browser::start("Europe/Berlin");
    browser.resize(1400, 1000);
    browser.open(&written("dry-run", &report::page_of_dry_run(&run)));

    let charts =
        browser.eval("[...document.querySelectorAll('figure.chart')].map(chart => chart.dataset.chart)");
    assert_eq!(charts, json!(["metric-0", "replicas", "difference", "waiting", "nodes"]));
    assert_eq!(browser.text(".product"), "Tandem dry run");
    assert_eq!(browser.text("h1"), "The others · Tandem");
    let row = browser.text("[data-difference='shop/web']");
    assert!(row.contains("20 s") && row.contains("3.33% of 10 min") && row.contains("+20 s"), "{row}");
    assert!(browser.text("#events").contains("SuccessfulRescale"));

    // In the middle Tandem has wanted four replicas for a moment, the others have one.
    let (x, y, width) = middle(&mut browser, "replicas");
    browser.mouse("mouseMoved", x + width / 60.0, y, &json!({}));
    assert_eq!(legend(&mut browser, "replicas", "wanted-0"), "1");
    assert_eq!(legend(&mut browser, "replicas", "wanted-1"), "4");
    assert_eq!(legend(&mut browser, "difference", "more"), "3");
    assert_eq!(legend(&mut browser, "difference", "less"), "0");
    assert_eq!(browser.complaints, Vec::<String>::new());
}
