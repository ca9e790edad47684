//! Node groups and node pools of AWS, on moto with a proxy in front that fails as AWS does.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod notices;
mod pools;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use harness::{
    Moto,
    moto::{Fault, Group},
};
use parking_lot::Mutex;
use serde_json::Value;
use tandem::cloud::{
    CloudError, CloudProvider, NodeRef,
    aws::{Aws, Config, action::ACTIONS, client::OnRequest},
};
use tandem_core::nodes::group::{InstanceState, NodeGroup};

const POLICIES: [&str; 3] = [
    include_str!("../../manifests/iam/groups.json"),
    include_str!("../../manifests/iam/pools.json"),
    include_str!("../../manifests/iam/interruption.json"),
];

/// What AWS asks for on top of calls that are made.
const IMPLIED: [&str; 3] = ["ec2:CreateTags", "ec2:RunInstances", "iam:PassRole"];

const ENABLED: &str = "k8s.io/cluster-autoscaler/enabled";

const LARGE: Group<'static> = Group {
    name: "web",
    instance_type: "m5.large",
    min: 0,
    max: 5,
    desired: 2,
    rebalances: false,
    zones: &["eu-central-1a"],
    tags: &[(ENABLED, "true")],
};

struct Bed {
    moto: Moto,
    _folder: tempfile::TempDir,
}

impl Bed {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { moto: Moto::start(folder.path()).await.unwrap(), _folder: folder }
    }

    fn config(&self, nodes: &[&str], discoveries: &[&str]) -> Config {
        let own = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
        Config {
            environment: self.moto.environment().into_iter().collect(),
            ..Config::new(own(nodes), own(discoveries))
        }
    }

    /// [`Bed::config`] of nothing: for node pools.
    fn plain(&self) -> Config {
        self.config(&[], &[])
    }

    async fn discovered(&self) -> Aws {
        Aws::new(&self.config(&[], &[&format!("asg:tag={ENABLED}=true")])).await.unwrap()
    }

    /// Stops it; every call made in the test has to be allowed.
    async fn stop(self) {
        let mut allowed = allowed(&POLICIES);
        // Allowed by the role's trust policy.
        allowed.insert("sts:AssumeRoleWithWebIdentity".to_owned());
        let denied: BTreeSet<_> =
            self.moto.calls().into_iter().filter(|call| !allowed.contains(call)).collect();
        assert_eq!(denied, BTreeSet::new(), "calls that no policy of manifests/iam allows");
        self.moto.stop().await.unwrap();
    }
}

fn allowed(policies: &[&str]) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for policy in policies {
        let policy: Value = serde_json::from_str(policy).unwrap();
        for statement in policy["Statement"].as_array().unwrap() {
            match &statement["Action"] {
                Value::String(action) => drop(allowed.insert(action.clone())),
                actions => allowed
                    .extend(actions.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned())),
            }
        }
    }
    allowed
}

async fn group(aws: &Aws, name: &str) -> NodeGroup {
    let (groups, problems) = aws.groups().await.unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    groups.into_iter().find(|group| &*group.id == name).unwrap()
}

fn nodes(group: &NodeGroup, range: std::ops::Range<usize>) -> Vec<NodeRef> {
    let node = |index: usize| NodeRef {
        name: format!("node-{index}").into(),
        provider_id: group.instances[index].id.clone(),
        ..NodeRef::default()
    };
    range.map(node).collect()
}

#[test]
fn the_policies_allow_the_calls_and_nothing_else() {
    let mut made: BTreeSet<_> = ACTIONS.iter().map(|action| action.permission()).collect();
    made.extend(IMPLIED.map(str::to_owned));
    assert_eq!(allowed(&POLICIES), made);
}

