//! The report for people.

use super::{Report, compare::Comparison};
use crate::cli::explain::page::{Page, counted};

/// How the columns are read.
const LEGEND: &str = "Differs: time in which Tandem wanted another count. Most: the greatest difference, + where Tandem \
    wanted more. Changes and first are Tandem : the others; lead is the median of by how long Tandem was first.";

/// The differences, in 80 columns.
pub(super) fn text(report: &Report) -> String {
    let mut page = Page::default();
    let seconds = report.to.duration_since(report.from).as_secs_f64();
    page.say(&format!(
        "Dry run of Tandem {} on Kubernetes {}: {} from {:.0} to {:.0} in {}.",
        report.tandem,
        report.kubernetes,
        span(seconds),
        report.from,
        report.to,
        counted(report.runs, "run"),
    ));
    for note in &report.notes {
        page.say(&format!("Note: {note}."));
    }
    let objects = report.objects.iter().map(|it| (format!("{}/{}", it.namespace, it.name), &it.comparison));
    table(&mut page, "Replicas", "SCALEDOBJECT", objects);
    let nodes = report.nodes.iter().map(|it| (format!("{} {}", it.kind.name(), it.name), &it.comparison));
    table(&mut page, "Nodes", "GROUP OR POOL", nodes);
    if !(report.objects.is_empty() && report.nodes.is_empty()) {
        page.heading(LEGEND);
    }
    page.heading("Not done");
    for it in &report.not_done {
        page.item(&format!("{} {}: {}", it.verb, it.resource, it.count));
    }
    if report.not_done.is_empty() {
        page.item("nothing would have been written");
    }
    page.text()
}

fn table<'a>(
    page: &mut Page,
    heading: &str,
    name: &str,
    rows: impl Iterator<Item = (String, &'a Comparison)>,
) {
    let head = [name, "DIFFERS", "MOST", "CHANGES", "FIRST", "LEAD"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(rows.map(|(name, it)| row(name, it))).collect();
    if rows.len() > 1 {
        page.heading(heading);
        page.table(&rows);
    }
}

fn row(name: String, it: &Comparison) -> [String; 6] {
    let share = if it.known_seconds > 0.0 { it.differs_seconds / it.known_seconds * 100.0 } else { 0.0 };
    let differs = if it.differs_seconds > 0.0 {
        format!("{}, {share:.1}%", span(it.differs_seconds))
    } else {
        "never".to_owned()
    };
    let lead = match it.lead_seconds {
        Some(lead) => format!("{lead:+.1} s"),
        None => "none".to_owned(),
    };
    [
        name,
        differs,
        if it.most == 0 { "0".to_owned() } else { format!("{:+}", it.most) },
        format!("{} : {}", it.changes_of_tandem, it.changes_of_others),
        format!("{} : {}", it.tandem_first, it.others_first),
        lead,
    ]
}

/// A length of time in its two greatest units.
fn span(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")];
    let mut rest = seconds.round();
    let mut parts = Vec::new();
    for (unit, name) in units {
        let count = (rest / unit).floor();
        rest -= count * unit;
        if count > 0.0 {
            parts.push(format!("{count:.0} {name}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        cli::report::{NotDone, OfNodes, OfObject},
        dry_run::record::NodeKind,
    };

    fn report() -> Report {
        let at = |second| Timestamp::from_second(second).unwrap();
        let comparison = Comparison {
            known_seconds: 5400.0,
            differs_seconds: 94.0,
            most: 3,
            most_at: Some(at(60)),
            changes_of_tandem: 12,
            changes_of_others: 14,
            tandem_first: 9,
            others_first: 3,
            others_only: 2,
            lead_seconds: Some(6.25),
        };
        Report {
            from: at(0),
            to: at(5400),
            runs: 1,
            tandem: "0.1.0".to_owned(),
            kubernetes: "v1.37.0".to_owned(),
            objects: vec![
                OfObject { namespace: "shop".to_owned(), name: "web".to_owned(), comparison },
                OfObject {
                    namespace: "shop".to_owned(),
                    name: "worker-of-the-shop".to_owned(),
                    comparison: Comparison { known_seconds: 5400.0, ..Comparison::default() },
                },
            ],
            nodes: vec![OfNodes {
                kind: NodeKind::Group,
                name: "workers".to_owned(),
                comparison: Comparison::default(),
            }],
            not_done: vec![NotDone {
                verb: "patch".to_owned(),
                resource: "scaledobjects/status".to_owned(),
                count: 31,
            }],
            notes: vec!["the last line of a.jsonl was cut off and is left out".to_owned()],
        }
    }

    #[test]
    fn differences_are_told_in_eighty_columns() {
        let text = text(&report());
        assert_eq!(
            text,
            "Dry run of Tandem 0.1.0 on Kubernetes v1.37.0: 1 h 30 min from\n\
             1970-01-01T00:00:00Z to 1970-01-01T01:30:00Z in 1 run.\n\
             Note: the last line of a.jsonl was cut off and is left out.\n\
             \n\
             Replicas\n  \
               SCALEDOBJECT             DIFFERS           MOST  CHANGES  FIRST  LEAD\n  \
               shop/web                 1 min 34 s, 1.7%  +3    12 : 14  9 : 3  +6.2 s\n  \
               shop/worker-of-the-shop  never             0     0 : 0    0 : 0  none\n\
             \n\
             Nodes\n  \
               GROUP OR POOL       DIFFERS  MOST  CHANGES  FIRST  LEAD\n  \
               node group workers  never    0     0 : 0    0 : 0  none\n\
             \n\
             Differs: time in which Tandem wanted another count. Most: the greatest\n\
             difference, + where Tandem wanted more. Changes and first are Tandem : the\n\
             others; lead is the median of by how long Tandem was first.\n\
             \n\
             Not done\n  \
               patch scaledobjects/status: 31\n"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, wanted) in
            [(0.2, "0 s"), (59.6, "1 min"), (3600.0, "1 h"), (3661.0, "1 h 1 min"), (90_061.0, "1 d 1 h")]
        {
            assert_eq!(span(seconds), wanted);
        }
    }
}
