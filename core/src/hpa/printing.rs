//! A metric as `kubectl get hpa` prints it in the column TARGETS (Kubernetes, `pkg/printers/internalversion`).

use super::{
    calculator::Current,
    spec::{Metric, Source, Target},
};
use crate::quantity::format_milli;

impl Metric {
    /// What it is at and what it should be at: `8667m/10 (avg)`, `cpu: 40%/80%`.
    pub fn column(&self, current: Option<Current>) -> String {
        let resource = match &self.source {
            Source::Resource { resource } | Source::ContainerResource { resource, .. } => {
                Some(resource.as_str())
            }
            _ => None,
        };
        let amount = |milli| if resource == Some("memory") { binary(milli) } else { format_milli(milli) };
        let unknown = || "<unknown>".to_owned();
        let (current, target) = match (self.target, current) {
            (Target::Utilization(target), Some(Current::Utilization { percent, .. })) => {
                (format!("{percent}%"), format!("{target}%"))
            }
            (Target::Utilization(target), _) => (unknown(), format!("{target}%")),
            (Target::AverageValue(target), Some(Current::AverageValue(current)))
            | (Target::Value(target), Some(Current::Value(current))) => (amount(current), amount(target)),
            (Target::AverageValue(target) | Target::Value(target), _) => (unknown(), amount(target)),
            (Target::Missing, _) => (unknown(), "<auto>".to_owned()),
        };
        match (resource, &self.source, self.target) {
            (Some(resource), ..) => format!("{resource}: {current}/{target}"),
            (None, Source::External { .. } | Source::Object { .. }, Target::AverageValue(_)) => {
                format!("{current}/{target} (avg)")
            }
            _ => format!("{current}/{target}"),
        }
    }
}

/// The canonical text of an amount of bytes in powers of 1024; of a fraction of one, that in decimal.
fn binary(milli: i64) -> String {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if milli == 0 || milli % 1000 != 0 {
        return format_milli(milli);
    }
    let (mut value, mut step) = (milli / 1000, 0);
    while value % 1024 == 0 && step < SUFFIXES.len() - 1 {
        value /= 1024;
        step += 1;
    }
    format!("{value}{}", SUFFIXES[step])
}
