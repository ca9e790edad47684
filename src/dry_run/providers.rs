//! Providers of nodes that make none: what they are asked for is a line of the record, what they know they tell.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use kube::ResourceExt as _;
use tandem_core::{
    api::karpenter::{EC2NodeClass, NodeClaim},
    nodes::{
        group::NodeGroup,
        pools::{instance_type::InstanceType, requirements::WellKnownLabels},
    },
    scheduling::{Node, Pod},
};

use super::{Recorder, record::Intent};
use crate::cloud::{
    CloudError, CloudProvider, NodeRef, Template,
    pools::{Class, ClassKind, ClassState, LaunchError, Launched, Machine, PoolProvider},
};

/// What a dry run does not ask for.
const NOT_IN_A_DRY_RUN: &str = "changes to a dry run";

fn intent(verb: &str, resource: &str, name: &str, change: String) -> Intent {
    Intent {
        verb: verb.to_owned(),
        resource: resource.to_owned(),
        namespace: String::new(),
        name: name.to_owned(),
        change,
    }
}

/// A provider of node groups behind which nothing changes.
pub struct Groups {
    /// The one that knows.
    pub provider: Arc<dyn CloudProvider>,
    /// Where calls that change something go.
    pub recorder: Arc<Recorder>,
}

#[async_trait]
impl CloudProvider for Groups {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    async fn groups(&self) -> Result<(Vec<NodeGroup>, Vec<(String, CloudError)>), CloudError> {
        self.provider.groups().await
    }

    async fn group_of(&self, node: &NodeRef, groups: &[NodeGroup]) -> Result<Option<Arc<str>>, CloudError> {
        self.provider.group_of(node, groups).await
    }

    async fn template(&self, group: &str) -> Result<Option<Template>, CloudError> {
        self.provider.template(group).await
    }

    async fn increase(&self, group: &str, target: u32, delta: u32) -> Result<(), CloudError> {
        let change = format!("from {target} to {} nodes", target.saturating_add(delta));
        self.recorder.intent(intent("increase", "nodegroup", group, change));
        Ok(())
    }

    async fn delete_nodes(&self, group: &str, nodes: &[NodeRef]) -> Result<(), CloudError> {
        let names: Vec<&str> = nodes.iter().map(|node| &*node.name).collect();
        self.recorder.intent(intent("delete", "nodegroup", group, format!("its nodes {}", names.join(", "))));
        Ok(())
    }

    async fn decrease_target(&self, group: &str, target: u32, delta: u32) -> Result<(), CloudError> {
        let change =
            format!("from {target} to {} nodes, by some that never came", target.saturating_sub(delta));
        self.recorder.intent(intent("decrease", "nodegroup", group, change));
        Ok(())
    }

    fn gpu_label(&self) -> &str {
        self.provider.gpu_label()
    }

    async fn gpu_types(&self) -> Result<BTreeSet<String>, CloudError> {
        self.provider.gpu_types().await
    }

    async fn node_price(&self, node: &Node) -> Result<Option<f64>, CloudError> {
        self.provider.node_price(node).await
    }

    async fn pod_price(&self, pod: &Pod) -> Result<Option<f64>, CloudError> {
        self.provider.pod_price(pod).await
    }

    // `cleanup` is left as it is without one: it ends what a running autoscaler holds at the provider.
}

/// A provider of machines that makes none.
pub struct Pools {
    /// The one that knows.
    pub provider: Arc<dyn PoolProvider>,
    /// Where calls that change something go.
    pub recorder: Arc<Recorder>,
}