#[tokio::test]
async fn groups_grow_and_shrink() {
    let bed = Bed::start().await;
    bed.moto.create_group(&LARGE).await.unwrap();
    bed.moto.create_group(&Group { name: "hidden", tags: &[], ..LARGE }).await.unwrap();
    bed.moto.create_group(&Group { name: "also", desired: 0, ..LARGE }).await.unwrap();
    bed.moto.page_size(1);
    let aws = bed.discovered().await;

    let (groups, _) = aws.groups().await.unwrap();
    let names: Vec<_> = groups.iter().map(|group| &*group.id).collect();
    assert_eq!(names, ["also", "web"], "by tag, over pages");
    let web = group(&aws, "web").await;
    assert_eq!((web.min, web.max, web.target), (0, 5, 2));
    assert!(web.instances.iter().all(|instance| instance.state == InstanceState::Running));
    assert!(web.instances[0].id.starts_with("aws:///eu-central-1a/i-"), "{:?}", web.instances[0]);

    aws.increase("web", 2, 2).await.unwrap();
    assert_eq!(bed.moto.group("web").await.unwrap().0, 4);
    assert_eq!(group(&aws, "web").await.target, 4, "known without another read");

    // Decided upon a size that is out of date: never lowers.
    aws.increase("web", 1, 2).await.unwrap();
    assert_eq!(bed.moto.group("web").await.unwrap().0, 4);
    let error = aws.increase("web", 4, 2).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "autoscaling:SetDesiredCapacity failed: AboveMaximum: group web would have 6 nodes, its maximum is 5"
    );

    let web = group(&aws, "web").await;
    let doomed = nodes(&web, 0..2);
    assert_eq!(aws.group_of(&doomed[0], std::slice::from_ref(&web)).await.unwrap().as_deref(), Some("web"));
    bed.moto.forget_calls();
    aws.delete_nodes("web", &doomed).await.unwrap();
    let calls = bed.moto.calls();
    assert_eq!(calls, ["autoscaling:TerminateInstanceInAutoScalingGroup"; 2], "one call a node");
    let (desired, left) = bed.moto.group("web").await.unwrap();
    assert_eq!((desired, left.len()), (2, 2));
    let gone: Vec<_> =
        doomed.iter().filter(|node| left.iter().any(|id| node.provider_id.ends_with(id.as_str()))).collect();
    assert_eq!(gone, Vec::<&NodeRef>::new());
    assert_eq!(group(&aws, "web").await.target, 2, "read again after a deletion");
    bed.stop().await;
}

#[tokio::test]
async fn a_group_without_capacity_keeps_its_machines() {
    let bed = Bed::start().await;
    bed.moto.create_group(&LARGE).await.unwrap();
    let aws = Aws::new(&bed.config(&["1:4:web", "0:3:missing"], &[])).await.unwrap();
    let (groups, problems) = aws.groups().await.unwrap();
    assert_eq!((groups[0].min, groups[0].max), (1, 4), "bounds of the flag win");
    assert_eq!(problems[0].0, "missing");
    assert!(matches!(problems[0].1, CloudError::NotFound(_)));

    let reason =
        "We currently do not have sufficient m5.large capacity in the Availability Zone you requested";
    bed.moto.exhaust("web", reason);
    aws.increase("web", 2, 2).await.unwrap();
    // A failed deletion makes it read the groups again.
    let unknown =
        NodeRef { name: "x".into(), provider_id: "aws:///eu-central-1a/i-0".into(), ..NodeRef::default() };
    assert!(matches!(aws.delete_nodes("web", &[unknown]).await, Err(CloudError::NotFound(_))));

    let (groups, _) = aws.groups().await.unwrap();
    let states: Vec<_> = groups[0].instances.iter().map(|instance| &instance.state).collect();
    assert_eq!(states[..2], [&InstanceState::Running; 2]);
    for state in &states[2..] {
        let InstanceState::Creating(Some(error)) = state else { panic!("{states:?}") };
        assert_eq!(
            (error.out_of_resources, &*error.code, &*error.message),
            (true, "placeholder-cannot-be-fulfilled", reason)
        );
    }
    assert_eq!(states.len(), 4);
    let error = aws.decrease_target("web", 4, 3).await.unwrap_err().to_string();
    assert!(error.contains("group web has 2 instances; lowering it from 4 to 1 would end some"), "{error}");
    aws.decrease_target("web", 4, 1).await.unwrap();

    let placeholders = nodes(&groups[0], 2..4);
    aws.delete_nodes("web", &placeholders).await.unwrap();
    let (desired, left) = bed.moto.group("web").await.unwrap();
    assert_eq!(
        (desired, left.len()),
        (2, 2),
        "the size goes down to the machines that are there, and no further"
    );
    bed.stop().await;
}

#[tokio::test]
async fn a_hook_holds_a_machine_that_ends() {
    let bed = Bed::start().await;
    bed.moto.create_group(&LARGE).await.unwrap();
    bed.moto.hook("web", "drain").await.unwrap();
    let aws = bed.discovered().await;
    let web = group(&aws, "web").await;
    aws.delete_nodes("web", &nodes(&web, 0..1)).await.unwrap();
    let held = group(&aws, "web").await;
    assert_eq!((held.target, held.instances.len()), (1, 2));
    let state = |group: &NodeGroup| {
        group.instances.iter().find(|it| it.id == web.instances[0].id).unwrap().state.clone()
    };
    assert_eq!(state(&held), InstanceState::Deleting);
    bed.moto.forget_calls();
    // Terminating already: no second call, which would lower the size once more.
    let error = aws.delete_nodes("web", &nodes(&web, 0..1)).await;
    assert_eq!((error.is_ok(), bed.moto.calls()), (true, vec![]));
    bed.stop().await;
}

