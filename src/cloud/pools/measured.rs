//! A provider whose calls are counted, under Karpenter's names (core, `pkg/cloudprovider/metrics`; aws,
//! `pkg/providers/instance/metrics.go`).

use std::{collections::BTreeMap, fmt, sync::Arc, time::Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tandem_core::{
    api::karpenter::{EC2NodeClass, NodeClaim},
    nodes::pools::{
        instance_type::{InstanceType, Offering},
        requirements::WellKnownLabels,
    },
};

use super::{Class, ClassKind, ClassState, LaunchError, Launched, Machine, PoolProvider};
use crate::{cloud::CloudError, telemetry::metrics::gauges};

/// From a millisecond to a minute.
const BUCKETS: [f64; 9] = [0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];

tokio::task_local! {
    /// Who calls.
    static CONTROLLER: &'static str;
}

/// Does something in the name of one of Karpenter's controllers: its calls are counted as theirs.
pub async fn as_controller<T>(name: &'static str, work: impl Future<Output = T>) -> T {
    CONTROLLER.scope(name, work).await
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Called {
    controller: &'static str,
    method: &'static str,
    provider: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    controller: &'static str,
    method: &'static str,
    provider: &'static str,
    error: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfType {
    instance_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOffering {
    instance_type: String,
    capacity_type: String,
    zone: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaunchFailed {
    zone: String,
    zone_id: String,
    capacity_type: &'static str,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfZone {
    zone: String,
    zone_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfClass {
    nodeclass: String,
}

/// Instance types by node class.
type Told = Arc<Mutex<BTreeMap<String, Arc<[Arc<InstanceType>]>>>>;

/// What a provider answered, and how long it took.
#[derive(Debug, Clone)]
pub struct Calls {
    durations: Family<Called, Histogram, fn() -> Histogram>,
    errors: Family<Failed, Counter>,
    launches: Family<LaunchFailed, Counter>,
    terminations: Family<OfZone, Counter>,
    user_data: Family<OfClass, Gauge>,
    /// The types that it last told of, by node class.
    types: Told,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            errors: Family::default(),
            launches: Family::default(),
            terminations: Family::default(),
            user_data: Family::default(),
            types: Arc::default(),
        }
    }
}

impl Calls {
    /// Makes them part of `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "How long the provider of machines took to answer";
        registry.register("karpenter_cloudprovider_duration_seconds", help, self.durations.clone());
        let help = "What the provider of machines refused or could not do";
        registry.register("karpenter_cloudprovider_errors", help, self.errors.clone());
        let help = "Offerings that a launch could not be had of, and why";
        registry.register("karpenter_cloudprovider_instance_launch_failures", help, self.launches.clone());
        let help = "Machines that could not be terminated";
        registry.register(
            "karpenter_cloudprovider_instance_termination_failures",
            help,
            self.terminations.clone(),
        );
        let help = "Bytes of the user data that machines of a node class were last launched with";
        registry.register("karpenter_ec2nodeclasses_userdata_bytes", help, self.user_data.clone());
        registry.register_collector(Box::new(Types(self.types.clone())));
    }

    /// A launch had nothing of an offering, for this reason; what is not known of the zone is empty.
    pub fn launch_failed(&self, zone: &str, zone_id: &str, capacity_type: &'static str, reason: &str) {
        let (zone, zone_id, reason) = (zone.to_owned(), zone_id.to_owned(), reason.to_owned());
        self.launches.get_or_create(&LaunchFailed { zone, zone_id, capacity_type, reason }).inc();
    }

    /// A machine could not be terminated.
    pub fn termination_failed(&self, zone: &str, zone_id: &str) {
        let labels = OfZone { zone: zone.to_owned(), zone_id: zone_id.to_owned() };
        self.terminations.get_or_create(&labels).inc();
    }

    /// Machines of a node class are launched with so many bytes of user data.
    pub fn user_data(&self, class: &str, bytes: usize) {
        let labels = OfClass { nodeclass: class.to_owned() };
        self.user_data.get_or_create(&labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A node class is gone.
    fn class_gone(&self, class: &str) {
        self.user_data.remove(&OfClass { nodeclass: class.to_owned() });
        self.types.lock().remove(class);
    }
}

/// Karpenter's name of an error; empty for those that it has none for.
fn name(error: &CloudError) -> &'static str {
    match error {
        CloudError::NotFound(_) => "NodeClaimNotFoundError",
        CloudError::OutOfCapacity { .. } => "InsufficientCapacityError",
        CloudError::Configuration { .. } => "NodeClassNotReadyError",
        _ => "",
    }
}

/// A provider, and where its calls are counted.
pub struct Measured {
    /// The one that does it.
    pub provider: Arc<dyn PoolProvider>,
    /// What is counted.
    pub calls: Calls,
}

impl Measured {
    async fn call<T, E>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, E>>,
        error: impl Fn(&E) -> &CloudError,
    ) -> Result<T, E> {
        let (started, provider) = (Instant::now(), self.provider.name());
        let controller = CONTROLLER.try_with(|name| *name).unwrap_or_default();
        let result = call.await;
        let took = started.elapsed().as_secs_f64();
        self.calls.durations.get_or_create(&Called { controller, method, provider }).observe(took);
        if let Err(failed) = &result {
            let error = name(error(failed));
            self.calls.errors.get_or_create(&Failed { controller, method, provider, error }).inc();
        }
        result
    }
}

fn own(error: &CloudError) -> &CloudError {
    error
}

#[async_trait]
impl PoolProvider for Measured {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    fn kinds(&self) -> &'static [ClassKind] {
        self.provider.kinds()
    }

    fn well_known(&self) -> &WellKnownLabels {
        self.provider.well_known()
    }

    fn classes(&self) -> Vec<Class> {
        self.provider.classes()
    }

    fn node_classes(&self) -> Vec<Arc<EC2NodeClass>> {
        self.provider.node_classes()
    }

    async fn class_state(&self, class: &Class) -> Result<ClassState, CloudError> {
        self.call("NodeClass", self.provider.class_state(class), own).await
    }

    async fn tidy_class(&self, class: &Class, claims: &[Arc<NodeClaim>]) -> Result<(), CloudError> {
        self.call("NodeClass", self.provider.tidy_class(class, claims), own).await
    }

    async fn end_class(&self, class: &Class) -> Result<(), CloudError> {
        self.call("NodeClass", self.provider.end_class(class), own).await?;
        self.calls.class_gone(&class.reference.name);
        Ok(())
    }

    async fn instance_types(&self, class: &Class) -> Result<Arc<[Arc<InstanceType>]>, CloudError> {
        let types = self.call("GetInstanceTypes", self.provider.instance_types(class), own).await?;
        self.calls.types.lock().insert(class.reference.name.clone(), types.clone());
        Ok(types)
    }

    async fn create(
        &self,
        claim: &NodeClaim,
        class: &Class,
        types: &[Arc<InstanceType>],
    ) -> Result<Launched, LaunchError> {
        self.call("Create", self.provider.create(claim, class, types), |failed| &failed.error).await
    }

    async fn delete(&self, provider_id: &str) -> Result<(), CloudError> {
        self.call("Delete", self.provider.delete(provider_id), own).await
    }

    async fn list(&self) -> Result<Vec<Machine>, CloudError> {
        self.call("List", self.provider.list(), own).await
    }

    async fn drifted(&self, claim: &NodeClaim, class: &Class) -> Result<Option<&'static str>, CloudError> {
        self.call("IsDrifted", self.provider.drifted(claim, class), own).await
    }
}

/// Instance types and their offerings, as the provider last told of them.
#[derive(Debug)]
struct Types(Told);

impl Collector for Types {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let classes = self.0.lock().clone();
        // What classes share is shown once.
        let types: BTreeMap<_, _> =
            classes.values().flat_map(|types| types.iter()).map(|it| (it.name.clone(), it)).collect();
        let of = |it: &InstanceType| OfType { instance_type: it.name.to_string() };
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        let cores = types.values().map(|it| (of(it), it.capacity.cpu as f64 / 1000.0));
        let prefix = "karpenter_cloudprovider_instance_type";
        gauges(&mut encoder, &format!("{prefix}_cpu_cores"), "Cores of an instance type", cores)?;
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        let memory = types.values().map(|it| (of(it), it.capacity.memory as f64));
        gauges(&mut encoder, &format!("{prefix}_memory_bytes"), "Memory of an instance type", memory)?;
        let mut offerings: BTreeMap<_, &Offering> = BTreeMap::new();
        for (it, offering) in types.values().flat_map(|it| it.offerings.iter().map(move |of| (it, of))) {
            let (zone, capacity) = (offering.zone().unwrap_or_default(), offering.capacity_type());
            offerings.entry((it.name.as_ref(), capacity.unwrap_or_default(), zone)).or_insert(offering);
        }
        let labels = |(instance_type, capacity_type, zone): &(&str, &str, &str)| OfOffering {
            instance_type: (*instance_type).to_owned(),
            capacity_type: (*capacity_type).to_owned(),
            zone: (*zone).to_owned(),
        };
        let available = offerings.iter().map(|(key, of)| (labels(key), f64::from(u8::from(of.available))));
        let help = "Whether an instance type can be had";
        gauges(&mut encoder, &format!("{prefix}_offering_available"), help, available)?;
        let prices = offerings.iter().map(|(key, of)| (labels(key), of.price));
        let help = "Dollars an hour of an instance type";
        gauges(&mut encoder, &format!("{prefix}_offering_price_estimate"), help, prices)
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::{
        api::karpenter::NodeClassReference,
        nodes::pools::requirements::{Requirements, labels},
        scheduling::Resources,
    };

    use super::*;
    use crate::telemetry::metrics::text;

    #[derive(Default)]
    struct Live(WellKnownLabels);

    fn named(name: &str) -> NodeClassReference {
        NodeClassReference { name: name.to_owned(), ..NodeClassReference::default() }
    }

    fn a_type() -> InstanceType {
        let labels = [(labels::ZONE, "a"), (labels::CAPACITY_TYPE, labels::SPOT)];
        let labels: BTreeMap<_, _> =
            labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let requirements = Requirements::of_labels(&labels);
        let offering = Offering { requirements, price: 0.5, available: true, reservation: None };
        let capacity = Resources { cpu: 2000, memory: 4 << 30, ..Resources::default() };
        InstanceType::new("m5.large", Requirements::default(), capacity, Resources::default(), vec![offering])
    }

    #[async_trait]
    impl PoolProvider for Live {
        fn name(&self) -> &'static str {
            "live"
        }

        fn kinds(&self) -> &'static [ClassKind] {
            &[]
        }

        fn well_known(&self) -> &WellKnownLabels {
            &self.0
        }

        fn classes(&self) -> Vec<Class> {
            Vec::new()
        }

        async fn class_state(&self, _: &Class) -> Result<ClassState, CloudError> {
            Ok(ClassState::default())
        }

        async fn instance_types(&self, _: &Class) -> Result<Arc<[Arc<InstanceType>]>, CloudError> {
            Ok([Arc::new(a_type())].into())
        }

        async fn create(
            &self,
            _: &NodeClaim,
            _: &Class,
            _: &[Arc<InstanceType>],
        ) -> Result<Launched, LaunchError> {
            let (code, message) = ("code".to_owned(), "none left".to_owned());
            Err(CloudError::OutOfCapacity { code, message }.into())
        }

        async fn delete(&self, provider_id: &str) -> Result<(), CloudError> {
            Err(CloudError::NotFound(provider_id.to_owned()))
        }

        async fn list(&self) -> Result<Vec<Machine>, CloudError> {
            Ok(Vec::new())
        }

        async fn drifted(&self, _: &NodeClaim, _: &Class) -> Result<Option<&'static str>, CloudError> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn calls_and_instance_types_are_shown() {
        let calls = Calls::default();
        let mut registry = Registry::default();
        calls.register(&mut registry);
        let measured = Measured { provider: Arc::new(Live::default()), calls: calls.clone() };
        let class = Class::default();
        let types = as_controller("provisioner", measured.instance_types(&class)).await.unwrap();
        as_controller("nodeclaim.lifecycle", async {
            assert!(measured.create(&NodeClaim::default(), &class, &types).await.is_err());
            assert!(measured.delete("i-1").await.is_err());
        })
        .await;
        assert!(measured.list().await.is_ok());
        calls.launch_failed("a", "", "spot", "InsufficientInstanceCapacity");
        calls.termination_failed("a", "use1-az1");
        calls.user_data("default", 300);
        let text = text(&registry).unwrap();
        for line in [
            r#"karpenter_cloudprovider_duration_seconds_count{controller="provisioner",method="GetInstanceTypes",provider="live"} 1"#,
            r#"karpenter_cloudprovider_duration_seconds_count{controller="nodeclaim.lifecycle",method="Create",provider="live"} 1"#,
            r#"karpenter_cloudprovider_duration_seconds_count{controller="",method="List",provider="live"} 1"#,
            r#"karpenter_cloudprovider_errors_total{controller="nodeclaim.lifecycle",method="Create",provider="live",error="InsufficientCapacityError"} 1"#,
            r#"karpenter_cloudprovider_errors_total{controller="nodeclaim.lifecycle",method="Delete",provider="live",error="NodeClaimNotFoundError"} 1"#,
            r#"karpenter_cloudprovider_instance_launch_failures_total{zone="a",zone_id="",capacity_type="spot",reason="InsufficientInstanceCapacity"} 1"#,
            r#"karpenter_cloudprovider_instance_termination_failures_total{zone="a",zone_id="use1-az1"} 1"#,
            r#"karpenter_ec2nodeclasses_userdata_bytes{nodeclass="default"} 300"#,
            r#"karpenter_cloudprovider_instance_type_cpu_cores{instance_type="m5.large"} 2.0"#,
            r#"karpenter_cloudprovider_instance_type_offering_available{instance_type="m5.large",capacity_type="spot",zone="a"} 1.0"#,
            r#"karpenter_cloudprovider_instance_type_offering_price_estimate{instance_type="m5.large",capacity_type="spot",zone="a"} 0.5"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        measured.end_class(&Class { reference: named("default"), ..Class::default() }).await.unwrap();
        assert!(!self::text(&registry).unwrap().contains(r#"nodeclass="default""#), "the class is gone");
    }
}
