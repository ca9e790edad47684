//! Pods and nodes in tandem: a node is asked for when the metric steps, not when pods wait.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::http::{self, Server};
use harness::moto::Group;
use harness::{Network, Options, wait};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::Api;
use serde_json::json;

use crate::groups::{self, AWS, HASTY, deployment};
use crate::world::World;

/// t3.medium has 2 cores, a little of them reserved: 3 pods of 600m fit.
const GROUP: Group<'static> = Group { max: 10, ..groups::GROUP };

/// The step comes in the middle between two visits of the HPA controller, where on average it does.
const AFTER_VISIT: Duration = Duration::from_secs(7);
/// How often the target size of the group is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Several periods of the HPA.
const PATIENCE: Duration = Duration::from_mins(3);

/// The HPA controller's period is what users have.
pub(crate) fn options() -> Options {
    Options::new(Network::Namespace)
}

/// Ten a pod; the HPA gives back what it added as soon as the load is gone.
const SCALED_OBJECT: &str = r#"
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: shop, namespace: default}
spec:
  scaleTargetRef: {name: shop}
  minReplicaCount: 2
  maxReplicaCount: 40
  pollingInterval: 2
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleDown: {stabilizationWindowSeconds: 0}
  triggers:
  - type: metrics-api
    metadata: {url: "URL", valueLocation: length, targetValue: "10"}
"#;

/// How long after the step nodes were asked for.
#[derive(Debug)]
struct Lead {
    first: Duration,
    all: Duration,
}

/// The same step of the same metric, without demand and with it.
pub(crate) async fn walk_through(world: Arc<World>) -> Result<()> {
    let length = Arc::new(AtomicU32::new(20));
    let source = {
        let length = length.clone();
        Server::start((Ipv4Addr::LOCALHOST, 0).into(), move |_| {
            let body = json!({ "length": length.load(Ordering::Relaxed) }).to_string();
            async move { http::answer(200, "application/json", body) }
        })
        .await?
    };
    world.group(&GROUP).await?;
    let off = measure(&world, &length, &source.url(), "--max-expected-pods=0").await?;
    let on = measure(&world, &length, &source.url(), "--max-expected-pods=100").await?;
    let line = |name, Lead { first, all }: &Lead| {
        println!("{name}: first node asked for after {first:.1?}, all of them after {all:.1?}");
    };
    line("demand off", &off);
    line("demand on ", &on);
    ensure!(on.first < off.first && on.all < off.all, "demand is later: {on:?} against {off:?}");
    Ok(())
}

async fn measure(world: &Arc<World>, length: &AtomicU32, url: &str, flag: &str) -> Result<Lead> {
    length.store(20, Ordering::Relaxed);
    // Nodes that nothing is expected on would go within seconds.
    world.start_tandem(&[&AWS[..], &HASTY, &[flag]].concat()).await?;
    world.kubectl("apply -f -", &deployment("shop", 2, "600m")).await?;
    wait::until("the ScaledObject to be admitted", PATIENCE, || async {
        world.kubectl("apply -f -", &SCALED_OBJECT.replace("URL", url)).await.map(drop)
    })
    .await?;
    wait::until("a group of one node, with two pods", PATIENCE, || async {
        let (nodes, replicas) = (world.moto.group(GROUP.name).await?.0, replicas(world).await?);
        ensure!(nodes == 1 && replicas == 2, "{nodes} nodes, {replicas} replicas");
        Ok(())
    })
    .await?;
    // A step within the node that there is, to learn when the HPA controller comes.
    let before = last_scale(world).await.ok();
    length.store(30, Ordering::Relaxed);
    wait::until("a visit of the HPA controller", PATIENCE, || async {
        let scaled = last_scale(world).await?;
        ensure!(Some(scaled) != before, "nothing yet");
        Ok(())
    })
    .await?;
    tokio::time::sleep(AFTER_VISIT).await;

    length.store(240, Ordering::Relaxed);
    let lead = asked_for(world).await?;
    wait::until("24 replicas", PATIENCE, || async {
        let replicas = replicas(world).await?;
        ensure!(replicas == 24, "{replicas} of 24");
        Ok(())
    })
    .await?;
    // Nodes that were made for pods to come are still there.
    let (nodes, _) = world.moto.group(GROUP.name).await?;
    ensure!(nodes == 8, "{nodes} nodes, 24 pods need 8");
    let is_off = flag.ends_with("=0");
    let events = world.kubectl("get events -n default", "").await?;
    ensure!(is_off != events.contains("PodsExpected"), "{events}");
    if !is_off {
        let text =
            "nodes are asked for 21 expected pods: 3 -> 24 replicas by external metric s0-metric-api-length";
        ensure!(events.contains(text), "no event says {text:?}:\n{events}");
        world.logged(text).await?;
        let explained = world.explain(&["scaledobject", "shop", "--namespace=default"]).await?;
        for text in
            ["24 replicas, by s0-metric-api-length", "10 a pod", "nodes are asked for 21 expected pods"]
        {
            ensure!(explained.contains(text), "{text:?} is not explained:\n{explained}");
        }
    }
    world.kubectl("delete scaledobject,deployment shop", "").await?;
    wait::until("the group to shrink", PATIENCE, || async {
        let (nodes, _) = world.moto.group(GROUP.name).await?;
        ensure!(nodes == 1, "{nodes} nodes");
        Ok(())
    })
    .await?;
    world.stop_tandem().await?;
    Ok(lead)
}

/// When the group is asked for its first node and for its last. No node is given back in between.
async fn asked_for(world: &World) -> Result<Lead> {
    let (stepped, mut first, mut most) = (Instant::now(), None, 1);
    loop {
        let (nodes, _) = world.moto.group(GROUP.name).await?;
        let now = stepped.elapsed();
        ensure!(nodes >= most, "a node that pods are expected on is given back: {most} -> {nodes}");
        most = nodes;
        if nodes > 1 {
            first.get_or_insert(now);
        }
        if nodes >= 8 {
            return Ok(Lead { first: first.unwrap_or(now), all: now });
        }
        ensure!(now < PATIENCE, "{nodes} nodes after {now:.0?}");
        tokio::time::sleep(LOOK).await;
    }
}

async fn replicas(world: &World) -> Result<i32> {
    let deployments: Api<Deployment> = Api::namespaced(world.client(), "default");
    let scale = deployments.get_scale("shop").await?;
    scale.spec.and_then(|spec| spec.replicas).context("no replicas")
}

async fn last_scale(world: &World) -> Result<jiff::Timestamp> {
    let hpas: Api<HorizontalPodAutoscaler> = Api::namespaced(world.client(), "default");
    let status = hpas.get("keda-hpa-shop").await?.status.context("no status")?;
    Ok(status.last_scale_time.context("never scaled")?.0)
}
