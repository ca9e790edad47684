//! Machines of node pools.

use std::{collections::BTreeMap, sync::Arc};

use harness::{
    http::{Server, answer},
    moto::Fault,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Client, Resource};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tandem::{
    cloud::{
        CloudError,
        aws::pools::AwsPools,
        pools::{Class, LaunchError, Launched, PoolProvider, Settings},
    },
    cluster::cache::Cache,
};
use tandem_core::{
    api::karpenter::{EC2NodeClass, NodeClaim, NodeClassReference, RequirementWithMinValues},
    nodes::pools::{
        instance_type::InstanceType,
        launch::order_by_price,
        requirements::{
            Operator, Requirement, Requirements,
            labels::{ARCH, CAPACITY_TYPE, INSTANCE_TYPE, ZONE},
        },
    },
};

use crate::Bed;

const ZONES: [&str; 2] = ["eu-central-1a", "eu-central-1b"];
const TAG: (&str, &str) = ("kubernetes.io/cluster/chris", "owned");

/// The annotation of claims that says what their class was like.
const HASH: &str = "karpenter.k8s.aws/ec2nodeclass-hash";
/// The annotation of claims that says what profile their machine has.
const PROFILE: &str = "karpenter.k8s.aws/instance-profile-name";

/// As users have it.
const CLASS: &str = "
apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata: {name: default, generation: 3}
spec:
  amiSelectorTerms: [{alias: al2023@latest}]
  subnetSelectorTerms: [{tags: {kubernetes.io/cluster/chris: '*'}}]
  securityGroupSelectorTerms: [{tags: {kubernetes.io/cluster/chris: '*'}}]
  instanceProfile: chris2022090904481313660000000c
  tags: {team: a}
";

/// A provider on moto, and an API server that takes every write.
struct Pools {
    bed: Bed,
    provider: AwsPools,
    classes: Arc<Cache<EC2NodeClass>>,
    /// Patches of EC2NodeClasses, in order.
    patches: Arc<Mutex<Vec<Value>>>,
    _api: Server,
}

impl Pools {
    async fn start() -> Self {
        let bed = Bed::start().await;
        let patches: Arc<Mutex<Vec<Value>>> = Arc::default();
        let seen = patches.clone();
        let api = Server::start("127.0.0.1:0".parse().unwrap(), move |request| {
            let seen = seen.clone();
            async move {
                let body = if request.uri().path() == "/version" {
                    json!({"major": "1", "minor": "33+", "gitVersion": "v1.33.0", "gitCommit": "", "gitTreeState": "",
                           "buildDate": "", "goVersion": "", "compiler": "", "platform": ""})
                } else {
                    seen.lock().push(serde_json::from_slice(request.body()).unwrap());
                    json!({"apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass", "metadata": {"name": "default"},
                           "spec": {}})
                };
                answer(200, "application/json", body.to_string())
            }
        });
        let api = api.await.unwrap();
        let kubernetes = Client::try_from(kube::Config::new(api.url().parse().unwrap())).unwrap();
        let classes = Arc::new(Cache::new(0));
        let settings =
            Settings { cluster_name: "chris".to_owned(), memory_overhead: 0.075, ..Settings::default() };
        let provider = AwsPools::new(&settings, &bed.plain(), &kubernetes, classes.clone()).await.unwrap();
        Self { bed, provider, classes, patches, _api: api }
    }

    /// With subnets, a security group and a class that finds them; with the ids of those.
    async fn with_network() -> (Self, Vec<String>) {
        let pools = Self::start().await;
        let ids = pools.bed.moto.create_network(&ZONES, &[TAG]).await.unwrap();
        pools.apply(CLASS);
        (pools, ids)
    }

    fn apply(&self, yaml: &str) -> Class {
        let class: EC2NodeClass = serde_saphyr::from_str(yaml).unwrap();
        let name = class.meta().name.clone().unwrap();
        self.classes.insert(String::new(), name.clone(), Arc::new(class));
        class_named(&name)
    }

