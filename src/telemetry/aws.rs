//! How long AWS takes to answer, under Cluster Autoscaler's name (`cloudprovider/aws/aws_metrics.go`).

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
    registry::Registry,
};

use crate::cloud::aws::client::OnRequest;

/// To the minute after which a call is given up; those of `aws_metrics.go`.
const BUCKETS: [f64; 17] =
    [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    endpoint: &'static str,
    status: String,
}

/// `cluster_autoscaler_aws_request_duration_seconds`.
#[derive(Debug, Clone)]
pub struct AwsRequests(Family<Labels, Histogram, fn() -> Histogram>);

impl Default for AwsRequests {
    /// None was made yet.
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(BUCKETS)))
    }
}

impl AwsRequests {
    /// Makes it part of `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "How long AWS took to answer, by action and what came of it";
        registry.register("cluster_autoscaler_aws_request_duration_seconds", help, self.0.clone());
    }

    /// What is to be told of every request.
    pub fn observer(&self) -> OnRequest {
        let family = self.0.clone();
        OnRequest::new(move |endpoint, status, took| {
            let labels = Labels { endpoint, status: status.to_owned() };
            family.get_or_create(&labels).observe(took.as_secs_f64());
        })
    }
}
