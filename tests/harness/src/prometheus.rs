//! A real Prometheus.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::network::free_address;
use crate::process::Process;
use crate::{components, wait};

/// Prometheus is ready 0.2 s after its start on an idle machine.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A Prometheus that scrapes every second. It can be stopped and started again at the same address.
#[derive(Debug)]
pub struct Prometheus {
    program: PathBuf,
    folder: PathBuf,
    name: String,
    address: SocketAddr,
    process: Option<Process>,
    http: reqwest::Client,
}

impl Prometheus {
    /// Starts one that scrapes `targets`, with its data in `<folder>/<name>`.
    pub async fn start(folder: &Path, name: &str, targets: &[SocketAddr]) -> Result<Self> {
        let mut prometheus = Self {
            program: components::prometheus()?,
            folder: folder.to_owned(),
            name: name.to_owned(),
            address: free_address()?,
            process: None,
            http: reqwest::Client::builder().no_proxy().build()?,
        };
        fs::create_dir_all(prometheus.data())?;
        prometheus.write_configuration(targets)?;
        prometheus.resume().await?;
        Ok(prometheus)
    }

    /// `http://ADDRESS`, for a trigger's `serverAddress`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops it; connections to its address are refused from now on.
    pub async fn stop(&mut self) -> Result<()> {
        let process = self.process.take().context("prometheus is not running")?;
        process.stop().await?;
        Ok(())
    }

    /// Starts it again at the same address with the same data.
    pub async fn resume(&mut self) -> Result<()> {
        let arguments = vec![
            format!("--config.file={}", self.configuration().display()),
            format!("--storage.tsdb.path={}", self.data().display()),
            format!("--web.listen-address={}", self.address),
        ];
        let mut process =
            Process::start(&self.name, &self.folder.join("logs"), &self.program, arguments, Vec::new())
                .await?;
        let ready = format!("{}/-/ready", self.url());
        process
            .wait_until_ready(READY_TIMEOUT, || async {
                self.http.get(&ready).send().await?.error_for_status()?;
                Ok(())
            })
            .await?;
        self.process = Some(process);
        Ok(())
    }

    /// What an instant query answers: the value of its one series, nothing if it has none.
    pub async fn query(&self, promql: &str) -> Result<Option<f64>> {
        let request = self.http.get(format!("{}/api/v1/query", self.url())).query(&[("query", promql)]);
        let answer: serde_json::Value = request.send().await?.error_for_status()?.json().await?;
        let series = answer["data"]["result"].as_array().context("no result in Prometheus' answer")?;
        match series.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one["value"][1].as_str().context("no value in Prometheus' answer")?.parse()?)),
            many => bail!("{promql} has {} series", many.len()),
        }
    }

    /// Waits until an instant query answers `value`.
    pub async fn wait_for(&self, promql: &str, value: f64) -> Result<()> {
        wait::until(&format!("{promql} to be {value}"), READY_TIMEOUT, || async {
            let seen = self.query(promql).await?;
            ensure!(seen.is_some_and(|seen| (seen - value).abs() < 1e-9), "it is {seen:?}");
            Ok(())
        })
        .await
    }

    fn data(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join(format!("{}.yaml", self.name))
    }

    fn write_configuration(&self, targets: &[SocketAddr]) -> Result<()> {
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let configuration = serde_json::json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s" },
            "scrape_configs": [{ "job_name": "istio", "static_configs": [{ "targets": targets }] }],
        });
        // JSON is YAML.
        fs::write(self.configuration(), configuration.to_string())?;
        Ok(())
    }
}