    /// The last status that was written: each condition with its status and reason.
    fn conditions(&self) -> BTreeMap<String, String> {
        let patches = self.patches.lock();
        let status = patches.iter().rev().find(|patch| patch["status"].is_object()).expect("no status");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let conditions = status["status"]["conditions"].as_array().unwrap().iter();
        conditions
            .map(|it| (text(&it["type"]), format!("{} {}", text(&it["status"]), text(&it["reason"]))))
            .collect()
    }

    /// The last finalizers that were written.
    fn finalizers(&self) -> Value {
        let patches = self.patches.lock();
        let written = patches.iter().rev().map(|patch| &patch["metadata"]["finalizers"]);
        written.into_iter().find(|finalizers| !finalizers.is_null()).cloned().unwrap_or_default()
    }

    /// The profiles that the class was last noted to have had.
    fn noted(&self) -> String {
        let patches = self.patches.lock();
        let written = patches
            .iter()
            .rev()
            .map(|patch| &patch["metadata"]["annotations"]["tandem.dev/instance-profiles"]);
        written.into_iter().find_map(Value::as_str).expect("no profile was noted").to_owned()
    }

    async fn launch(&self, claim: &NodeClaim, names: &[&str]) -> Result<Launched, LaunchError> {
        let class = class_named("default");
        let types = self.provider.instance_types(&class).await.unwrap();
        let mut types: Vec<_> = types.iter().filter(|one| names.contains(&&*one.name)).cloned().collect();
        let requirements = RequirementWithMinValues::read_all(&claim.spec.requirements);
        order_by_price(&mut types, &requirements, self.provider.well_known());
        self.provider.create(claim, &class, &types).await
    }
}

fn class_named(name: &str) -> Class {
    let reference = NodeClassReference {
        group: "karpenter.k8s.aws".to_owned(),
        kind: "EC2NodeClass".to_owned(),
        name: name.to_owned(),
    };
    Class { reference, inline: None }
}

fn claim(name: &str, requirements: &[(&str, &str)]) -> NodeClaim {
    let mut claim = NodeClaim::default();
    claim.metadata.name = Some(name.to_owned());
    claim.metadata.uid = Some(format!("uid-of-{name}"));
    claim.metadata.creation_timestamp = Some(Time(Timestamp::now()));
    claim.metadata.labels =
        Some(BTreeMap::from([("karpenter.sh/nodepool".to_owned(), "general".to_owned())]));
    claim.spec.requirements = requirements
        .iter()
        .map(|(key, value)| RequirementWithMinValues::new(key, Operator::In, &[value]))
        .collect();
    claim
}

const ON_DEMAND: (&str, &str) = (CAPACITY_TYPE, "on-demand");

fn named<'a>(types: &'a [Arc<InstanceType>], name: &str) -> &'a InstanceType {
    types.iter().find(|one| &*one.name == name).unwrap()
}

