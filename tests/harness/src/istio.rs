//! An exporter of Istio's standard request metrics, whose traffic is turned up and down.
//!
//! Names, labels and buckets: Istio's "Standard Metrics" page (istio.io/latest/docs/reference/config/metrics) and
//! Envoy's default histogram buckets. As in a mesh, a request through the ingress gateway is counted twice: by the
//! gateway (`reporter="source"`) and by the sidecar of the workload (`reporter="destination"`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;

use crate::http::{self, Server};

/// Upper bounds in milliseconds (Envoy's defaults) with the share of requests at or below each that our pretended
/// workload reaches: a median of 10 ms and a tail up to 500 ms.
const DURATION_BUCKETS: [(&str, f64); 12] = [
    ("0.5", 0.0),
    ("1", 0.01),
    ("5", 0.2),
    ("10", 0.5),
    ("25", 0.8),
    ("50", 0.9),
    ("100", 0.96),
    ("250", 0.99),
    ("500", 1.0),
    ("1000", 1.0),
    ("2500", 1.0),
    ("+Inf", 1.0),
];

/// The mean that belongs to [`DURATION_BUCKETS`], in milliseconds.
const MEAN_DURATION: f64 = 22.0;

/// A running exporter.
#[derive(Debug)]
pub struct IstioExporter {
    server: Server,
    apps: Arc<Mutex<BTreeMap<String, Traffic>>>,
}

/// The requests to one app.
#[derive(Clone, Copy, Debug)]
struct Traffic {
    /// Counted by the gateway and by the sidecar until `since`.
    reports: (f64, f64),
    since: Instant,
    requests_per_second: f64,
}

impl IstioExporter {
    /// Starts it on a free loopback port.
    pub async fn start() -> Result<Self> {
        let apps = Arc::new(Mutex::new(BTreeMap::new()));
        let shown = Arc::clone(&apps);
        let server = Server::start((Ipv4Addr::LOCALHOST, 0).into(), move |_| {
            let page = exposition(&shown.lock().unwrap_or_else(PoisonError::into_inner));
            async move { http::answer(200, "text/plain; version=0.0.4", page) }
        })
        .await?;
        Ok(Self { server, apps })
    }

    /// Where Prometheus finds it.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// From now on `app` receives this many requests a second.
    pub fn set_rps(&self, app: &str, requests_per_second: f64) {
        self.change(app, |traffic| traffic.requests_per_second = requests_per_second);
    }

    /// Stops the traffic of `app` at exactly this sum over both reporters: `sum(istio_requests_total{
    /// destination_app="APP"})` is `total` once it is scraped.
    pub fn set_total(&self, app: &str, total: u32) {
        let gateway = total.div_ceil(2);
        let reports = (f64::from(gateway), f64::from(total - gateway));
        self.change(app, |traffic| {
            traffic.reports = reports;
            traffic.requests_per_second = 0.0;
        });
    }

    fn change(&self, app: &str, change: impl FnOnce(&mut Traffic)) {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let none = Traffic { reports: (0.0, 0.0), since: now, requests_per_second: 0.0 };
        let traffic = apps.entry(app.to_owned()).or_insert(none);
        traffic.reports = traffic.reports_at(now);
        traffic.since = now;
        change(traffic);
    }
}

impl Traffic {
    fn reports_at(&self, now: Instant) -> (f64, f64) {
        let more = self.requests_per_second * now.duration_since(self.since).as_secs_f64();
        (self.reports.0 + more, self.reports.1 + more)
    }
}

fn exposition(apps: &BTreeMap<String, Traffic>) -> String {
    let now = Instant::now();
    let series: Vec<(String, f64)> = apps
        .iter()
        .flat_map(|(app, traffic)| {
            let (gateway, sidecar) = traffic.reports_at(now);
            [(labels("source", app), gateway.floor()), (labels("destination", app), sidecar.floor())]
        })
        .collect();
    let mut page = String::from("# TYPE istio_requests_total counter\n");
    for (labels, requests) in &series {
        let _ = writeln!(page, "istio_requests_total{{{labels}}} {requests}");
    }
    page.push_str("# TYPE istio_request_duration_milliseconds histogram\n");
    for (labels, requests) in &series {
        for (bound, share) in DURATION_BUCKETS {
            let within = (requests * share).floor();
            let _ = writeln!(
                page,
                "istio_request_duration_milliseconds_bucket{{{labels},le=\"{bound}\"}} {within}"
            );
        }
        let _ = writeln!(
            page,
            "istio_request_duration_milliseconds_sum{{{labels}}} {}",
            requests * MEAN_DURATION
        );
        let _ = writeln!(page, "istio_request_duration_milliseconds_count{{{labels}}} {requests}");
    }
    page
}

/// The labels of a request from the ingress gateway to `app` in namespace `web`.
fn labels(reporter: &str, app: &str) -> String {
    [
        ("reporter", reporter),
        ("source_workload", "istio-ingressgateway"),
        ("source_workload_namespace", "istio-system"),
        (
            "source_principal",
            "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account",
        ),
        ("source_app", "istio-ingressgateway"),
        ("source_version", "unknown"),
        ("source_cluster", "Kubernetes"),
        ("destination_workload", app),
        ("destination_workload_namespace", "web"),
        ("destination_principal", &format!("spiffe://cluster.local/ns/web/sa/{app}")),
        ("destination_app", app),
        ("destination_version", "v1"),
        ("destination_service", &format!("{app}.web.svc.cluster.local")),
        ("destination_service_name", app),
        ("destination_service_namespace", "web"),
        ("destination_cluster", "Kubernetes"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("grpc_response_status", ""),
        ("response_flags", "-"),
        ("connection_security_policy", if reporter == "source" { "unknown" } else { "mutual_tls" }),
    ]
    .map(|(name, value)| format!("{name}=\"{value}\""))
    .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_is_the_sum_over_both_reporters() {
        let traffic = Traffic { reports: (13.0, 13.0), since: Instant::now(), requests_per_second: 0.0 };
        let page = exposition(&BTreeMap::from([("nginx".to_owned(), traffic)]));
        let counts: Vec<f64> = page
            .lines()
            .filter(|line| line.starts_with("istio_requests_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        assert_eq!(counts, [13.0, 13.0]);
        assert!(page.contains("le=\"+Inf\"} 13\n"), "{page}");
    }
}
