//! Scales on the CPU usage of the target's pods.

use crate::kind::{Example, Kind, Trigger};
use crate::metadata::{Metadata, Param, View};
use crate::resource::Parameters;
use crate::scaler::Scaler;

pub(crate) const KIND: Kind = Kind::of::<Cpu>(
    &["cpu"],
    "CPU usage of the target's pods, which the HPA controller reads by itself from metrics.k8s.io.\n\n\
     Needs `metricType`, counts as always active, and cannot bring a workload back from zero: that takes a second \
     trigger.",
    Example { metadata: &[("value", "60")], metric_type: Some("Utilization") },
)
.resource();

struct Cpu(Parameters);

impl Metadata for Cpu {
    const PARAMS: &'static [Param] = Parameters::PARAMS;

    fn read(view: &mut View<'_>) -> Option<Self> {
        Parameters::read(view).map(Self)
    }
}

impl Trigger for Cpu {
    fn build(self, view: &mut View<'_>) -> Option<Box<dyn Scaler>> {
        self.0.scaler("cpu", view)
    }
}