#[tokio::test]
async fn types_are_what_ec2_offers_in_the_zones_of_a_class() {
    let (pools, _) = Pools::with_network().await;
    pools.bed.moto.page_size(20);
    let types = pools.provider.instance_types(&class_named("default")).await.unwrap();
    assert!(types.len() > 40, "{}", types.len());
    let large = named(&types, "m5.large");
    assert_eq!((large.allocatable().cpu, large.allocatable().memory >> 20), (1930, 6903));
    let offered: Vec<_> = large
        .offerings
        .iter()
        .map(|offering| (offering.zone().unwrap(), offering.capacity_type().unwrap()))
        .collect();
    assert_eq!(
        offered,
        [(ZONES[0], "on-demand"), (ZONES[0], "spot"), (ZONES[1], "on-demand"), (ZONES[1], "spot")]
    );
    let on_demand = Requirements::from_iter([Requirement::is(CAPACITY_TYPE, "on-demand")]);
    let price = |name| named(&types, name).cheapest(&on_demand, pools.provider.well_known()).unwrap().price;
    assert!((price("m5.large") - 0.115).abs() < 1e-9, "as the Pricing API says, on its first page");
    assert!((price("c5.large") - 0.097).abs() < 1e-9, "and on its second");
    assert!((price("r5.large") - 0.126).abs() < 1e-9, "as shipped");
    let arm = Requirements::from_iter([Requirement::is(ARCH, "arm64")]);
    assert!(types.iter().any(|one| one.requirements.intersects(&arm)), "there are images for both");
    pools.bed.moto.forget_calls();
    let again = pools.provider.instance_types(&class_named("default")).await.unwrap();
    assert!(Arc::ptr_eq(&types, &again));
    assert_eq!(pools.bed.moto.calls(), Vec::<String>::new());

    // A class with an image of one architecture runs on nothing else.
    let image = pools.bed.moto.image().await.unwrap();
    let own = CLASS.replace("[{alias: al2023@latest}]", &format!("[{{id: {image}}}]\n  amiFamily: Custom"));
    let types = pools.provider.instance_types(&pools.apply(&own)).await.unwrap();
    assert!(!types.is_empty() && types.iter().all(|one| !one.requirements.intersects(&arm)));
    pools.bed.stop().await;
}

#[tokio::test]
async fn a_class_says_what_it_finds_and_what_it_lacks() {
    let pools = Pools::start().await;
    let class = pools.apply(CLASS);
    let state = pools.provider.class_state(&class).await.unwrap();
    let (reason, why) = state.not_ready.unwrap();
    assert_eq!(reason, "NodeClassNotReady");
    assert!(why.starts_with("SubnetsReady: SubnetSelector did not match any"), "{why}");
    let conditions = pools.conditions();
    assert_eq!(conditions["SubnetsReady"], "False SubnetsNotFound");
    assert_eq!(conditions["SecurityGroupsReady"], "False SecurityGroupsNotFound");
    assert_eq!(conditions["AMIsReady"], "True AMIsReady");
    assert!(pools.provider.instance_types(&class).await.unwrap().is_empty());
    let refused = pools.launch(&claim("early", &[]), &[]).await.unwrap_err();
    assert_eq!(refused.error.to_string(), "EC2NodeClass default: SubnetSelector did not match any");
    assert!(matches!(
        pools.provider.class_state(&class_named("missing")).await,
        Err(CloudError::NotFound(what)) if what == "EC2NodeClass missing"
    ));

    let ids = pools.bed.moto.create_network(&ZONES, &[TAG]).await.unwrap();
    // Another class of the same kind: what the first found is not asked for again so soon.
    let second = pools.apply(&CLASS.replace("name: default", "name: second"));
    let state = pools.provider.class_state(&second).await.unwrap();
    assert_eq!((state.generation, state.not_ready), (Some(3), None));
    assert_eq!(pools.conditions()["Ready"], "True Ready");
    let patches = pools.patches.lock().clone();
    let status = &patches.last().unwrap()["status"];
    let found = |list: &str| -> Vec<&str> {
        status[list].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect()
    };
    let mut subnets = found("subnets");
    subnets.sort_unstable();
    let mut wanted: Vec<_> = ids[..2].iter().map(String::as_str).collect();
    wanted.sort_unstable();
    assert_eq!((subnets, found("securityGroups")), (wanted, vec![ids[2].as_str()]));
    assert_eq!(status["instanceProfile"], "chris2022090904481313660000000c");

    // What AWS denies is said, and nothing else stops.
    let denied = Fault {
        action: "ec2:DescribeSecurityGroups",
        times: 1,
        status: 403,
        code: "UnauthorizedOperation",
        message: "You are not authorized to perform this operation.",
    };
    pools.bed.moto.fail(denied);
    let third = pools.apply(&CLASS.replace("name: default", "name: third"));
    let why = pools.provider.class_state(&third).await.unwrap().not_ready.unwrap().1;
    assert!(why.contains("ec2:DescribeSecurityGroups is denied"), "{why}");
    assert_eq!(pools.conditions()["SubnetsReady"], "True SubnetsReady");
    pools.bed.stop().await;
}