#[tokio::test]
async fn a_machine_that_is_taken_back_is_taken_out_of_its_group_once() {
    let bed = Bed::start().await;
    bed.moto.create_group(&LARGE).await.unwrap();
    let aws = bed.discovered().await;
    let taken = nodes(&group(&aws, "web").await, 0..1).remove(0);
    assert!(aws.replace("web", &taken).await.unwrap());
    let web = group(&aws, "web").await;
    assert_eq!((web.target, web.instances.len()), (2, 2), "another has come");
    assert!(web.instances.iter().all(|instance| instance.id != taken.provider_id), "{web:?}");
    assert!(!aws.replace("web", &taken).await.unwrap(), "it is in no group any more");

    // One that ends already is left to its group.
    bed.moto.hook("web", "drain").await.unwrap();
    let ending = nodes(&group(&aws, "web").await, 0..1).remove(0);
    bed.moto.end_unwell("web", ending.provider_id.rsplit('/').next().unwrap());
    let is_seen = |web: NodeGroup| web.instances.iter().any(|it| it.state == InstanceState::Deleting);
    assert!(!is_seen(group(&aws, "web").await), "as it was read");
    aws.changed().await;
    assert!(is_seen(group(&aws, "web").await), "read again");
    assert!(!aws.replace("web", &ending).await.unwrap());
    bed.stop().await;
}

#[tokio::test]
async fn tags_may_tell_what_a_node_has() {
    let bed = Bed::start().await;
    let tags = [
        (ENABLED, "true"),
        ("k8s.io/cluster-autoscaler/node-template/resources/cpu", "3"),
        ("k8s.io/cluster-autoscaler/node-template/resources/memory", "5Gi"),
        ("k8s.io/cluster-autoscaler/node-template/label/kubernetes.io/arch", "arm64"),
    ];
    bed.moto.create_group(&Group { tags: &tags, ..LARGE }).await.unwrap();
    bed.moto.create_group(&Group { name: "untold", ..LARGE }).await.unwrap();
    let config = bed.config(&[], &[&format!("asg:tag={ENABLED}=true")]);
    let aws = Aws::new(&Config { believes_tags: true, ..config }).await.unwrap();
    let told = aws.template("web").await.unwrap().unwrap().node;
    let has = &told.allocatable;
    assert_eq!((has.cpu, has.memory, has.pods), (3000, 5 << 30, 110));
    assert_eq!(told.labels["node.kubernetes.io/instance-type"], "m5.large");
    assert_eq!(told.labels["kubernetes.io/arch"], "arm64");
    let asked = |bed: &Bed| bed.moto.calls().iter().any(|call| call == "ec2:DescribeInstanceTypes");
    assert!(!asked(&bed), "the tags tell");
    assert_eq!(aws.template("untold").await.unwrap().unwrap().node.allocatable.cpu, 2000);
    assert!(asked(&bed), "nothing tells");
    bed.stop().await;
}

#[tokio::test]
async fn templates_of_new_nodes() {
    let bed = Bed::start().await;
    let tags = [
        (ENABLED, "true"),
        ("k8s.io/cluster-autoscaler/node-template/label/team", "a"),
        ("k8s.io/cluster-autoscaler/node-template/taint/dedicated", "gpu:NoSchedule"),
        ("k8s.io/cluster-autoscaler/node-template/resources/ephemeral-storage", "20Gi"),
    ];
    bed.moto
        .create_group(&Group { name: "gpu", instance_type: "g4dn.xlarge", desired: 0, tags: &tags, ..LARGE })
        .await
        .unwrap();
    bed.moto
        .create_group(&Group { name: "arm", instance_type: "m6g.large", desired: 0, ..LARGE })
        .await
        .unwrap();
    let mixed = |overrides: &[(&str, &str)]| {
        let prefix = "MixedInstancesPolicy.LaunchTemplate";
        let specification = format!("{prefix}.LaunchTemplateSpecification");
        let overrides = overrides
            .iter()
            .map(|(key, value)| (format!("{prefix}.Overrides.member.{key}"), (*value).to_owned()));
        let launched = [
            (format!("{specification}.LaunchTemplateName"), "arm-template".to_owned()),
            (format!("{specification}.Version"), "$Latest".to_owned()),
        ];
        launched.into_iter().chain(overrides).collect::<Vec<_>>()
    };
    let two = mixed(&[("1.InstanceType", "c5.xlarge"), ("2.InstanceType", "m5.large")]);
    bed.moto.create_group_of(&Group { name: "mixed", desired: 0, ..LARGE }, &two).await.unwrap();
    let aws = bed.discovered().await;

    let gpu = aws.template("gpu").await.unwrap().unwrap();
    let capacity = &gpu.node.capacity;
    assert_eq!(
        (capacity.cpu, capacity.memory, capacity.pods, capacity.storage),
        (4000, 16 << 30, 29, 20 << 30)
    );
    assert_eq!(capacity.get("nvidia.com/gpu"), 1);
    assert_eq!((gpu.node.labels["team"].as_str(), gpu.pods.len()), ("a", 1));
    assert_eq!(gpu.node.taint("dedicated").and_then(|taint| taint.value.as_deref()), Some("gpu"));
    for (name, architecture, instance_type) in
        [("arm", "arm64", "m6g.large"), ("mixed", "amd64", "c5.xlarge")]
    {
        let labels = aws.template(name).await.unwrap().unwrap().node.labels;
        assert_eq!(labels["kubernetes.io/arch"], architecture);
        assert_eq!(labels["node.kubernetes.io/instance-type"], instance_type);
        assert_eq!(labels["topology.kubernetes.io/zone"], "eu-central-1a");
    }
    bed.moto.forget_calls();
    aws.template("gpu").await.unwrap();
    assert_eq!(bed.moto.calls(), Vec::<String>::new(), "remembered");
    assert!(matches!(aws.template("none").await, Err(CloudError::NotFound(_))));
    bed.stop().await;
}

