//! The manifest that users of KEDA have, unchanged, on Istio's request metric.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::case::{Case, SOON};
use harness::wait;

/// Applied as it is, save the address of Prometheus.
const MANIFEST: &str = r#"
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: nginx, namespace: web}
spec:
  scaleTargetRef: {kind: Deployment, name: nginx}
  minReplicaCount: 1
  maxReplicaCount: 10
  cooldownPeriod: 30
  pollingInterval: 1
  triggers:
  - type: prometheus
    metadata:
      serverAddress: http://prometheus-operated.monitoring:9090
      metricName: istio_requests_total_keda
      query: |
        sum(istio_requests_total{destination_app="nginx"})
      threshold: "10"
"#;

const QUERY: &str = r#"sum(istio_requests_total{destination_app="nginx"})"#;

/// In namespace `web`.
pub(crate) async fn manifest_as_users_have_it(web: &Case<'_>) -> Result<()> {
    let world = web.world;
    world.istio.set_total("nginx", 26);
    world.prometheus.wait_for(QUERY, 26.0).await?;
    web.deployment("nginx", 1).await?;

    let mut manifest: Value = serde_saphyr::from_str(MANIFEST)?;
    manifest["spec"]["triggers"][0]["metadata"]["serverAddress"] = world.prometheus.url().into();
    let printed = web.kubectl_apply(&manifest).await?;
    ensure!(printed.contains("scaledobject.keda.sh/nginx created"), "{printed}");
    ensure!(
        printed.contains("Warning:") && printed.contains("rate("),
        "no warning about the raw counter: {printed}"
    );
    ensure!(printed.contains("metricName"), "no warning about the old field: {printed}");

    web.wait_replicas("nginx", 3).await?;
    wait::until("kubectl get hpa to show 26 over three pods", SOON, || async {
        let table = web.kubectl(&["get", "hpa", "keda-hpa-nginx"]).await?;
        let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        let right =
            row.starts_with(&["keda-hpa-nginx", "Deployment/nginx", "8667m/10", "(avg)", "1", "10", "3"]);
        ensure!(right, "{table}");
        Ok(())
    })
    .await?;

    let reason = "external metric s0-prometheus(&LabelSelector{MatchLabels:map[string]string{\
                  scaledobject.keda.sh/name: nginx,},MatchExpressions:[]LabelSelectorRequirement{},}) above target";
    let events = web.kubectl(&["describe", "hpa", "keda-hpa-nginx"]).await?;
    ensure!(events.contains("SuccessfulRescale"), "{events}");
    ensure!(events.contains(&format!("New size: 3; reason: {reason}")), "{events}");
    columns(web).await
}

/// The columns are KEDA's.
async fn columns(web: &Case<'_>) -> Result<()> {
    web.wait_condition("nginx", "Ready", "True", "ScaledObjectReady").await?;
    web.wait_condition("nginx", "Active", "True", "ScalerActive").await?;
    web.wait_condition("nginx", "Fallback", "False", "NoFallbackFound").await?;
    let table = web.kubectl(&["get", "scaledobject"]).await?;
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let header = rows.next().unwrap_or_default();
    let wanted = "NAME SCALETARGETKIND SCALETARGETNAME MIN MAX READY ACTIVE FALLBACK PAUSED TRIGGERS AUTHENTICATIONS AGE";
    ensure!(header == wanted.split(' ').collect::<Vec<_>>(), "{table}");
    let row = rows.next().unwrap_or_default();
    let wanted =
        ["nginx", "apps/v1.Deployment", "nginx", "1", "10", "True", "True", "False", "False", "prometheus"];
    ensure!(row.starts_with(&wanted), "{table}");
    Ok(())
}
