//! The two scenarios that the demo shows.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Place, Watch, say, show_when};

/// The Deployment of the second scenario, and the app that its requests go to.
pub(crate) const SHOP: &str = "shop";

/// The manifest as users of KEDA have it.
const NGINX: &str = include_str!("nginx.yaml");

/// From zero and back, on the rate at the gateway.
const SHOP_OBJECT: &str = include_str!("shop.yaml");

/// The HPA looks every 15 s; three of its looks, and what a machine without load needs otherwise.
const HPA_LOOKS: Duration = Duration::from_secs(75);

/// Down again: the rate's window of 30 s, the HPA's patience of 15 s, the cooldown of 15 s, and the HPA's looks.
const BACK_TO_ZERO: Duration = Duration::from_mins(3);

pub(crate) async fn run(place: &Place) -> Result<()> {
    place.kubectl.run(&["create", "namespace", "web"], "").await?;
    as_users_have_it(place).await?;
    from_zero_and_back(place).await
}

async fn as_users_have_it(place: &Place) -> Result<()> {
    say("1. A ScaledObject as it is in use with KEDA, on Istio's request metric: 26 over a target of 10");
    deploy(place, "nginx").await?;
    apply(place, NGINX).await?;
    let mut watch = Watch::new();
    watch.until(place, "nginx", HPA_LOOKS, |replicas| replicas == 3).await?;
    show_when(place, &["-n", "web", "get", "hpa", "keda-hpa-nginx"], "8667m/10 (avg)", HPA_LOOKS).await?;
    let describe = ["-n", "web", "describe", "hpa", "keda-hpa-nginx"];
    show_when(place, &describe, "SuccessfulRescale", HPA_LOOKS).await?;
    show_when(place, &["-n", "web", "get", "scaledobject"], "apps/v1.Deployment", HPA_LOOKS).await
}

async fn from_zero_and_back(place: &Place) -> Result<()> {
    say("2. 0 → 1 → N → 0 on sum(rate(istio_requests_total{…}[30s]))");
    let mut watch = Watch::new();
    place.traffic.set_rps(SHOP, 0.0).await?;
    deploy(place, SHOP).await?;
    apply(place, SHOP_OBJECT).await?;
    watch.until(place, SHOP, HPA_LOOKS, |replicas| replicas == 0).await?;
    eprintln!("  no request, no pod; now 35 requests a second");
    place.traffic.set_rps(SHOP, 35.0).await?;
    watch.until(place, SHOP, HPA_LOOKS, |replicas| replicas >= 1).await?;
    watch.until(place, SHOP, HPA_LOOKS, |replicas| replicas == 4).await?;
    eprintln!("  now none");
    place.traffic.set_rps(SHOP, 0.0).await?;
    watch.until(place, SHOP, BACK_TO_ZERO, |replicas| replicas == 0).await?;
    let events = ["-n", "web", "events", "--for", "scaledobject/shop"];
    show_when(place, &events, "KEDAScaleTargetDeactivated", HPA_LOOKS).await
}

async fn deploy(place: &Place, name: &str) -> Result<()> {
    place.kubectl.run(&["-n", "web", "create", "deployment", name, "--image=nginx"], "").await?;
    Ok(())
}

/// `kubectl apply`, shown with its warnings; only the address of Prometheus is put in.
async fn apply(place: &Place, manifest: &str) -> Result<()> {
    let mut manifest: Value = serde_saphyr::from_str(manifest)?;
    let metadata =
        manifest["spec"]["triggers"][0]["metadata"].as_object_mut().context("trigger without metadata")?;
    metadata.insert("serverAddress".to_owned(), place.prometheus.clone().into());
    let printed = place.kubectl.run(&["apply", "-f", "-"], &manifest.to_string()).await?;
    eprintln!("$ kubectl apply -f …\n{}", printed.trim_end());
    Ok(())
}
