//! `/metrics`: KEDA's names and labels (`pkg/metricscollector/prommetrics.go`), read from the sample store at each
//! scrape, so that a series lives exactly as long as its object and costs nothing between scrapes.

use std::{collections::BTreeMap, fmt, sync::Arc};

use kube::ResourceExt;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Registry,
};
use tandem_core::pods::annotations::Pause;

use crate::{cluster::Cluster, samples::SampleStore};

/// Content type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry with the process's collectors; other parts register theirs.
pub fn registry(cluster: Arc<Cluster>, samples: Arc<SampleStore>) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Objects { cluster, samples }));
    registry
}

/// `registry` in the text format that Prometheus scrapes, or why it cannot be encoded.
///
/// # Errors
/// A collector failed; that would be a fault of ours.
pub fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut out = String::new();
    prometheus_client::encoding::text::encode(&mut out, registry)?;
    Ok(out)
}

/// Everything that is known of objects.
struct Objects {
    cluster: Arc<Cluster>,
    samples: Arc<SampleStore>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Objects")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(non_snake_case, reason = "KEDA's label names")]
struct ScalerLabels {
    namespace: String,
    metric: String,
    scaledObject: String,
    scaler: String,
    triggerIndex: u64,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(non_snake_case, reason = "KEDA's label names")]
struct ObjectLabels {
    namespace: String,
    scaledObject: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoopLabels {
    namespace: String,
    r#type: &'static str,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct TypeLabels {
    r#type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ResourceLabels {
    r#type: &'static str,
    namespace: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    git_commit: &'static str,
    goversion: &'static str,
    goos: &'static str,
    goarch: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    namespace: String,
    scaled_resource: String,
    scaler: String,
    trigger_name: String,
    metric_name: String,
    status_code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(non_snake_case, reason = "KEDA's label names")]
struct EmptyLabels {
    namespace: String,
    scaledResource: String,
    triggerName: String,
    metricName: String,
    resourceType: &'static str,
    ignoreNullValues: &'static str,
}

/// The metrics of one external metric of one trigger.
struct ScalerSeries {
    labels: ScalerLabels,
    value: Option<f64>,
    latency: f64,
    active: bool,
    errors: u64,
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let build = BuildLabels {
            version: env!("CARGO_PKG_VERSION"),
            git_commit: option_env!("GIT_COMMIT").unwrap_or("unknown"),
            goversion: concat!("rust", env!("CARGO_PKG_RUST_VERSION")),
            goos: std::env::consts::OS,
            goarch: std::env::consts::ARCH,
        };
        gauges(&mut encoder, "keda_build_info", "Version of the running binary", [(build, 1.0)])?;
        let series = self.scaler_series();
        gauges(
            &mut encoder,
            "keda_scaler_metrics_value",
            "The value of each external metric, as the HPA sees it",
            series.iter().filter_map(|s| Some((s.labels.clone(), s.value?))),
        )?;
        gauges(
            &mut encoder,
            "keda_scaler_metrics_latency_seconds",
            "How long the source took to answer",
            series.iter().map(|s| (s.labels.clone(), s.latency)),
        )?;
        gauges(
            &mut encoder,
            "keda_scaler_active",
            "Whether the trigger is active (1) or not (0)",
            series.iter().map(|s| (s.labels.clone(), f64::from(u8::from(s.active)))),
        )?;
        counters(
            &mut encoder,
            "keda_scaler_detail_errors",
            "Queries that gave no value",
            series.iter().map(|s| (s.labels.clone(), s.errors)),
        )?;
        self.encode_traffic(&mut encoder)?;
        self.encode_objects(&mut encoder)?;
        self.encode_registered(&mut encoder)
    }
}

/// How often each of `labels` occurs.
fn count<L: Ord>(labels: impl IntoIterator<Item = L>) -> BTreeMap<L, f64> {
    let mut counts = BTreeMap::new();
    for labels in labels {
        *counts.entry(labels).or_default() += 1.0;
    }
    counts
}

/// An object as `keda_resource_registered_total` counts it; KEDA puts what has no namespace into `default`.
fn resource<K: ResourceExt>(r#type: &'static str, object: &K) -> ResourceLabels {
    let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
    ResourceLabels { r#type, namespace }
}

impl Objects {
    fn scaler_series(&self) -> Vec<ScalerSeries> {
        let mut all: Vec<_> = self
            .samples
            .all()
            .iter()
            .flat_map(|samples| {
                let series = samples.slots.iter().filter_map(|slot| {
                    let sample = slot.latest()?;
                    let reading = sample.result.as_ref().ok();
                    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
                    let value = reading.map(|reading| reading.milli as f64 / 1000.0);
                    Some(ScalerSeries {
                        labels: ScalerLabels {
                            namespace: samples.key.namespace.clone(),
                            metric: slot.metric.clone(),
                            scaledObject: samples.key.name.clone(),
                            scaler: samples.triggers[slot.trigger].trigger_type.clone(),
                            triggerIndex: slot.trigger as u64,
                            r#type: "scaledobject",
                        },
                        value,
                        latency: sample.latency.as_secs_f64(),
                        active: reading.is_some_and(|reading| reading.active),
                        errors: slot.errors(),
                    })
                });
                series.collect::<Vec<_>>()
            })
            .collect();
        all.sort_by(|a, b| {
            let key = |labels: &ScalerLabels| {
                (labels.namespace.clone(), labels.scaledObject.clone(), labels.triggerIndex)
            };
            key(&a.labels).cmp(&key(&b.labels))
        });
        all
    }

    fn encode_traffic(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let mut all = self.samples.all();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        let slots =
            || all.iter().flat_map(|samples| samples.slots.iter().map(move |slot| (&samples.key, slot)));
        let requests = slots().flat_map(|(key, slot)| {
            slot.traffic.requests().into_iter().map(move |(status_code, count)| {
                let labels = RequestLabels {
                    namespace: key.namespace.clone(),
                    scaled_resource: key.name.clone(),
                    scaler: slot.traffic.scaler().to_owned(),
                    trigger_name: slot.trigger_name.clone().unwrap_or_default(),
                    metric_name: slot.metric.clone(),
                    status_code,
                };
                (labels, count)
            })
        });
        counters(
            encoder,
            "keda_scaler_http_requests",
            "HTTP requests of the trigger to its source",
            requests,
        )?;
        let empty = slots().flat_map(|(key, slot)| {
            let counts = slot.traffic.empty().into_iter().filter(|(_, count)| *count > 0);
            counts.map(move |(ignored, count)| {
                let labels = EmptyLabels {
                    namespace: key.namespace.clone(),
                    scaledResource: key.name.clone(),
                    triggerName: slot.trigger_name.clone().unwrap_or_default(),
                    metricName: slot.metric.clone(),
                    resourceType: "scaledobject",
                    ignoreNullValues: if ignored { "true" } else { "false" },
                };
                (labels, count)
            })
        });
        counters(
            encoder,
            "keda_scaler_empty_upstream_responses",
            "Answers of the source without a value",
            empty,
        )
    }

    fn encode_objects(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let objects = self.cluster.scaled_objects.all();
        let labels = |object: &tandem_core::api::keda::ScaledObject| ObjectLabels {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            scaledObject: object.metadata.name.clone().unwrap_or_default(),
        };
        let none = BTreeMap::new();
        gauges(
            encoder,
            "keda_scaled_object_paused",
            "Whether the ScaledObject is paused (1) or not (0)",
            objects.iter().map(|object| {
                let pause = Pause::of(object.metadata.annotations.as_ref().unwrap_or(&none));
                (labels(object), f64::from(u8::from(pause.full)))
            }),
        )?;
        let all = self.samples.all();
        counters(
            encoder,
            "keda_scaled_object_errors",
            "Queries of the ScaledObject's triggers that gave no value",
            all.iter().map(|samples| {
                let labels = ObjectLabels {
                    namespace: samples.key.namespace.clone(),
                    scaledObject: samples.key.name.clone(),
                };
                (labels, samples.slots.iter().map(crate::samples::slot::Slot::errors).sum())
            }),
        )?;
        gauges(
            encoder,
            "keda_internal_scale_loop_latency_seconds",
            "How much later than planned the last poll started",
            all.iter().map(|samples| {
                let (namespace, resource) = (samples.key.namespace.clone(), samples.key.name.clone());
                (LoopLabels { namespace, r#type: "scaledobject", resource }, samples.delay().as_secs_f64())
            }),
        )
    }

    fn encode_registered(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let objects = self.cluster.scaled_objects.all();
        let jobs = self.cluster.scaled_jobs.all();
        let triggers = objects.iter().flat_map(|object| &object.spec.triggers);
        let triggers = triggers.chain(jobs.iter().flat_map(|job| &job.spec.triggers));
        let types = count(triggers.map(|trigger| TypeLabels { r#type: trigger.type_.clone() }));
        gauges(encoder, "keda_trigger_registered_total", "Triggers by type", types)?;
        let authentications = self.cluster.authentications.all();
        let cluster_wide = self.cluster.cluster_authentications.all();
        let resources = objects.iter().map(|it| resource("scaled_object", &**it));
        let resources = resources
            .chain(jobs.iter().map(|it| resource("scaled_job", &**it)))
            .chain(authentications.iter().map(|it| resource("trigger_authentication", &**it)))
            .chain(cluster_wide.iter().map(|it| resource("cluster_trigger_authentication", &**it)));
        gauges(encoder, "keda_resource_registered_total", "Objects by type and namespace", count(resources))
    }
}

/// A gauge of these labels and values.
///
/// # Errors
/// It cannot be encoded; that would be a fault of ours.
pub(crate) fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, f64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in series {
        ConstGauge::new(value).encode(family(&mut metric, &labels)?)?;
    }
    Ok(())
}

fn counters<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in series {
        let counter = prometheus_client::metrics::counter::ConstCounter::new(value);
        counter.encode(family(&mut metric, &labels)?)?;
    }
    Ok(())
}

fn family<'a, L: EncodeLabelSet>(
    metric: &'a mut MetricEncoder<'_>,
    labels: &'a L,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    metric.encode_family(labels)
}
