//! Pods that controllers will make (`--enable-proactive-scaleup`), for a pass over node groups.

use std::{collections::BTreeSet, sync::Arc};

use tandem_core::{
    nodes::{
        demand::Controllers,
        pass::{Input, PendingSettings},
    },
    scheduling::Pod,
};

use crate::{cli::nodes::NodeArgs, cluster::world::World};

/// What is expected of controllers, from pass to pass.
#[derive(Debug)]
pub struct Injection {
    controllers: Controllers,
    /// `--pod-injection-limit`.
    limit: u32,
}

impl Injection {
    /// What the flags say; `None` if nothing is to be expected.
    pub fn new(args: &NodeArgs) -> Option<Self> {
        let injection = || Self { controllers: Controllers::default(), limit: args.pod_injection_limit };
        args.enable_proactive_scaleup.then(injection)
    }

    /// What is expected now, except of the controllers (by uid) whose pods are expected already.
    pub fn expected(
        &mut self,
        input: &Input,
        counted: &BTreeSet<Arc<str>>,
        settings: &PendingSettings,
        world: &World,
    ) -> Vec<Arc<Pod>> {
        let waits = |pod: &Pod| settings.ignores(pod, input.now).is_none();
        let replicas = |owner: &_, namespace: &str| world.replicas(owner, namespace);
        self.controllers.expected(&input.pods, (counted, self.limit), waits, replicas, input.now)
    }
}