#[tokio::test]
async fn a_profile_is_made_for_a_role() {
    let (pools, _) = Pools::with_network().await;
    pools.bed.moto.create_role("nodes").await.unwrap();
    let class =
        pools.apply(&CLASS.replace("instanceProfile: chris2022090904481313660000000c", "role: nodes"));
    assert_eq!(pools.provider.class_state(&class).await.unwrap().not_ready, None);
    let launched = pools.launch(&claim("a", &[ON_DEMAND]), &["m5.large"]).await;
    assert!(launched.is_ok(), "{launched:?}");
    let calls = pools.bed.moto.calls();
    let of_iam: Vec<_> = calls.iter().filter(|call| call.starts_with("iam:")).collect();
    assert_eq!(
        of_iam,
        ["iam:GetInstanceProfile", "iam:CreateInstanceProfile", "iam:AddRoleToInstanceProfile"]
    );
    assert_eq!(pools.finalizers(), json!(["karpenter.k8s.aws/termination"]), "before the profile is made");

    // The class is deleted: no machine is launched any more, and the profile goes with it, once.
    let going = "name: default, deletionTimestamp: '2026-01-01T00:00:00Z', \
                 finalizers: [theirs, karpenter.k8s.aws/termination]";
    let class = pools.apply(
        &CLASS
            .replace("name: default", going)
            .replace("instanceProfile: chris2022090904481313660000000c", "role: nodes"),
    );
    let state = pools.provider.class_state(&class).await.unwrap();
    assert!(state.is_ending && state.not_ready.is_some(), "{state:?}");
    let error = pools.launch(&claim("b", &[ON_DEMAND]), &["m5.large"]).await.unwrap_err().to_string();
    assert_eq!(error, "EC2NodeClass default: it is being deleted");
    for (calls, time) in [
        (
            &["iam:GetInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:DeleteInstanceProfile"][..],
            "first",
        ),
        (&["iam:GetInstanceProfile"], "second"),
    ] {
        pools.bed.moto.forget_calls();
        pools.provider.end_class(&class).await.unwrap();
        assert_eq!(pools.bed.moto.calls(), calls, "the {time} time");
        assert_eq!(pools.finalizers(), json!(["theirs"]));
    }
    pools.bed.stop().await;
}

#[tokio::test]
async fn the_profile_of_a_former_role_goes_when_no_claim_uses_it() {
    let (pools, _) = Pools::with_network().await;
    let of_role = |role: &str, noted: &str| {
        let metadata = format!("name: default, annotations: {{tandem.dev/instance-profiles: '{noted}'}}");
        let class = CLASS.replace("name: default", &metadata);
        pools.apply(
            &class.replace("instanceProfile: chris2022090904481313660000000c", &format!("role: {role}")),
        )
    };
    let calls = || {
        let calls = pools.bed.moto.calls();
        pools.bed.moto.forget_calls();
        calls.into_iter().filter(|call| call.starts_with("iam:")).collect::<Vec<_>>()
    };
    for role in ["nodes", "others"] {
        pools.bed.moto.create_role(role).await.unwrap();
    }
    pools.provider.class_state(&of_role("nodes", "")).await.unwrap();
    let former = pools.noted();
    let launched = pools.launch(&claim("a", &[ON_DEMAND]), &["m5.large"]).await.unwrap();
    assert_eq!(launched.annotations[PROFILE], former, "a claim tells with what it was launched");

    pools.provider.class_state(&of_role("others", &former)).await.unwrap();
    let both = pools.noted();
    let current = both.strip_prefix(&format!("{former},")).expect("both profiles").to_owned();
    let class = of_role("others", &both);
    calls();
    let with = |profile: Option<&str>| {
        let mut claim = claim("a", &[ON_DEMAND]);
        let profile = profile.map(|profile| (PROFILE.to_owned(), profile.to_owned()));
        claim.metadata.annotations = Some(profile.into_iter().collect());
        [Arc::new(claim)]
    };
    for users in [with(Some(&former)), with(None)] {
        pools.provider.tidy_class(&class, &users).await.unwrap();
        assert!(calls().is_empty(), "it was removed while a machine may have it");
    }
    pools.provider.tidy_class(&class, &with(Some(&current))).await.unwrap();
    let removal =
        ["iam:GetInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:DeleteInstanceProfile"];
    assert_eq!(calls(), removal);
    assert_eq!(pools.noted(), current);
    pools.provider.tidy_class(&of_role("others", &current), &[]).await.unwrap();
    assert!(calls().is_empty(), "the profile that is in use stays");
    pools.bed.stop().await;
}

