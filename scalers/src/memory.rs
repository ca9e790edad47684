//! Scales on the memory usage of the target's pods.

use crate::kind::{Example, Kind, Trigger};
use crate::metadata::{Metadata, Param, View};
use crate::resource::Parameters;
use crate::scaler::Scaler;

pub(crate) const KIND: Kind = Kind::of::<Memory>(
    &["memory"],
    "Memory usage of the target's pods, which the HPA controller reads by itself from metrics.k8s.io.\n\n\
     Needs `metricType`, counts as always active, and cannot bring a workload back from zero: that takes a second \
     trigger.",
    Example { metadata: &[("value", "500Mi")], metric_type: Some("AverageValue") },
)
.resource();

struct Memory(Parameters);

impl Metadata for Memory {
    const PARAMS: &'static [Param] = Parameters::PARAMS;

    fn read(view: &mut View<'_>) -> Option<Self> {
        Parameters::read(view).map(Self)
    }
}

impl Trigger for Memory {
    fn build(self, view: &mut View<'_>) -> Option<Box<dyn Scaler>> {
        self.0.scaler("memory", view)
    }
}
