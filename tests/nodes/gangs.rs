//! Gangs: the nodes of all of one, or none.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::moto::Group;
use harness::{Options, wait};

use crate::groups::{self, AWS, HASTY, aws_nodes};
use crate::world::{self, World};

/// One pod of 1500m fits on a machine; the group begins too small for the gang.
const GROUP: Group<'static> = Group { min: 0, max: 3, desired: 0, ..groups::GROUP };

/// How many pods have to run for any to run.
const GANG: usize = 4;

/// A pass, and machines that come at once: seconds on an idle machine.
const SOON: Duration = Duration::from_mins(1);

/// A control plane that serves PodGroups, and a scheduler that knows what they mean.
pub(crate) fn options() -> Options {
    Options {
        feature_gates: "GenericWorkload=true",
        runtime_config: "scheduling.k8s.io/v1beta1=true",
        ..world::options()
    }
}

fn gang() -> String {
    let mut objects = format!(
        r"
apiVersion: scheduling.k8s.io/v1beta1
kind: PodGroup
metadata: {{name: train, namespace: default}}
spec: {{schedulingPolicy: {{gang: {{minCount: {GANG}}}}}}}
"
    );
    for number in 0..GANG {
        // Writing to a string cannot fail.
        let _ = write!(
            objects,
            r"---
apiVersion: v1
kind: Pod
metadata: {{name: train-{number}, namespace: default, labels: {{app: train}}}}
spec:
  schedulingGroup: {{podGroupName: train}}
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
        - matchExpressions: [{{key: node.kubernetes.io/instance-type, operator: Exists}}]
  containers: [{{name: main, image: image, resources: {{requests: {{cpu: 1500m, memory: 512Mi}}}}}}]
"
        );
    }
    objects
}

/// Nothing is bought while the group cannot hold all of the gang; all is bought at once when it can, and the pods run.
pub(crate) async fn walk_through(world: Arc<World>) -> Result<()> {
    world.group(&GROUP).await?;
    world.start_tandem(&[&AWS[..], &HASTY].concat()).await?;
    world.kubectl("apply -f -", &gang()).await?;
    let lacks = "gang group train: 3 of 4 pods fit";
    wait::until("the event", SOON, || async {
        let events = world.kubectl("get events -n default", "").await?;
        let text = format!("pod didn't trigger scale-up: 1 {lacks}");
        ensure!(events.contains("NotTriggerScaleUp") && events.contains(&text), "{events}");
        Ok(())
    })
    .await?;
    let explained = world.explain(&["pod", "train-0", "--namespace=default", AWS[0], AWS[1]]).await?;
    ensure!(explained.contains(&format!("Its gang lacks 1: {lacks}")), "{explained}");
    let words = ["pod", "train-0", "--namespace=default", AWS[0], AWS[1], "--output=json"];
    let explained: serde_json::Value = serde_json::from_str(&world.explain(&words).await?)?;
    let gang = &explained["nodeGroups"]["gang"];
    ensure!((gang["lacks"].as_u64(), gang["needed"].as_u64()) == (Some(1), Some(4)), "{explained}");
    let (desired, machines) = world.moto.group("workers").await?;
    ensure!(desired == 0 && machines.is_empty(), "{desired} machines for a part of the gang");

    // Groups are read once a minute while nothing happens, and at once by a new process.
    world.stop_tandem().await?;
    let most = GANG.to_string();
    let larger = [("AutoScalingGroupName", "workers"), ("MaxSize", most.as_str())];
    world.moto.ask("autoscaling", "UpdateAutoScalingGroup", &larger).await?;
    world.start_tandem(&[&AWS[..], &HASTY].concat()).await?;
    wait::until("the whole gang to run", SOON, || async {
        let running = world.running("train").await?;
        ensure!(running == GANG, "{running} of {GANG} run");
        Ok(())
    })
    .await?;
    world.logged("Final scale-up plan: [{workers 0->4 (max: 4)}]").await?;
    ensure!(aws_nodes(&world).await?.len() == GANG, "a node each");
    Ok(())
}