#[tokio::test]
async fn a_class_that_names_its_profile_leaves_nothing_behind() {
    let (pools, _) = Pools::with_network().await;
    let class = class_named("default");
    pools.provider.class_state(&class).await.unwrap();
    pools.provider.end_class(&class).await.unwrap();
    assert_eq!(pools.finalizers(), Value::Null);
    assert!(pools.bed.moto.calls().iter().all(|call| !call.starts_with("iam:")));
    pools.bed.stop().await;
}

#[tokio::test]
async fn machines_are_in_the_placement_group_of_their_class() {
    const GROUP: &str = "karpenter.k8s.aws/placement-group-id";
    const PARTITION: &str = "karpenter.k8s.aws/placement-group-partition";
    let (pools, _) = Pools::with_network().await;
    let with = |selector: &str| {
        let selector = format!("  placementGroupSelector: {selector}\n  tags: ");
        pools.apply(&CLASS.replace("  tags: ", &selector))
    };
    for selector in ["{name: kafka}", "{id: pg-kafka}"] {
        let (_, why) = pools.provider.class_state(&with(selector)).await.unwrap().not_ready.unwrap();
        assert!(why.starts_with("PlacementGroupReady: placement group "), "{why}");
        assert_eq!(pools.conditions()["PlacementGroupReady"], "False PlacementGroupNotFound");
        let error = pools.launch(&claim("early", &[ON_DEMAND]), &["m5.large"]).await.unwrap_err().error;
        assert!(matches!(error, CloudError::NotFound(_)), "{error}");
    }
    let id = pools.bed.moto.create_placement_group("kafka", "partition", 3);
    let class = with("{name: kafka}");
    assert_eq!(pools.provider.class_state(&class).await.unwrap().not_ready, None);
    let types = pools.provider.instance_types(&class).await.unwrap();
    assert_eq!(named(&types, "m5.large").offerings.len(), 3 * 2 * 2, "partitions, zones, on demand and spot");

    let launched = pools.launch(&claim("free", &[ON_DEMAND]), &["m5.large"]).await.unwrap();
    let free = launched.labels[PARTITION].clone();
    assert!(["1", "2", "3"].contains(&free.as_str()), "{free}");
    let bound = claim("bound", &[ON_DEMAND, (PARTITION, "2")]);
    let bound = pools.launch(&bound, &["m5.large"]).await.unwrap();
    assert_eq!((bound.labels[GROUP].as_str(), bound.labels[PARTITION].as_str()), (id.as_str(), "2"));
    let two = || "2".to_owned();
    assert_eq!(pools.bed.moto.placements(), [(id.clone(), free), (id, two())]);

    // Burstable machines cannot be in a cluster, says EC2; those of the other group have drifted.
    let id = pools.bed.moto.create_placement_group("training", "cluster", 0);
    let class = with("{id: pg-training}");
    let types = pools.provider.instance_types(&class).await.unwrap();
    assert!(types.iter().all(|one| !one.name.starts_with("t3.")), "{}", types.len());
    let mut old = claim("bound", &[ON_DEMAND]);
    old.metadata.labels.as_mut().unwrap().extend(bound.labels.clone());
    old.metadata.annotations = Some(bound.annotations.clone());
    old.status.get_or_insert_default().provider_id = Some(bound.provider_id.clone());
    assert_eq!(pools.provider.drifted(&old, &class).await.unwrap(), Some("PlacementGroupDrift"));
    old.metadata.labels.as_mut().unwrap().insert(GROUP.to_owned(), id);
    assert_eq!(pools.provider.drifted(&old, &class).await.unwrap(), None);
    pools.bed.stop().await;
}

