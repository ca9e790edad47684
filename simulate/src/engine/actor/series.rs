//! The series of an object: its slots, what its HPA reads itself, the composite.

use tandem_core::{
    hpa,
    pods::hpa::{COMPOSITE, TargetKind},
};

use crate::{
    compile::{Feed, Object, Origin, units},
    outcome::MetricSeries,
};

/// Where a series comes from.
pub(super) enum Series<'a> {
    Feed(&'a Feed),
    /// A slot that follows the calendar.
    Planned(usize),
    Composite,
}

/// The series of an object: its slots, what its HPA reads itself, the composite.
pub(super) fn series(spec: &Object) -> (Vec<Series<'_>>, Vec<MetricSeries>) {
    let (mut series, mut metrics) = (Vec::new(), Vec::new());
    let mut add = |from, name: &str, target: f64, per_replica: bool| {
        series.push(from);
        metrics.push(MetricSeries { name: name.to_owned(), target, per_replica, values: Vec::new() });
    };
    for (index, slot) in spec.scaled.iter().flat_map(|scaled| &scaled.slots).enumerate() {
        let from = slot.feed.as_ref().map_or(Series::Planned(index), Series::Feed);
        add(from, &slot.metric, units(slot.target.milli), slot.target.kind == TargetKind::AverageValue);
    }
    let own = spec.autoscaler.iter().flat_map(|autoscaler| &autoscaler.metrics).zip(&spec.origins);
    for (metric, origin) in own {
        let (Origin::Usage(feed, _) | Origin::Value(feed)) = origin else { continue };
        let target = match (metric.target, origin) {
            (hpa::spec::Target::Utilization(percent), Origin::Usage(_, Ok(requests))) => {
                units(*requests) * f64::from(percent) / 100.0
            }
            (hpa::spec::Target::AverageValue(milli) | hpa::spec::Target::Value(milli), _) => units(milli),
            _ => 0.0,
        };
        let per_replica = !matches!(metric.target, hpa::spec::Target::Value(_));
        add(Series::Feed(feed), name(&metric.source), target, per_replica);
    }
    if let Some(formula) = spec.scaled.as_ref().and_then(|scaled| scaled.formula.as_ref()) {
        let per_replica = formula.target_kind == TargetKind::AverageValue;
        add(Series::Composite, COMPOSITE, units(formula.target_milli), per_replica);
    }
    (series, metrics)
}

fn name(source: &hpa::spec::Source) -> &str {
    use hpa::spec::Source;
    match source {
        Source::Resource { resource } | Source::ContainerResource { resource, .. } => resource,
        Source::Pods { name } | Source::Object { name, .. } | Source::External { name, .. } => name,
        Source::Unknown(kind) => kind,
    }
}
