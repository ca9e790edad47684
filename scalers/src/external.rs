//! Scales on what a gRPC server of the user's says.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use scalers_derive::Metadata;
use tonic::transport::Channel;

use crate::channels::{Target, Tls, classify};
use crate::context::Context;
use crate::error::Error;
use crate::externalscaler::{
    GET_METRIC_SPEC, GET_METRICS, GetMetricSpecResponse, GetMetricsRequest, IS_ACTIVE, Method, MetricSpec,
    MetricValue, ScaledObjectRef,
};
use crate::input::Secret;
use crate::kind::{Example, Kind, Trigger};
use crate::metadata::{Finding, View};
use crate::scaler::{Metric, Reading, Scaler, milli};

pub(crate) const KIND: Kind = Kind::of::<Parameters>(
    &["external"],
    "What a gRPC server says: names and targets of metrics, their values, and whether the trigger is active.\n\n\
     The server implements `externalscaler.ExternalScaler` of `proto/externalscaler.proto`. All of the trigger's \
     metadata is handed to it.",
    Example { metadata: &[("scalerAddress", "scaler.shop:6000"), ("queue", "orders")], metric_type: None },
)
.open();

/// Parameters of `external` and `external-push`.
#[derive(Debug, Metadata)]
pub(crate) struct Parameters {
    /// `host:port` of the server.
    scaler_address: String,
    /// Speak TLS; implied by `caCert` and `tlsClientCert`.
    #[param(name = "enableTLS", default = "false")]
    enable_tls: bool,
    /// Do not verify the server's certificate.
    #[param(default = "false")]
    unsafe_ssl: bool,
    /// PEM bundle of the authorities that sign the server's certificate, instead of the system's.
    #[param(from = "auth")]
    ca_cert: Option<Secret>,
    /// PEM client certificate.
    #[param(from = "auth")]
    tls_client_cert: Option<Secret>,
    /// PEM private key of the client certificate.
    #[param(from = "auth")]
    tls_client_key: Option<Secret>,
}

/// A server that is asked about one object.
pub(crate) struct External {
    pub(crate) target: Target,
    /// What the server is told with every call.
    pub(crate) object: ScaledObjectRef,
    timeout: Duration,
    channel: OnceLock<Arc<Channel>>,
}

impl Trigger for Parameters {
    fn build(self, view: &mut View<'_>) -> Option<Box<dyn Scaler>> {
        let external: External = self.external(view)?;
        Some(Box::new(external))
    }
}

impl Parameters {
    pub(crate) fn external(self, view: &mut View<'_>) -> Option<External> {
        if self.tls_client_cert.is_some() != self.tls_client_key.is_some() {
            let message = "tlsClientCert and tlsClientKey belong together, only one is given and has no effect";
            view.warn(Finding::of("tlsClientCert", message));
        }
        let identity = self.tls_client_cert.zip(self.tls_client_key);
        let wanted = self.enable_tls || self.ca_cert.is_some() || identity.is_some();
        let tls = wanted.then(|| Tls { unverified: self.unsafe_ssl, ca: self.ca_cert, identity });
        let Some(target) = Target::parse(&self.scaler_address, tls) else {
            let message = format!("scalerAddress {:?} is not the address of a gRPC server", self.scaler_address);
            view.error(Finding::of("scalerAddress", message).hint("host:port, e.g. \"scaler.shop:6000\""));
            return None;
        };
        let input = view.input;
        let object = ScaledObjectRef {
            name: input.object_name.clone(),
            namespace: input.namespace.clone(),
            scaler_metadata: metadata(&input.metadata, &input.resolved_env),
        };
        Some(External { target, object, timeout: input.http_timeout(), channel: OnceLock::new() })
    }
}

/// The trigger's metadata; what ends in `FromEnv` with the value of the variable, or not at all (KEDA,
/// `pkg/scalers/external_scaler.go`).
fn metadata(written: &BTreeMap<String, String>, env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let value = |key: &String, value: &String| {
        if key.ends_with("FromEnv") {
            env.get(value).filter(|value| !value.is_empty()).cloned()
        } else {
            Some(value.clone())
        }
    };
    written.iter().filter_map(|(key, text)| Some((key.clone(), value(key, text)?))).collect()
}