#[tokio::test]
async fn machines_are_launched_once_found_and_ended() {
    let (pools, ids) = Pools::with_network().await;
    let asked = claim("first", &[ON_DEMAND, (ZONE, ZONES[1])]);
    let throttled = Fault {
        action: "ec2:CreateFleet",
        times: 1,
        status: 503,
        code: "RequestLimitExceeded",
        message: "slow",
    };
    pools.bed.moto.fail(throttled);
    let launched = pools.launch(&asked, &["m5.large", "c5.large", "m5.xlarge"]).await.unwrap();
    assert_eq!(
        (launched.instance_type.as_str(), launched.zone.as_str()),
        ("c5.large", ZONES[1]),
        "the cheapest"
    );
    assert_eq!(launched.capacity_type, "on-demand");
    assert_eq!(launched.labels["karpenter.k8s.aws/instance-family"], "c5");
    assert_eq!(launched.labels[INSTANCE_TYPE], "c5.large");
    assert!(launched.provider_id.starts_with("aws:///eu-central-1b/i-"), "{launched:?}");
    assert_eq!((launched.allocatable.pods, launched.capacity.cpu), (29, 2000));

    // Asked again, after a crash say: the machine that is there.
    let again = pools.launch(&asked, &["m5.large", "c5.large", "m5.xlarge"]).await.unwrap();
    assert_eq!(again.provider_id, launched.provider_id);
    // With other choices EC2 says so, and the machine is found by its tag.
    let again = pools.launch(&asked, &["c5.large"]).await.unwrap();
    assert_eq!(again.provider_id, launched.provider_id);
    assert_eq!(
        (again.image.clone(), again.annotations.get(HASH)),
        (launched.image.clone(), launched.annotations.get(HASH))
    );
    let mut old = claim("first", &[ON_DEMAND]);
    old.metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert_eq!(pools.launch(&old, &["c5.large"]).await.unwrap().provider_id, launched.provider_id);

    pools.bed.moto.page_size(1);
    let second = pools.launch(&claim("second", &[ON_DEMAND]), &["m5.large"]).await.unwrap();
    let listed = pools.provider.list().await.unwrap();
    let mut names: Vec<_> =
        listed.iter().map(|machine| (machine.claim.as_str(), machine.provider_id.as_str())).collect();
    names.sort_unstable();
    assert_eq!(names, [("first", launched.provider_id.as_str()), ("second", second.provider_id.as_str())]);
    let tags = pools.bed.moto.tags_of(launched.provider_id.rsplit('/').next().unwrap()).await.unwrap();
    for (key, value) in [
        ("kubernetes.io/cluster/chris", "owned"),
        ("eks:eks-cluster-name", "chris"),
        ("karpenter.sh/nodepool", "general"),
        ("karpenter.sh/nodeclaim", "first"),
        ("karpenter.k8s.aws/ec2nodeclass", "default"),
        ("Name", "first"),
        ("team", "a"),
    ] {
        assert_eq!(tags.get(key).map(String::as_str), Some(value), "{key}");
    }

    // Not what its class asks for any more.
    let mut running = claim("first", &[]);
    running.metadata.labels.get_or_insert_default().extend(launched.all_labels());
    running.metadata.annotations = Some(launched.annotations.clone());
    running.status.get_or_insert_default().provider_id = Some(launched.provider_id.clone());
    let class = class_named("default");
    assert_eq!(pools.provider.drifted(&running, &class).await.unwrap(), None);
    let other = CLASS.replace(
        "[{tags: {kubernetes.io/cluster/chris: '*'}}]\n  sec",
        &format!("[{{id: {}}}]\n  sec", ids[0]),
    );
    pools.apply(&other);
    assert_eq!(pools.provider.drifted(&running, &class).await.unwrap(), Some("SubnetDrift"));
    pools.apply(&CLASS.replace("team: a", "team: b"));
    assert_eq!(pools.provider.drifted(&running, &class).await.unwrap(), Some("NodeClassDrift"));
    pools.apply(CLASS);

    pools.bed.moto.forget_calls();
    let (one, two) = tokio::join!(
        pools.provider.delete(&launched.provider_id),
        pools.provider.delete(&second.provider_id)
    );
    assert_eq!((one, two), (Ok(()), Ok(())));
    assert_eq!(pools.bed.moto.calls(), ["ec2:TerminateInstances"], "one call for both");
    assert!(matches!(pools.provider.delete(&launched.provider_id).await, Err(CloudError::NotFound(_))));
    assert!(matches!(
        pools.provider.delete("aws:///z/i-0123456789abcdef0").await,
        Err(CloudError::NotFound(_))
    ));
    assert_eq!(pools.provider.list().await.unwrap(), []);
    pools.bed.stop().await;
}

