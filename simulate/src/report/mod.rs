//! The page that `--report` writes: one file with everything in it, that a browser draws without a network.
//!
//! Style and scripts lie beside this file as the browser reads them; what they draw is the [`Outcome`] as
//! `--output json` has it, with its long series packed.

mod dry_run;
mod pack;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::outcome::{Event, Outcome};
use crate::sweep::Sweep;
pub use dry_run::{Difference, DryRun, Nodes, Object, World, page_of_dry_run};

/// The frame; `{{…}}` is filled in.
const FRAME: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// In the order in which they need each other; one module together.
const SCRIPTS: [&str; 11] = [
    include_str!("js/data.js"),
    include_str!("js/format.js"),
    include_str!("js/scale.js"),
    include_str!("js/charts.js"),
    include_str!("js/plot.js"),
    include_str!("js/summary.js"),
    include_str!("js/difference.js"),
    include_str!("js/events.js"),
    include_str!("js/sweep.js"),
    include_str!("js/view.js"),
    include_str!("js/main.js"),
];

/// The page of one world, or of several side by side.
pub fn page(outcomes: &[Outcome]) -> String {
    page_of(None, outcomes)
}

/// The page of a sweep, with the worlds that are worth a look beside it: as it is, and as is recommended.
pub fn page_of_sweep(sweep: &Sweep, outcomes: &[Outcome]) -> String {
    page_of(Some(sweep), outcomes)
}

fn page_of(sweep: Option<&Sweep>, outcomes: &[Outcome]) -> String {
    let data = json!({ "outcomes": outcomes.iter().map(embedded).collect::<Vec<_>>(), "sweep": sweep });
    let names: Vec<_> = outcomes.iter().map(|outcome| outcome.name.as_str()).collect();
    render(&names.join(" | "), "simulation", &data)
}

/// The frame with its places filled, each once: what is filled in is not looked through for places.
fn render(title: &str, product: &str, data: &Value) -> String {
    let mut page = String::new();
    let mut rest = FRAME;
    while let Some((before, (place, after))) =
        rest.split_once("{{").and_then(|(before, after)| Some((before, after.split_once("}}")?)))
    {
        page.push_str(before);
        match place {
            "title" => page.push_str(&escaped_text(title)),
            "product" => page.push_str(product),
            "data" => page.push_str(&escaped_json(data)),
            "style" => page.push_str(STYLE),
            _ => page.extend(SCRIPTS),
        }
        rest = after;
    }
    page + rest
}

/// The outcome with its series packed and the texts of its events told once.
fn embedded(outcome: &Outcome) -> Value {
    json!({
        "name": outcome.name,
        "axis": outcome.axis,
        // One by one: a hundred objects as a tree would be a gigabyte.
        "objects": outcome.objects.iter().map(|object| pack::packed(json!(object))).collect::<Vec<_>>(),
        "nodes": pack::packed(json!(outcome.nodes)),
        "events": events(&outcome.events, outcome.axis.start),
        "summary": outcome.summary,
        "notes": outcome.notes,
    })
}

/// Events by column: milliseconds since `start`, and indexes into `texts`.
fn events(events: &[Event], start: Timestamp) -> Value {
    let mut texts = Vec::new();
    let mut known = BTreeMap::new();
    let mut index = |text| {
        *known.entry(text).or_insert_with(|| {
            texts.push(text);
            texts.len() - 1
        })
    };
    let mut rows: Vec<_> = events.iter().collect();
    rows.sort_by_key(|event| event.at);
    let mut column =
        |text: fn(&Event) -> &str| -> Vec<_> { rows.iter().map(|event| index(text(event))).collect() };
    let columns = json!({
        "object": column(|event| &event.object),
        "reason": column(|event| &event.reason),
        "message": column(|event| &event.message),
        "kind": column(|event| &event.kind),
    });
    json!({
        "at": rows.iter().map(|event| event.at.as_millisecond() - start.as_millisecond()).collect::<Vec<_>>(),
        "columns": columns,
        "texts": texts,
    })
}

/// JSON that cannot end the `script` element that it stands in, whatever names it has.
fn escaped_json(data: &Value) -> String {
    data.to_string().replace('<', "\\u003c")
}

fn escaped_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
