//! What others do to the nodes: those that join, those that go, and pods that wait for one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tandem_core::scheduling::{Pod, pod::Scheduled};
use tokio::time::{MissedTickBehavior, interval};

use super::Recorder;
use crate::cluster::world::World;

/// Between two looks at what is in memory.
const LOOK: Duration = Duration::from_secs(1);

/// Looks for ever.
pub async fn watch(world: Arc<World>, recorder: Arc<Recorder>) {
    world.synced().await;
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let names = || -> BTreeSet<Arc<str>> { world.nodes.all().iter().map(|node| node.name.clone()).collect() };
    let (mut known, mut version) = (names(), world.nodes.version());
    let (mut pods, mut waiting) = (None, 0);
    loop {
        ticks.tick().await;
        if version != world.nodes.version() {
            version = world.nodes.version();
            let there = names();
            for node in there.difference(&known) {
                recorder.observed(format!("node {node}"), "NodeJoined", String::new());
            }
            for node in known.difference(&there) {
                recorder.observed(format!("node {node}"), "NodeGone", String::new());
            }
            known = there;
        }
        if pods != Some(world.pods.version()) {
            pods = Some(world.pods.version());
            waiting = world.pods.all().iter().filter(|pod| waits(pod)).count();
        }
        recorder.pending(u32::try_from(waiting).unwrap_or(u32::MAX));
    }
}

/// Whether the scheduler has no node for a pod.
fn waits(pod: &Pod) -> bool {
    matches!(pod.scheduled, Scheduled::Unschedulable(_)) && pod.node.is_none() && pod.deleting.is_none()
}
