use serde_json::json;

use super::*;

fn provisioner(spec: &Value) -> Provisioner {
    let object = json!({
        "apiVersion": "karpenter.sh/v1alpha5", "kind": "Provisioner", "metadata": {"name": "default"}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

fn template(spec: &Value) -> AWSNodeTemplate {
    let object = json!({
        "apiVersion": "karpenter.k8s.aws/v1alpha1", "kind": "AWSNodeTemplate", "metadata": {"name": "shared"},
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

fn inline(mut spec: Value, provider: Value) -> Translation {
    spec["provider"] = provider;
    translate(&provisioner(&spec), |_| None).unwrap()
}

#[test]
fn everything_has_its_place() {
    let provisioner = provisioner(&json!({
        "labels": {"team": "a"},
        "annotations": {"karpenter.sh/do-not-consolidate": "true"},
        "taints": [{"key": "gpu", "effect": "NoSchedule"}],
        "startupTaints": [{"key": "cni", "effect": "NoExecute"}],
        "requirements": [{"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["m5"]}],
        "limits": {"resources": {"cpu": 1000, "memory": "4Ti"}},
        "weight": 7,
        "kubeletConfiguration": {"maxPods": 20, "containerRuntime": "dockerd", "registryPullQPS": 5},
        "providerRef": {"name": "shared"},
        "ttlSecondsUntilExpired": 2_592_000,
        "ttlSecondsAfterEmpty": 30,
    }));
    let shared = template(&json!({
        "subnetSelector": {"karpenter.sh/discovery": "mine", "Name": "a,b"},
        "securityGroupSelector": {"aws-ids": "sg-1, sg-2"},
        "instanceProfile": "nodes",
        "tags": {"cost": "x"},
        "userData": "echo",
        "detailedMonitoring": true,
        "metadataOptions": {"httpTokens": "optional"},
    }));
    let translation = translate(&provisioner, |name| (name == "shared").then_some(shared)).unwrap();
    insta::assert_yaml_snapshot!((translation.pool.spec, translation.class.unwrap().spec));
    assert_eq!(translation.lost, [Lost::ContainerRuntime]);
}

#[test]
fn what_the_webhooks_filled_in_is_filled_in() {
    let filled = |requirements: Value, labels: Value| -> Vec<String> {
        let spec = json!({"requirements": requirements, "labels": labels});
        let pool = inline(spec, json!({"instanceProfile": "p"})).pool;
        let requirements = pool.spec.template.spec.requirements;
        requirements.iter().map(|requirement| requirement.read().to_string()).collect()
    };
    assert_eq!(
        filled(json!([]), json!({})),
        [
            "kubernetes.io/os In [linux]",
            "kubernetes.io/arch In [amd64]",
            "karpenter.sh/capacity-type In [on-demand]",
            "karpenter.k8s.aws/instance-category In [c m r]",
            "karpenter.k8s.aws/instance-generation Exists >=3",
        ]
    );
    assert_eq!(
        filled(
            json!([{"key": "beta.kubernetes.io/arch", "operator": "In", "values": ["arm64"]}]),
            json!({"node.kubernetes.io/instance-type": "m5.large"}),
        ),
        [
            "kubernetes.io/arch In [arm64]",
            "kubernetes.io/os In [linux]",
            "karpenter.sh/capacity-type In [on-demand]",
        ]
    );
}

#[test]
fn nodes_go_as_they_went() {
    for (spec, policy, after, expire) in [
        (json!({}), "WhenEmpty", "Never", "Never"),
        (json!({"ttlSecondsAfterEmpty": 0}), "WhenEmpty", "0s", "Never"),
        (json!({"consolidation": {"enabled": false}, "ttlSecondsAfterEmpty": 9}), "WhenEmpty", "9s", "Never"),
        (json!({"consolidation": {"enabled": true}}), "WhenEmptyOrUnderutilized", "0s", "Never"),
        (json!({"ttlSecondsUntilExpired": 60}), "WhenEmpty", "Never", "60s"),
    ] {
        let pool = inline(spec.clone(), json!({"instanceProfile": "p"})).pool.spec;
        assert_eq!(pool.disruption.consolidation_policy.as_deref(), Some(policy), "{spec}");
        assert_eq!(pool.disruption.consolidate_after.as_deref(), Some(after), "{spec}");
        assert_eq!(pool.template.spec.expire_after.as_deref(), Some(expire), "{spec}");
    }
}

#[test]
fn images_are_those_that_were_chosen() {
    let chosen = |provider: Value| {
        let terms = inline(json!({}), provider).class.unwrap().spec.ami_selector_terms;
        serde_json::to_value(terms).unwrap()
    };
    for (provider, wanted) in [
        (json!({}), json!([{"alias": "al2@latest"}])),
        (json!({"amiFamily": "Bottlerocket"}), json!([{"alias": "bottlerocket@latest"}])),
        (json!({"amiFamily": "Ubuntu"}), json!([])),
        (json!({"amiSelector": {"aws::ids": "ami-1,ami-2"}}), json!([{"id": "ami-1"}, {"id": "ami-2"}])),
        (
            json!({"amiSelector": {"aws::name": "n", "aws::owners": "self,amazon", "env": "x"}}),
            json!([
                {"name": "n", "owner": "self", "tags": {"env": "x"}},
                {"name": "n", "owner": "amazon", "tags": {"env": "x"}},
            ]),
        ),
    ] {
        assert_eq!(chosen(provider.clone()), wanted, "{provider}");
    }
}

#[test]
fn what_nothing_stands_for_is_said() {
    let lost = |provider: Value| inline(json!({}), provider).lost;
    assert_eq!(
        lost(json!({"launchTemplate": "mine", "subnetSelector": {"aws-ids": "subnet-1", "env": "x"}})),
        [
            Lost::LaunchTemplate("mine".to_owned()),
            Lost::InstanceProfile,
            Lost::TagsBesideIds("subnetSelector"),
        ]
    );
    assert_eq!(
        lost(json!({"amiFamily": "Ubuntu", "instanceProfile": "p"})),
        [Lost::Images("Ubuntu".to_owned())]
    );
}

#[test]
fn other_providers_keep_their_class() {
    let spec = json!({
        "providerRef": {"apiVersion": "cloud.example/v1", "kind": "MachineClass", "name": "m"},
        "kubeletConfiguration": {"maxPods": 5},
    });
    let translation = translate(&provisioner(&spec), |_| None).unwrap();
    let reference = &translation.pool.spec.template.spec.node_class_ref;
    assert_eq!(
        (&*reference.group, &*reference.kind, &*reference.name),
        ("cloud.example", "MachineClass", "m")
    );
    assert_eq!((translation.class, translation.lost), (None, vec![Lost::Kubelet]));
}

#[test]
fn contradictions_are_refused() {
    let refused = |spec: Value| translate(&provisioner(&spec), |_| None).unwrap_err().to_string();
    for (spec, wanted) in [
        (
            json!({"provider": {}, "ttlSecondsAfterEmpty": 1, "consolidation": {"enabled": true}}),
            "provisioner \"default\" has ttlSecondsAfterEmpty and consolidation.enabled, leave one out",
        ),
        (
            json!({"provider": {}, "providerRef": {"name": "x"}}),
            "provisioner \"default\" has provider and providerRef, leave one out",
        ),
        (
            json!({}),
            "provisioner \"default\" has neither provider nor providerRef, name an AWSNodeTemplate in providerRef",
        ),
        (
            json!({"providerRef": {"name": "gone"}}),
            "provisioner \"default\": there is no AWSNodeTemplate \"gone\"",
        ),
    ] {
        assert_eq!(refused(spec), wanted);
    }
    assert!(refused(json!({"provider": {"tags": 5}})).contains("provider cannot be read"));
}