impl External {
    pub(crate) fn channel(&self, cx: &Context) -> Result<Channel, Error> {
        if let Some(channel) = self.channel.get() {
            return Ok(Channel::clone(channel));
        }
        let made = cx.channels.get(&self.target, self.timeout)?;
        Ok(Channel::clone(self.channel.get_or_init(|| made)))
    }

    async fn call<Q, A>(&self, cx: &Context, method: &Method<Q, A>, message: Q) -> Result<A, Error>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let channel = self.channel(cx)?;
        let call = async {
            match method.call(channel.clone(), message.clone()).await {
                // A channel tells how its last attempt to connect ended before it makes another.
                Err(status) if status.source().is_some() => method.call(channel, message).await,
                answer => answer,
            }
        };
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer.map_err(|status| classify(&status, &self.target, method.name)),
            Err(_) => Err(Error::Timeout { address: self.target.address(), timeout: self.timeout }),
        }
    }
}

#[async_trait]
impl Scaler for External {
    async fn metrics(&self, cx: &Context) -> Result<Vec<Metric>, Error> {
        self.call(cx, &GET_METRIC_SPEC, self.object.clone()).await.map(metrics)
    }

    async fn read(&self, cx: &Context, metric: &str) -> Result<Reading, Error> {
        let request = GetMetricsRequest {
            scaled_object_ref: Some(self.object.clone()),
            metric_name: metric.to_owned(),
        };
        let (values, active) = tokio::try_join!(
            self.call(cx, &GET_METRICS, request),
            self.call(cx, &IS_ACTIVE, self.object.clone()),
        )?;
        if values.metric_values.is_empty() {
            let address = self.target.address();
            let message = format!("the external scaler at {address} returned no value for metric {metric}");
            return Err(Error::Answer(message));
        }
        // The HPA adds up the values of a metric.
        let total: f64 = values.metric_values.iter().map(value).sum();
        Ok(Reading { milli: milli(total), active: active.result })
    }
}

/// The float wins when it is above 0, as in KEDA.
#[expect(clippy::cast_precision_loss, reason = "metrics are floats in the end")]
fn value(value: &MetricValue) -> f64 {
    if value.metric_value_float > 0.0 { value.metric_value_float } else { value.metric_value as f64 }
}

