//! Trigger `prometheus` against the real Prometheus, which scrapes itself.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use scalers::{Cluster, Context, Error, Input, Reading};

/// Prometheus needs no cluster.
struct Nowhere;

#[async_trait]
impl Cluster for Nowhere {
    async fn count_pods(&self, _: &str, _: &str, _: bool) -> Result<i64, Error> {
        Err(Error::Cluster("there is no cluster".to_owned()))
    }

    async fn config_map_value(&self, _: &str, _: &str, _: &str) -> Result<Option<String>, Error> {
        Err(Error::Cluster("there is no cluster".to_owned()))
    }

    async fn secret_value(&self, _: &str, _: &str, _: &str) -> Result<Option<String>, Error> {
        Err(Error::Cluster("there is no cluster".to_owned()))
    }

    async fn service_endpoints(&self, _: &str, _: &str) -> Result<Vec<String>, Error> {
        Err(Error::Cluster("there is no cluster".to_owned()))
    }
}

/// A Prometheus that is stopped, and its folder removed, with the test.
struct Prometheus {
    process: Child,
    folder: PathBuf,
    address: String,
}

impl Prometheus {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let folder = std::env::temp_dir().join(format!("scalers-prometheus-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['{address}']}}]\n"
        );
        std::fs::write(folder.join("prometheus.yml"), config).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs `prometheus` on the PATH");
        Self { process, folder, address }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn read(prometheus: &Prometheus, query: &str, more: &[(&str, &str)]) -> Result<Reading, String> {
    let address = format!("http://{}", prometheus.address);
    let metadata = [("serverAddress", address.as_str()), ("query", query), ("threshold", "1")];
    let input = Input {
        trigger_type: "prometheus".to_owned(),
        metadata: metadata
            .iter()
            .chain(more)
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        ..Input::default()
    };
    let scaler = scalers::build(&input).unwrap();
    scaler
        .read(&Context::new(Arc::new(Nowhere)).unwrap(), "prometheus")
        .await
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn queries_are_answered_as_by_any_prometheus() {
    let prometheus = Prometheus::start();
    // It starts within a second and scrapes itself every second.
    let patience = Instant::now() + Duration::from_secs(30);
    let up = Ok(Reading { milli: 1000, active: true });
    while read(&prometheus, "sum(up)", &[]).await != up {
        assert!(Instant::now() < patience, "{:?}", read(&prometheus, "sum(up)", &[]).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (query, more, wanted) in [
        ("up", vec![], Ok((1000, true))),
        ("up * 2.5", vec![("activationThreshold", "2.5")], Ok((2500, false))),
        ("scalar(up) + 1", vec![], Ok((2000, true))),
        ("absent_metric", vec![], Ok((0, false))),
        ("absent_metric", vec![("ignoreNullValues", "false")], Err("the result is empty")),
        ("up / 0 * 0", vec![("ignoreNullValues", "false")], Err("prometheus query returns NaN")),
        ("go_gc_duration_seconds", vec![], Err("returned multiple elements")),
        ("sum(up", vec![], Err("status: 400 (invalid parameter \"query\"")),
        ("up[5m]", vec![], Err("prometheus query up[5m] returned")),
    ] {
        let got = read(&prometheus, query, &more).await;
        match wanted {
            Ok((milli, active)) => assert_eq!(got, Ok(Reading { milli, active }), "{query}"),
            Err(part) => {
                let error = got.unwrap_err();
                assert!(error.contains(part), "{query}: {error}");
            }
        }
    }
}
