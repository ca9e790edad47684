//! Scales on the number of pods that match a selector.

use async_trait::async_trait;
use scalers_derive::Metadata;

use crate::context::Context;
use crate::error::Error;
use crate::kind::{Example, Kind, Trigger};
use crate::metadata::{Finding, View};
use crate::names::normalize;
use crate::scaler::{Metric, Reading, Scaler, milli};

pub(crate) const KIND: Kind = Kind::of::<Parameters>(
    &["kubernetes-workload"],
    "The number of pods that match a label selector.\n\n\
     Counts the pods of the object's namespace that have not ended (neither Succeeded nor Failed), or the nodes they run \
     on.",
    Example { metadata: &[("podSelector", "app=backend, deploy notin (canary)"), ("value", "0.5")], metric_type: None },
);

#[derive(Debug, Metadata)]
struct Parameters {
    /// Label selector of the pods.
    pod_selector: String,
    /// Target; may be 0 only where a scaling formula uses the trigger.
    #[param(default = "0")]
    value: f64,
    /// The trigger is active above this.
    #[param(default = "0")]
    activation_value: f64,
    /// Count the nodes on which such pods run.
    #[param(default = "false")]
    group_by_node: bool,
}

/// A count of pods.
struct Workload {
    namespace: String,
    parameters: Parameters,
}

impl Trigger for Parameters {
    fn build(self, view: &mut View<'_>) -> Option<Box<dyn Scaler>> {
        if milli(self.value) == 0 && !view.input.as_metric_source {
            view.error(Finding::of("value", "value must be a float greater than 0"));
        }
        if let Err(problem) = crate::selector::check(&self.pod_selector) {
            view.error(Finding::of("podSelector", format!("error parsing pod selector: {problem}")));
        }
        Some(Box::new(Workload { namespace: view.input.namespace.clone(), parameters: self }))
    }
}

#[async_trait]
impl Scaler for Workload {
    async fn metrics(&self, _: &Context) -> Result<Vec<Metric>, Error> {
        let name = normalize(&format!("workload-{}", self.namespace));
        Ok(vec![Metric::External { name, target_milli: milli(self.parameters.value) }])
    }

    fn activation(&self) -> f64 {
        self.parameters.activation_value
    }

    async fn read(&self, cx: &Context, _: &str) -> Result<Reading, Error> {
        let Parameters { pod_selector, activation_value, group_by_node, .. } = &self.parameters;
        let count = cx.cluster.count_pods(&self.namespace, pod_selector, *group_by_node).await?;
        #[expect(clippy::cast_precision_loss, reason = "no cluster has 2^53 pods")]
        Ok(Reading::above(count as f64, *activation_value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, World, input};

    #[tokio::test]
    async fn pods_or_nodes_are_counted() {
        let key = |by_node| ("shop".to_owned(), "app=demo".to_owned(), by_node);
        let fixture =
            Fixture::of(World { pods: [(key(false), 7), (key(true), 2)].into(), ..World::default() });
        for (by_node, activation, milli, active) in
            [("false", "0", 7000, true), ("true", "0", 2000, true), ("true", "2", 2000, false)]
        {
            let metadata = [
                ("podSelector", "app=demo"),
                ("value", "2"),
                ("groupByNode", by_node),
                ("activationValue", activation),
            ];
            let scaler = crate::build(&input("kubernetes-workload", &metadata)).unwrap();
            let reading = scaler.read(&fixture.context, "workload-shop").await.unwrap();
            assert_eq!(reading, Reading { milli, active }, "by node {by_node}");
            let metrics = scaler.metrics(&fixture.context).await.unwrap();
            assert_eq!(metrics, [Metric::External { name: "workload-shop".to_owned(), target_milli: 2000 }]);
        }
    }

    #[test]
    fn metadata_is_refused_where_keda_refuses_it() {
        for (selector, value, fits) in [
            ("app=demo", "1", true),
            ("app in (demo1, demo2)", "0.5", true),
            ("app=demo", "0", false),
            ("app=demo", "-1", false),
            ("app=demo", "one", false),
            ("app=demo", "", false),
            ("", "1", false),
            ("app in (demo1", "1", false),
        ] {
            let built =
                crate::build(&input("kubernetes-workload", &[("podSelector", selector), ("value", value)]));
            assert_eq!(built.is_ok(), fits, "{selector:?} {value:?}");
        }
        let mut input = input("kubernetes-workload", &[("podSelector", "app=demo")]);
        input.as_metric_source = true;
        assert!(crate::build(&input).is_ok());
    }
}