#[tokio::test]
async fn what_is_sold_out_is_told_and_something_else_is_had() {
    let (pools, _) = Pools::with_network().await;
    for zone in ZONES {
        pools.bed.moto.sell_out("c5.large", zone);
    }
    let launched = pools.launch(&claim("a", &[ON_DEMAND]), &["c5.large", "m5.large"]).await.unwrap();
    assert_eq!(launched.instance_type, "m5.large");
    let keys = |sold_out: &[tandem::cloud::pools::OfferingKey]| {
        sold_out
            .iter()
            .map(|key| format!("{} {} {}", key.capacity_type, key.instance_type, key.zone))
            .collect::<Vec<_>>()
    };
    let wanted = ["on-demand c5.large eu-central-1a", "on-demand c5.large eu-central-1b"];
    assert_eq!(keys(&launched.sold_out), wanted);
    let none = pools.launch(&claim("b", &[ON_DEMAND]), &["c5.large"]).await.unwrap_err();
    assert_eq!(keys(&none.sold_out), wanted);
    assert_eq!(none.error.code(), "InsufficientInstanceCapacity");
    let spot = pools.launch(&claim("c", &[(CAPACITY_TYPE, "spot")]), &["m5.large"]).await.unwrap();
    assert_eq!(spot.capacity_type, "spot");
    pools.bed.stop().await;
}

#[tokio::test]
async fn what_ec2_refuses_of_a_class_makes_it_not_ready() {
    let (pools, _) = Pools::with_network().await;
    let class = class_named("default");
    pools.bed.moto.forget_profile("chris2022090904481313660000000c");
    let error = pools.launch(&claim("a", &[ON_DEMAND]), &["m5.large"]).await.unwrap_err().error;
    assert!(matches!(error, CloudError::Configuration { .. }), "{error}");
    let why = pools.provider.class_state(&class).await.unwrap().not_ready.unwrap().1;
    assert!(why.contains("instance profile \"chris2022090904481313660000000c\" is refused by EC2"), "{why}");
    assert_eq!(pools.conditions()["ValidationSucceeded"], "False InstanceProfileNotFound");

    // Another profile is another class.
    pools.apply(&CLASS.replace("chris2022090904481313660000000c", "right"));
    assert_eq!(pools.provider.class_state(&class).await.unwrap().not_ready, None);
    let denied = Fault {
        action: "ec2:CreateFleet",
        times: 1,
        status: 403,
        code: "UnauthorizedOperation",
        message: "You are not authorized to perform this operation.",
    };
    pools.bed.moto.fail(denied);
    let error = pools.launch(&claim("b", &[ON_DEMAND]), &["m5.large"]).await.unwrap_err().error.to_string();
    assert!(error.contains("ec2:CreateFleet is denied"), "{error}");
    assert_eq!(
        pools.provider.class_state(&class).await.unwrap().not_ready.unwrap().1.split(':').next(),
        Some("ValidationSucceeded")
    );
    pools.bed.stop().await;
}
