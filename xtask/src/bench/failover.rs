//! The leader dies under load: what readers see, and when another one acts.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use harness::{ControlPlane, Install, Tandem, install, tandem::Addresses, wait};
use k8s_openapi::api::{autoscaling::v2::HorizontalPodAutoscaler, coordination::v1::Lease};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tandem_core::api::keda::ScaledObject;

use super::latency::{Reads, read_beside};

/// Reads go on this long: past the end of a Lease (15 s) and the new leader's first act.
const READING: Duration = Duration::from_secs(40);
/// Before the leader dies.
const CALM: Duration = Duration::from_secs(10);
/// A new leader must have acted.
const TAKE_OVER: Duration = Duration::from_mins(1);
/// What the edit asks for that only a leader follows.
const EDITED_MAXIMUM: i32 = 7;

/// What was seen.
pub(super) struct Failover {
    /// Reads before, while and after.
    pub reads: Reads,
    /// From the kill to the HPA that follows an edit of its ScaledObject.
    pub acted_after: Duration,
}

/// Runs both replicas behind their Services, kills the leader, and looks. Nothing else may listen on the Services.
pub(super) async fn measure(
    control_plane: &ControlPlane,
    install: &Install,
    program: &Path,
    namespace: &str,
    (objects, rate): (usize, u32),
) -> Result<Failover> {
    let client = control_plane.client();
    let _forwards = install.forward().await?;
    let mut replicas = Vec::new();
    for pod in &install.pods {
        let addresses = Addresses::of_pod(pod)?;
        let process = Tandem::start(control_plane, program, pod, addresses, &[]).await?;
        replicas.push((pod.name_any(), process));
    }
    let leader = wait::until("a leader", TAKE_OVER, || async {
        let leader = leader(&client).await?;
        ensure!(replicas.iter().any(|(name, _)| leader.contains(name)), "the Lease is {leader}'s still");
        Ok(leader)
    })
    .await?;
    let place = replicas.iter().position(|(name, _)| leader.contains(name)).context("no such replica")?;
    let (_, dying) = replicas.swap_remove(place);

    let reading = read_beside(&client, namespace, objects, rate, READING);
    let script = async {
        tokio::time::sleep(CALM).await;
        let killed = Instant::now();
        dying.kill()?;
        follow_an_edit(&client, namespace).await?;
        Ok(killed.elapsed())
    };
    let (reads, acted_after): (_, Result<Duration>) = futures::join!(reading, script);
    for (_, process) in replicas {
        process.stop().await?;
    }
    Ok(Failover { reads: reads?, acted_after: acted_after? })
}

async fn leader(client: &Client) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), install::NAMESPACE);
    let spec = leases.get("operator.keda.sh").await?.spec.context("Lease without spec")?;
    spec.holder_identity.filter(|holder| !holder.is_empty()).context("nobody holds the Lease")
}

/// Edits an object and waits until its HPA follows.
async fn follow_an_edit(client: &Client, namespace: &str) -> Result<()> {
    let objects: Api<ScaledObject> = Api::namespaced(client.clone(), namespace);
    let edit = Patch::Merge(json!({"spec": {"maxReplicaCount": EDITED_MAXIMUM}}));
    objects.patch("object-0", &PatchParams::default(), &edit).await?;
    let hpas: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), namespace);
    wait::until("the HPA to follow", TAKE_OVER, || async {
        let hpa = hpas.get("keda-hpa-object-0").await?;
        ensure!(hpa.spec.max_replicas == EDITED_MAXIMUM, "its maximum is {}", hpa.spec.max_replicas);
        Ok(())
    })
    .await
}
