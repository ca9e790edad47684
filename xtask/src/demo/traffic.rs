//! The requests that the demo pretends, wherever they are counted.

use anyhow::Result;
use harness::{IstioExporter, Kubectl};

/// An exporter of Istio's request metrics.
pub(crate) enum Traffic {
    /// In this process.
    Here(IstioExporter),
    /// In the user's cluster (`cluster.yaml`).
    InCluster(Kubectl),
}

impl Traffic {
    /// From now on `app` receives this many requests a second.
    pub(crate) async fn set_rps(&self, app: &str, rps: f64) -> Result<()> {
        match self {
            Self::Here(exporter) => exporter.set_rps(app, rps),
            Self::InCluster(kubectl) => {
                let write = format!("echo {} > /state/{app}.rps", rps.round());
                let pod = ["-n", "monitoring", "exec", "deployment/istio-exporter", "--", "sh", "-c", &write];
                kubectl.run(&pod, "").await?;
            }
        }
        Ok(())
    }
}