pub(crate) fn metrics(answer: GetMetricSpecResponse) -> Vec<Metric> {
    let target = |spec: &MetricSpec| match spec.target_size_float {
        float if float > 0.0 => milli(float),
        _ => spec.target_size.saturating_mul(1000),
    };
    let metric = |spec: MetricSpec| Metric::External { target_milli: target(&spec), name: spec.metric_name };
    answer.metric_specs.into_iter().map(metric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Input;
    use crate::testing::{Fixture, input};
    use crate::testing_grpc::Fake;

    fn trigger(address: &str, more: &[(&str, &str)]) -> Input {
        let mut metadata = vec![("scalerAddress", address), ("queue", "orders"), ("passwordFromEnv", "PASSWORD")];
        metadata.extend(more);
        let mut input = input("external", &metadata);
        input.resolved_env = [("PASSWORD".to_owned(), "hunter2".to_owned())].into();
        input
    }

    #[tokio::test]
    async fn metrics_and_values_come_from_the_server() {
        let fake = Fake::start().await;
        fake.specs(&[("depth", 5, 0.0), ("lag", 5, 2.5)]);
        let scaler = crate::build(&trigger(&fake.address, &[])).unwrap();
        let fixture = Fixture::new();
        let metrics = scaler.metrics(&fixture.context).await.unwrap();
        let wanted = [("depth", 5_000), ("lag", 2_500)]
            .map(|(name, target_milli)| Metric::External { name: name.to_owned(), target_milli });
        assert_eq!(metrics, wanted);
        for (values, active, milli) in [
            (vec![(7, 0.0)], true, 7_000),
            (vec![(7, 1.25)], false, 1_250),
            (vec![(1, 0.0), (0, 0.5)], true, 1_500),
            (vec![(-4, 0.0)], true, 0),
        ] {
            fake.values(&values);
            fake.active(active);
            let reading = scaler.read(&fixture.context, "depth").await.unwrap();
            assert_eq!(reading, Reading { milli, active }, "{values:?}");
        }
        let asked = fake.asked();
        assert_eq!(asked.metric_name, "depth");
        let object = asked.scaled_object_ref.unwrap();
        assert_eq!((object.name.as_str(), object.namespace.as_str()), ("web", "shop"));
        let metadata: Vec<_> =
            object.scaler_metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            metadata,
            [("passwordFromEnv", "hunter2"), ("queue", "orders"), ("scalerAddress", fake.address.as_str())]
        );
    }

    #[tokio::test]
    async fn failures_say_where_and_what() {
        let fixture = Fixture::new();
        let fake = Fake::start().await;
        let scaler = crate::build(&trigger(&fake.address, &[])).unwrap();
        let address = &fake.address;
        let error = scaler.read(&fixture.context, "depth").await.unwrap_err().to_string();
        assert_eq!(error, format!("the external scaler at {address} returned no value for metric depth"));
        fake.refuse(tonic::Status::internal("no queue"));
        let error = scaler.metrics(&fixture.context).await.unwrap_err().to_string();
        assert_eq!(error, format!("GetMetricSpec of the external scaler at {address} answered Internal: no queue"));
        fake.refuse(tonic::Status::unimplemented(""));
        let error = scaler.metrics(&fixture.context).await.unwrap_err().to_string();
        assert_eq!(error, format!("the external scaler at {address} does not implement GetMetricSpec"));
    }

    #[tokio::test]
    async fn a_server_that_is_gone_is_found_again() {
        let fixture = Fixture::new();
        let fake = Fake::start().await;
        fake.values(&[(7, 0.0)]);
        let address = fake.address.clone();
        let scaler = crate::build(&trigger(&address, &[])).unwrap();
        assert!(scaler.read(&fixture.context, "depth").await.is_ok());
        fake.stop().await;
        let error = scaler.read(&fixture.context, "depth").await.unwrap_err();
        assert_eq!(error.reason(), "unreachable", "{error}");
        let fake = Fake::start_at(&address).await;
        fake.values(&[(8, 0.0)]);
        assert_eq!(scaler.read(&fixture.context, "depth").await.unwrap().milli, 8_000);
    }

    #[tokio::test]
    async fn tls_is_verified_unless_told_otherwise() {
        let fixture = Fixture::new();
        let fake = Fake::start_tls().await;
        fake.values(&[(7, 0.0)]);
        let read = async |metadata: &[(&str, &str)], auth: &[(&str, &str)]| {
            let input = trigger(&fake.address, metadata).with_auth(auth);
            let reading = crate::build(&input).unwrap().read(&fixture.context, "depth").await;
            reading.map(|reading| reading.milli).map_err(|error| error.to_string())
        };
        let ca = fake.ca.clone().unwrap();
        assert_eq!(read(&[], &[("caCert", &ca)]).await, Ok(7_000));
        assert_eq!(read(&[("enableTLS", "true"), ("unsafeSsl", "true")], &[]).await, Ok(7_000));
        let error = read(&[("enableTLS", "true")], &[]).await.unwrap_err();
        assert!(error.contains("signed by an unknown authority"), "{error}");
        let error = read(&[], &[("caCert", "no pem")]).await.unwrap_err();
        assert!(error.contains(&fake.address), "{error}");
        let error = read(&[], &[]).await.unwrap_err();
        assert!(error.starts_with(&format!("cannot reach {}: ", fake.address)), "{error}");
    }

    #[test]
    fn metadata_is_refused_where_it_cannot_work() {
        for (address, auth, fits) in [
            ("myservice", vec![], true),
            ("myservice:6000", vec![("tlsClientCert", "c"), ("tlsClientKey", "k")], true),
            ("myservice:6000", vec![("tlsClientCert", "c")], true),
            ("", vec![], false),
            ("unix:///x", vec![], false),
        ] {
            assert_eq!(crate::build(&trigger(address, &[]).with_auth(&auth)).is_ok(), fits, "{address:?} {auth:?}");
        }
        let findings = crate::check(&trigger("s:1", &[("anything", "goes")]), crate::Offline::default());
        assert_eq!(findings, crate::Findings::default());
    }
}