#[tokio::test]
async fn failures_are_retried_or_explained() {
    let bed = Bed::start().await;
    bed.moto.create_group(&LARGE).await.unwrap();
    let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let told = seen.clone();
    let mut config = bed.config(&["0:5:web"], &[]);
    config.on_request = OnRequest::new(move |action, status, took| {
        assert!(took > Duration::ZERO);
        told.lock().push((action.to_owned(), status.to_owned()));
    });
    let aws = Aws::new(&config).await.unwrap();
    let read = "autoscaling:DescribeAutoScalingGroups";
    let throttled =
        Fault { action: read, times: 2, status: 400, code: "Throttling", message: "Rate exceeded" };
    bed.moto.fail(throttled.clone());
    assert_eq!(group(&aws, "web").await.target, 2);
    let statuses: Vec<_> = std::mem::take(&mut *seen.lock()).into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses, ["Throttling", "Throttling", "success"]);

    let denied = Fault {
        action: "autoscaling:SetDesiredCapacity",
        times: 1,
        status: 403,
        code: "AccessDenied",
        message: "User: arn:aws:sts::1:assumed-role/tandem is not authorized",
    };
    bed.moto.fail(denied);
    let error = aws.increase("web", 2, 1).await.unwrap_err().to_string();
    assert!(error.starts_with("autoscaling:SetDesiredCapacity is denied: User: arn:"), "{error}");

    // Not known whether it took effect: not sent again.
    let terminate = "autoscaling:TerminateInstanceInAutoScalingGroup";
    bed.moto.fail(Fault { action: terminate, times: 1, status: 500, code: "InternalFailure", message: "" });
    let web = group(&aws, "web").await;
    bed.moto.forget_calls();
    assert!(matches!(aws.delete_nodes("web", &nodes(&web, 0..1)).await, Err(CloudError::Refused { .. })));
    assert_eq!(bed.moto.calls(), [terminate]);

    bed.moto.fail(Fault { times: 3, ..throttled });
    assert!(matches!(aws.groups().await, Err(CloudError::Throttled { .. })));
    bed.stop().await;
}

#[tokio::test]
async fn a_role_of_a_service_account_is_assumed() {
    let bed = Bed::start().await;
    bed.moto.create_group(&LARGE).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "a.b.c").unwrap();
    let mut config = bed.config(&["0:5:web"], &[]);
    config.environment.retain(|name, _| !name.starts_with("AWS_ACCESS") && !name.starts_with("AWS_SECRET"));
    let mut web_identity = config.clone();
    web_identity.environment.extend([
        ("AWS_ROLE_ARN".to_owned(), "arn:aws:iam::123456789012:role/tandem".to_owned()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE".to_owned(), token.display().to_string()),
    ]);
    let aws = Aws::new(&web_identity).await.unwrap();
    assert_eq!(group(&aws, "web").await.target, 2);
    assert_eq!(bed.moto.calls()[0], "sts:AssumeRoleWithWebIdentity");

    // Nothing listens there: no credentials, and the error says how to get some.
    config
        .environment
        .insert("AWS_EC2_METADATA_SERVICE_ENDPOINT".to_owned(), "http://127.0.0.1:1".to_owned());
    let aws = Aws::new(&config).await.unwrap();
    let error = aws.groups().await.unwrap_err().to_string();
    assert!(error.contains("no credentials") && error.contains("IRSA"), "{error}");
    bed.stop().await;
}