#[async_trait]
impl PoolProvider for Pools {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    fn kinds(&self) -> &'static [ClassKind] {
        self.provider.kinds()
    }

    fn well_known(&self) -> &WellKnownLabels {
        self.provider.well_known()
    }

    fn classes(&self) -> Vec<Class> {
        self.provider.classes()
    }

    fn node_classes(&self) -> Vec<Arc<EC2NodeClass>> {
        self.provider.node_classes()
    }

    /// Not asked of the provider: it makes what a class needs (an instance profile), and writes its status.
    async fn class_state(&self, _: &Class) -> Result<ClassState, CloudError> {
        Err(CloudError::NotOffered(NOT_IN_A_DRY_RUN))
    }

    async fn instance_types(&self, class: &Class) -> Result<Arc<[Arc<InstanceType>]>, CloudError> {
        self.provider.instance_types(class).await
    }

    async fn create(
        &self,
        claim: &NodeClaim,
        _: &Class,
        types: &[Arc<InstanceType>],
    ) -> Result<Launched, LaunchError> {
        let change = format!("a machine of one of {} types", types.len());
        self.recorder.intent(intent("create", "machine", &claim.name_any(), change));
        Err(CloudError::NotOffered(NOT_IN_A_DRY_RUN).into())
    }

    async fn delete(&self, provider_id: &str) -> Result<(), CloudError> {
        self.recorder.intent(intent("delete", "machine", provider_id, String::new()));
        Err(CloudError::NotOffered(NOT_IN_A_DRY_RUN))
    }

    /// Not asked of the provider: it tidies up on the way (launch templates that nobody uses).
    async fn list(&self) -> Result<Vec<Machine>, CloudError> {
        Err(CloudError::NotOffered(NOT_IN_A_DRY_RUN))
    }

    async fn drifted(&self, claim: &NodeClaim, class: &Class) -> Result<Option<&'static str>, CloudError> {
        self.provider.drifted(claim, class).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tandem_core::nodes::pools::requirements::WellKnownLabels;

    use super::*;
    use crate::dry_run::record::{self, Entry};

    /// A provider that must not be asked for a change.
    #[derive(Default)]
    struct Live(WellKnownLabels);

    #[async_trait]
    impl CloudProvider for Live {
        fn name(&self) -> &'static str {
            "live"
        }

        async fn groups(&self) -> Result<(Vec<NodeGroup>, Vec<(String, CloudError)>), CloudError> {
            Ok((Vec::new(), vec![("a".to_owned(), CloudError::NotFound("it".to_owned()))]))
        }

        async fn template(&self, _: &str) -> Result<Option<Template>, CloudError> {
            Ok(None)
        }

        async fn increase(&self, group: &str, _: u32, _: u32) -> Result<(), CloudError> {
            unreachable!("increase {group}")
        }

        async fn delete_nodes(&self, group: &str, _: &[NodeRef]) -> Result<(), CloudError> {
            unreachable!("delete nodes of {group}")
        }

        async fn decrease_target(&self, group: &str, _: u32, _: u32) -> Result<(), CloudError> {
            unreachable!("decrease {group}")
        }

        fn gpu_label(&self) -> &'static str {
            "gpu"
        }

        async fn cleanup(&self) -> Result<(), CloudError> {
            unreachable!("clean up")
        }
    }

    #[async_trait]
    impl PoolProvider for Live {
        fn name(&self) -> &'static str {
            "live"
        }

        fn kinds(&self) -> &'static [ClassKind] {
            &[]
        }

        fn well_known(&self) -> &WellKnownLabels {
            &self.0
        }

        fn classes(&self) -> Vec<Class> {
            vec![Class::default()]
        }

        async fn class_state(&self, _: &Class) -> Result<ClassState, CloudError> {
            unreachable!("it may make an instance profile")
        }

        async fn instance_types(&self, _: &Class) -> Result<Arc<[Arc<InstanceType>]>, CloudError> {
            Ok(Arc::default())
        }

        async fn create(
            &self,
            claim: &NodeClaim,
            _: &Class,
            _: &[Arc<InstanceType>],
        ) -> Result<Launched, LaunchError> {
            unreachable!("create {claim:?}")
        }

        async fn delete(&self, provider_id: &str) -> Result<(), CloudError> {
            unreachable!("delete {provider_id}")
        }

        async fn list(&self) -> Result<Vec<Machine>, CloudError> {
            unreachable!("it may tidy up")
        }

        async fn drifted(&self, _: &NodeClaim, _: &Class) -> Result<Option<&'static str>, CloudError> {
            Ok(Some("NodeClassDrift"))
        }
    }

    #[tokio::test]
    async fn what_is_known_is_told_and_what_is_asked_for_is_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let recorder = Recorder::open(&path, "v1.37.0").unwrap();
        let groups = Groups { provider: Arc::new(Live::default()), recorder: recorder.clone() };
        assert_eq!((CloudProvider::name(&groups), groups.gpu_label()), ("live", "gpu"));
        assert_eq!(groups.groups().await.unwrap().1.len(), 1);
        groups.increase("a", 1, 2).await.unwrap();
        groups.decrease_target("a", 3, 1).await.unwrap();
        let node = NodeRef { name: "n".into(), ..NodeRef::default() };
        groups.delete_nodes("a", &[node]).await.unwrap();
        groups.cleanup().await.unwrap();

        let pools = Pools { provider: Arc::new(Live::default()), recorder };
        assert_eq!(pools.classes().len(), 1);
        let (claim, class) = (NodeClaim::default(), Class::default());
        assert_eq!(pools.drifted(&claim, &class).await.unwrap(), Some("NodeClassDrift"));
        assert!(pools.class_state(&class).await.is_err());
        assert!(pools.list().await.is_err());
        assert!(pools.create(&claim, &class, &[]).await.is_err());
        assert!(pools.delete("aws:///a/i-1").await.is_err());

        let lines = record::read(fs::read(&path).unwrap().as_slice()).unwrap().0.into_iter();
        let intents = lines.filter_map(|line| match line.entry {
            Entry::Intent(it) => Some(format!("{} {} {} {}", it.verb, it.resource, it.name, it.change)),
            _ => None,
        });
        assert_eq!(
            intents.collect::<Vec<_>>(),
            [
                "increase nodegroup a from 1 to 3 nodes",
                "decrease nodegroup a from 3 to 2 nodes, by some that never came",
                "delete nodegroup a its nodes n",
                "create machine  a machine of one of 0 types",
                "delete machine aws:///a/i-1 ",
            ]
        );
    }
}
