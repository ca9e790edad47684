use std::fs;

use k8s_openapi::{
    api::core::v1::Taint as ApiTaint, apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};
use tandem_core::{
    nodes::group::{Instance, InstanceError, InstanceState},
    scheduling::{
        Resources,
        pod::{Shape, Traits},
    },
};

use super::{
    objects::{NodeCondition, NodeSpec, NodeStatus, ObjectMeta, Quantity, Taint},
    protocol::{
        self, Any, GetAvailableGpuTypesResponse, GpuLabelResponse, MetaDuration, NodeGroupAutoscalingOptions,
        NodeGroupAutoscalingOptionsResponse, NodeGroupForNodeResponse, NodeGroupNodesResponse,
        NodeGroupTargetSizeResponse, NodeGroupTemplateNodeInfoResponse, NodeGroupsResponse, PriceResponse,
        WireDuration,
    },
    testing::{Does, Fake},
    *,
};

fn client(fake: &Fake) -> ExternalGrpc {
    ExternalGrpc::connect(&fake.folder.path().join("cloud.yaml"), GroupOptions::default()).unwrap()
}

fn listed(groups: &[(&str, i32, i32)]) -> NodeGroupsResponse {
    let group = |(id, min_size, max_size): &(&str, i32, i32)| protocol::NodeGroup {
        id: (*id).to_owned(),
        min_size: *min_size,
        max_size: *max_size,
        debug: String::new(),
    };
    NodeGroupsResponse { node_groups: groups.iter().map(group).collect() }
}

fn instances(ids: &[&str]) -> NodeGroupNodesResponse {
    let instance = |id: &&str| protocol::Instance { id: (*id).to_owned(), status: None };
    NodeGroupNodesResponse { instances: ids.iter().map(instance).collect() }
}

/// A server with one group `a` of one node.
async fn one_group() -> Fake {
    let fake = Fake::start().await;
    fake.answers("Refresh", &Empty {});
    fake.answers("NodeGroups", &listed(&[("a", 1, 5)]));
    fake.answers("NodeGroupTargetSize", &NodeGroupTargetSizeResponse { target_size: 2 });
    fake.answers("NodeGroupNodes", &instances(&["p://1"]));
    fake
}

fn node(name: &str, provider_id: &str) -> NodeRef {
    NodeRef { name: name.into(), provider_id: provider_id.into(), ..NodeRef::default() }
}

#[tokio::test]
async fn a_group_is_put_together_from_its_calls() {
    let fake = one_group().await;
    fake.answers("GPULabel", &GpuLabelResponse { label: "gpu".to_owned() });
    let status = |state: protocol::InstanceState, code: &str| {
        let error_info = Some(protocol::InstanceErrorInfo {
            error_code: code.to_owned(),
            error_message: "none left".to_owned(),
            instance_error_class: 1,
        });
        Some(protocol::InstanceStatus { instance_state: state.into(), error_info })
    };
    let instance = |id: &str, status| protocol::Instance { id: id.to_owned(), status };
    let nodes = vec![
        instance("p://1", None),
        instance("p://2", status(protocol::InstanceState::Running, "")),
        instance("p://3", status(protocol::InstanceState::Creating, "")),
        instance("p://4", status(protocol::InstanceState::Creating, "QUOTA")),
        instance("p://5", status(protocol::InstanceState::Deleting, "")),
        instance("p://1", None),
    ];
    fake.answers("NodeGroupNodes", &NodeGroupNodesResponse { instances: nodes });
    let options = NodeGroupAutoscalingOptions {
        scale_down_utilization_threshold: 0.7,
        scale_down_unneeded_duration: Some(WireDuration { seconds: 60, nanos: 500_000_000 }),
        scale_down_unready_time: Some(MetaDuration { duration: 2_000_000_000 }),
        zero_or_max_node_scaling: true,
        ..NodeGroupAutoscalingOptions::default()
    };
    let answer = NodeGroupAutoscalingOptionsResponse { node_group_autoscaling_options: Some(options) };
    fake.answers("NodeGroupGetOptions", &answer);

    let provider = client(&fake);
    assert_eq!(provider.gpu_label(), "");
    let (groups, left_out) = provider.groups().await.unwrap();
    assert_eq!(left_out, []);
    assert_eq!(provider.gpu_label(), "gpu");
    let quota =
        InstanceError { out_of_resources: true, code: "QUOTA".to_owned(), message: "none left".to_owned() };
    let wanted = [
        ("p://1", InstanceState::Running),
        ("p://2", InstanceState::Running),
        ("p://3", InstanceState::Creating(None)),
        ("p://4", InstanceState::Creating(Some(quota))),
        ("p://5", InstanceState::Deleting),
    ];
    let wanted = NodeGroup {
        id: "a".into(),
        min: 1,
        max: 5,
        target: 2,
        instances: wanted.map(|(id, state)| Instance { id: id.into(), state }).to_vec(),
        options: GroupOptions {
            utilization_threshold: Some(0.7),
            gpu_utilization_threshold: Some(0.0),
            unneeded_time: Some(SignedDuration::from_millis(60_500)),
            unready_time: Some(SignedDuration::from_secs(2)),
            ignore_daemon_sets: Some(false),
            zero_or_max: true,
            ..GroupOptions::default()
        },
    };
    assert_eq!(groups, [wanted]);
    assert_eq!(fake.methods_asked()[..2], ["Refresh", "NodeGroups"]);
}

#[tokio::test]
async fn what_is_optional_may_be_missing() {
    let fake = one_group().await;
    let provider = client(&fake);
    let (groups, left_out) = provider.groups().await.unwrap();
    assert_eq!((groups.len(), left_out.len()), (1, 0));
    assert_eq!(groups[0].options, GroupOptions::default());
    assert_eq!(provider.template("a").await, Ok(None));
    assert_eq!(provider.node_price(&Node::default()).await, Ok(None));
    assert_eq!(provider.pod_price(&Pod::default()).await, Ok(None));
    assert_eq!(provider.gpu_label(), "");
    assert_eq!(provider.cleanup().await, Ok(()));
    assert_eq!(provider.increase("a", 1, 1).await, Err(CloudError::NotOffered("NodeGroupIncreaseSize")));
}

#[tokio::test]
async fn a_group_that_makes_no_sense_leaves_the_others() {
    let fake = one_group().await;
    let groups = listed(&[("a", 1, 5), ("", 0, 1), ("a", 0, 9), ("b", 5, 1), ("c", -1, 1), ("d", 0, 0)]);
    fake.answers("NodeGroups", &groups);
    let (groups, left_out) = client(&fake).groups().await.unwrap();
    let ids: Vec<_> = groups.iter().map(|group| (&*group.id, group.max)).collect();
    assert_eq!(ids, [("a", 5), ("d", 0)]);
    let named: Vec<_> = left_out.iter().map(|(id, error)| format!("{id}: {error}")).collect();
    let wanted = [
        ": NodeGroups failed: garbage: a group without an id",
        "a: NodeGroups failed: garbage: it is listed twice",
        "b: NodeGroups failed: garbage: sizes from 5 to 1 make no sense",
        "c: NodeGroups failed: garbage: sizes from -1 to 1 make no sense",
    ];
    assert_eq!(named, wanted);
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_the_groups_error() {
    let nan = NodeGroupAutoscalingOptions {
        scale_down_utilization_threshold: f64::NAN,
        ..NodeGroupAutoscalingOptions::default()
    };
    let nan = NodeGroupAutoscalingOptionsResponse { node_group_autoscaling_options: Some(nan) };
    let negative = NodeGroupTargetSizeResponse { target_size: -1 };
    for (method, answer, part) in [
        ("NodeGroupTargetSize", negative.encode_to_vec(), "a target of -1 nodes"),
        ("NodeGroupNodes", instances(&[""]).encode_to_vec(), "an instance without an id"),
        ("NodeGroupGetOptions", nan.encode_to_vec(), "make no sense"),
        ("NodeGroupNodes", b"\xff\xff\xff".to_vec(), "NodeGroupNodes failed"),
    ] {
        let fake = one_group().await;
        fake.does(method, Does::Answers(answer));
        let (groups, left_out) = client(&fake).groups().await.unwrap();
        assert_eq!(groups, [], "{method}");
        let [(id, error)] = &left_out[..] else { panic!("{left_out:?}") };
        assert_eq!(id, "a");
        assert!(error.to_string().contains(part), "{error}");
    }
    let fake = one_group().await;
    fake.does("NodeGroups", Does::Answers(b"garbage".to_vec()));
    assert!(matches!(client(&fake).groups().await, Err(CloudError::Refused { .. })));
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_deadline() {
    let fake = one_group().await;
    let text = format!("address: {}\ngrpc_timeout: 1s\n", fake.address);
    fs::write(fake.folder.path().join("cloud.yaml"), text).unwrap();
    fake.does("NodeGroupNodes", Does::Hangs);
    let (groups, left_out) = client(&fake).groups().await.unwrap();
    assert_eq!(groups, []);
    let wanted = format!("NodeGroupNodes got no answer: {} was silent for 1 s (grpc_timeout)", fake.address);
    assert_eq!(left_out[0].1.to_string(), wanted);
    fake.does("NodeGroupIncreaseSize", Does::Hangs);
    assert!(matches!(client(&fake).increase("a", 1, 1).await, Err(CloudError::Unreachable { .. })));
    assert_eq!(fake.asked::<SizeRequest>("NodeGroupIncreaseSize").len(), 1, "it must not be sent twice");
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let fake = one_group().await;
    let provider = client(&fake);
    fake.does("NodeGroupIncreaseSize", Does::Fails(Status::resource_exhausted("no more")));
    let (code, message) = ("ResourceExhausted".to_owned(), "no more".to_owned());
    assert_eq!(provider.increase("a", 1, 1).await, Err(CloudError::OutOfCapacity { code, message }));
    fake.does("NodeGroupDeleteNodes", Does::Fails(Status::not_found("which?")));
    let error = provider.delete_nodes("a", &[node("n", "p://1")]).await.unwrap_err();
    assert_eq!(error.to_string(), "NodeGroupDeleteNodes failed: NotFound: which?");
    fake.does("Refresh", Does::Fails(Status::unavailable("later")));
    let error = provider.groups().await.unwrap_err();
    assert_eq!(error.to_string(), "Refresh failed: Unavailable: later");
}

#[tokio::test]
async fn sizes_change_by_deltas() {
    let fake = one_group().await;
    for method in ["NodeGroupIncreaseSize", "NodeGroupDecreaseTargetSize", "NodeGroupDeleteNodes", "Cleanup"]
    {
        fake.answers(method, &Empty {});
    }
    let provider = client(&fake);
    provider.increase("a", 2, 3).await.unwrap();
    provider.decrease_target("a", 5, 2).await.unwrap();
    let doomed = NodeRef {
        labels: [("l".to_owned(), "1".to_owned())].into(),
        annotations: [("a".to_owned(), "2".to_owned())].into(),
        ..node("n", "p://1")
    };
    provider.delete_nodes("a", &[doomed]).await.unwrap();
    provider.cleanup().await.unwrap();
    let id = "a".to_owned();
    let (up, down) = (SizeRequest { delta: 3, id: id.clone() }, SizeRequest { delta: -2, id: id.clone() });
    assert_eq!(fake.asked::<SizeRequest>("NodeGroupIncreaseSize"), [up]);
    assert_eq!(fake.asked::<SizeRequest>("NodeGroupDecreaseTargetSize"), [down]);
    let doomed = ExternalGrpcNode {
        provider_id: "p://1".to_owned(),
        name: "n".to_owned(),
        labels: [("l".to_owned(), "1".to_owned())].into(),
        annotations: [("a".to_owned(), "2".to_owned())].into(),
    };
    let wanted = NodeGroupDeleteNodesRequest { nodes: vec![doomed], id };
    assert_eq!(fake.asked::<NodeGroupDeleteNodesRequest>("NodeGroupDeleteNodes"), [wanted]);
}

#[tokio::test]
async fn the_group_of_a_node_is_asked_for_once() {
    let fake = one_group().await;
    let provider = client(&fake);
    let (groups, _) = provider.groups().await.unwrap();
    let group = |id: &str| NodeGroupForNodeResponse {
        node_group: Some(protocol::NodeGroup { id: id.to_owned(), ..protocol::NodeGroup::default() }),
    };
    fake.answers("NodeGroupForNode", &group("a"));
    let instance = provider.group_of(&node("n1", "p://1"), &groups).await;
    assert_eq!(instance, Ok(Some("a".into())), "listed as an instance");
    assert_eq!(fake.asked::<NodeGroupForNodeRequest>("NodeGroupForNode"), []);
    for _ in 0..2 {
        let other = provider.group_of(&node("n2", "p://2"), &groups).await;
        assert_eq!(other, Ok(Some("a".into())));
    }
    assert_eq!(fake.asked::<NodeGroupForNodeRequest>("NodeGroupForNode").len(), 1);
    for (id, name) in [("", "nobody's"), ("gone", "of a group that is not listed")] {
        fake.answers("NodeGroupForNode", &group(id));
        assert_eq!(provider.group_of(&node(name, ""), &groups).await, Ok(None), "{name}");
    }
    provider.groups().await.unwrap();
    fake.answers("NodeGroupForNode", &group("a"));
    assert_eq!(provider.group_of(&node("nobody's", ""), &groups).await, Ok(Some("a".into())));
}

fn wire_template() -> objects::Node {
    let quantity = |(name, text): (&str, &str)| (name.to_owned(), Quantity { string: text.to_owned() });
    objects::Node {
        metadata: Some(ObjectMeta {
            name: "tmpl".to_owned(),
            labels: [("zone".to_owned(), "x".to_owned())].into(),
            ..ObjectMeta::default()
        }),
        spec: Some(NodeSpec {
            provider_id: String::new(),
            unschedulable: false,
            taints: vec![Taint {
                key: "t".to_owned(),
                value: "v".to_owned(),
                effect: "NoSchedule".to_owned(),
            }],
        }),
        status: Some(NodeStatus {
            capacity: [("cpu", "4"), ("memory", "8Gi"), ("pods", "110")].map(quantity).into(),
            allocatable: [("cpu", "3900m"), ("memory", "7Gi"), ("pods", "110")].map(quantity).into(),
            conditions: Vec::new(),
        }),
    }
}

#[tokio::test]
async fn a_template_is_a_node_in_bytes() {
    let fake = one_group().await;
    let provider = client(&fake);
    let bytes = wire_template().encode_to_vec();
    let answer = NodeGroupTemplateNodeInfoResponse {
        node_bytes: bytes.clone(),
        ..NodeGroupTemplateNodeInfoResponse::default()
    };
    fake.answers("NodeGroupTemplateNodeInfo", &answer);
    let template = provider.template("a").await.unwrap().unwrap();
    assert_eq!(&*template.node.name, "tmpl");
    assert_eq!(template.node.labels["zone"], "x");
    let taint = ApiTaint {
        key: "t".to_owned(),
        value: Some("v".to_owned()),
        effect: "NoSchedule".to_owned(),
        time_added: None,
    };
    assert_eq!(template.node.taints, [taint]);
    let resources = |cpu: &str, memory: &str| {
        let list = [("cpu", cpu), ("memory", memory), ("pods", "110")];
        Resources::from_list(&list.map(|(name, text)| (name.to_owned(), ApiQuantity(text.to_owned()))).into())
    };
    assert_eq!(template.node.capacity, resources("4", "8Gi"));
    assert_eq!(template.node.allocatable, resources("3900m", "7Gi"));
    assert!(template.node.ready);
    // A server for versions before 1.35, for another group since templates are kept.
    let old = NodeGroupTemplateNodeInfoResponse {
        node_info: bytes,
        ..NodeGroupTemplateNodeInfoResponse::default()
    };
    fake.answers("NodeGroupTemplateNodeInfo", &old);
    assert_eq!(provider.template("b").await.unwrap().unwrap().node, template.node);
    assert_eq!(provider.template("a").await.unwrap().unwrap(), template);
    assert_eq!(fake.asked::<GroupId>("NodeGroupTemplateNodeInfo").len(), 2);
    for (group, bytes, part) in [
        ("c", b"\x0a\xff".to_vec(), "nodeBytes are no v1.Node"),
        ("d", objects::Node::default().encode_to_vec(), ""),
        ("e", b"\x0a\x03\x0a\x01n".to_vec(), "neither allocatable nor capacity"),
    ] {
        let answer = NodeGroupTemplateNodeInfoResponse { node_bytes: bytes, node_info: Vec::new() };
        fake.answers("NodeGroupTemplateNodeInfo", &answer);
        match provider.template(group).await {
            Err(error) => assert!(!part.is_empty() && error.to_string().contains(part), "{error}"),
            Ok(template) => assert!(part.is_empty() && template.is_none(), "{group}: {template:?}"),
        }
    }
}

#[tokio::test]
async fn a_template_that_is_not_ready_says_so() {
    let mut template = wire_template();
    let condition =
        NodeCondition { r#type: "Ready".to_owned(), status: "False".to_owned(), ..NodeCondition::default() };
    template.status.as_mut().unwrap().conditions = vec![condition];
    let fake = one_group().await;
    let answer =
        NodeGroupTemplateNodeInfoResponse { node_bytes: template.encode_to_vec(), node_info: Vec::new() };
    fake.answers("NodeGroupTemplateNodeInfo", &answer);
    assert!(!client(&fake).template("a").await.unwrap().unwrap().node.ready);
}

#[tokio::test]
async fn prices_are_for_an_hour() {
    let fake = one_group().await;
    let provider = client(&fake);
    fake.answers("PricingNodePrice", &PriceResponse { price: 0.25 });
    fake.answers("PricingPodPrice", &PriceResponse { price: 0.125 });
    let priced = Node { name: "n".into(), provider_id: "p://1".into(), ..Node::default() };
    assert_eq!(provider.node_price(&priced).await, Ok(Some(0.25)));
    let asked = &fake.asked::<PricingNodePriceRequest>("PricingNodePrice")[0];
    assert_eq!(asked.node.as_ref().unwrap().provider_id, "p://1");
    let seconds = asked.end_timestamp.unwrap().seconds - asked.start_timestamp.unwrap().seconds;
    assert_eq!(seconds, 3600);
    assert_eq!((asked.start_time, asked.end_time), (asked.start_timestamp, asked.end_timestamp));

    let requests = Resources { cpu: 1500, memory: 1 << 30, pods: 1, ..Resources::default() };
    let shape = Shape::new(requests, Traits { namespace: "shop".into(), ..Traits::default() });
    let pod = Pod { name: "web".into(), shape: Arc::new(shape), ..Pod::default() };
    assert_eq!(provider.pod_price(&pod).await, Ok(Some(0.125)));
    let asked = &fake.asked::<PricingPodPriceRequest>("PricingPodPrice")[0];
    assert_eq!(asked.pod, asked.pod_bytes);
    // metadata {name, namespace}, spec {containers {name, resources {requests}}}
    let bytes = b"\x0a\x0b\x0a\x03web\x1a\x04shop\
        \x12\x36\x12\x34\x0a\x08requests\x42\x28\
        \x12\x0e\x0a\x03cpu\x12\x07\x0a\x051500m\
        \x12\x16\x0a\x06memory\x12\x0c\x0a\x0a1073741824";
    assert_eq!(asked.pod_bytes, bytes);
    for price in [f64::NAN, f64::INFINITY, -1.0] {
        fake.answers("PricingNodePrice", &PriceResponse { price });
        assert!(matches!(provider.node_price(&priced).await, Err(CloudError::Refused { .. })), "{price}");
    }
}

#[tokio::test]
async fn gpu_types_are_the_keys_of_a_map() {
    let fake = one_group().await;
    let any = Any { type_url: "x".to_owned(), value: vec![1] };
    let gpu_types = [("k80".to_owned(), any)].into();
    fake.answers("GetAvailableGPUTypes", &GetAvailableGpuTypesResponse { gpu_types });
    assert_eq!(client(&fake).gpu_types().await, Ok(["k80".to_owned()].into()));
}

#[tokio::test]
async fn a_server_that_is_gone_is_found_again() {
    let fake = one_group().await;
    let provider = client(&fake);
    provider.groups().await.unwrap();
    let address = fake.address.clone();
    fake.stop().await;
    let error = provider.groups().await.unwrap_err();
    assert!(matches!(error, CloudError::Unreachable { .. }), "{error}");
    let fake = Fake::start_at(&address).await;
    fake.answers("Refresh", &Empty {});
    fake.answers("NodeGroups", &listed(&[]));
    assert_eq!(provider.groups().await, Ok((vec![], vec![])));
}

#[tokio::test]
async fn both_sides_show_certificates() {
    let fake = Fake::start_mutual_tls().await;
    fake.answers("Cleanup", &Empty {});
    client(&fake).cleanup().await.unwrap();
    assert_eq!(fake.methods_asked(), ["Cleanup"]);
    let stranger =
        format!("address: {}\ncacert: {}\n", fake.address, fake.folder.path().join("ca.crt").display());
    fs::write(fake.folder.path().join("cloud.yaml"), stranger).unwrap();
    assert!(matches!(client(&fake).cleanup().await, Err(CloudError::Unreachable { .. })));
}

#[tokio::test]
async fn a_file_that_cannot_be_used_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloud.yaml");
    let error = |text: &str| {
        fs::write(&path, text).unwrap();
        ExternalGrpc::connect(&path, GroupOptions::default())
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    for (text, part) in [
        ("", "address \"\" should be HOST:PORT"),
        ("address: server", "address \"server\" should be HOST:PORT"),
        ("address: https://server:1/", "should be HOST:PORT"),
        ("address: s:1\ngrpc_timeout: soon", "grpc_timeout \"soon\" is no duration"),
        ("address: s:1\ngrpc_timeout: 0s", "grpc_timeout \"0s\" is no duration above zero"),
        ("address: s:1\ncert: /c", "cert and key belong together"),
        ("address: s:1\ncacert: /nowhere/ca", "cacert /nowhere/ca cannot be read"),
        ("address: [", "is no YAML of its kind"),
    ] {
        let error = error(text);
        assert!(error.contains(part) && error.contains("cloud.yaml"), "{text}: {error}");
    }
    assert_eq!(error("address: '[fd00::1]:8086'"), "");
    fs::write(folder.path().join("ca"), "text").unwrap();
    let ca = format!("address: s:1\ncacert: {}", folder.path().join("ca").display());
    assert!(error(&ca).contains("is no PEM"));
}

/// What protoc's encoders make of the same values, by the wire format's rules.
#[test]
fn the_wire_is_that_of_the_proto() {
    let group = protocol::NodeGroup { id: "g".to_owned(), min_size: 1, max_size: 300, debug: "d".to_owned() };
    assert_eq!(group.encode_to_vec(), b"\x0a\x01g\x10\x01\x18\xac\x02\x22\x01d");
    let node = ExternalGrpcNode {
        provider_id: "p".to_owned(),
        name: "n".to_owned(),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        annotations: [("a".to_owned(), String::new())].into(),
    };
    let bytes = b"\x0a\x01p\x12\x01n\x1a\x06\x0a\x01k\x12\x01v\x22\x03\x0a\x01a";
    assert_eq!(ExternalGrpcNode::decode(&bytes[..]).unwrap(), node);
    let down = SizeRequest { delta: -1, id: "g".to_owned() };
    let minus_one = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_eq!(down.encode_to_vec(), [&minus_one[..], b"\x12\x01g"].concat());
    let instance = b"\x0a\x01i\x12\x0b\x08\x02\x12\x07\x0a\x01c\x12\x00\x18\x63";
    let decoded = protocol::Instance::decode(&instance[..]).unwrap();
    let error = protocol::InstanceErrorInfo {
        error_code: "c".to_owned(),
        error_message: String::new(),
        instance_error_class: 99,
    };
    let status = protocol::InstanceStatus { instance_state: 2, error_info: Some(error) };
    assert_eq!(decoded, protocol::Instance { id: "i".to_owned(), status: Some(status) });
    let second = Some(WireDuration { seconds: 1, nanos: 0 });
    let options = NodeGroupAutoscalingOptions {
        scale_down_utilization_threshold: 1.5,
        zero_or_max_node_scaling: true,
        ignore_daemon_sets_utilization: true,
        scale_down_unneeded_duration: second,
        scale_down_unready_duration: second,
        max_node_provision_duration: second,
        max_node_startup_duration: second,
        ..NodeGroupAutoscalingOptions::default()
    };
    let bytes = b"\x09\x00\x00\x00\x00\x00\x00\xf8\x3f\x30\x01\x38\x01\
        \x42\x02\x08\x01\x4a\x02\x08\x01\x52\x02\x08\x01\x5a\x02\x08\x01";
    assert_eq!(options.encode_to_vec(), bytes);
    let template = NodeGroupTemplateNodeInfoResponse { node_info: Vec::new(), node_bytes: vec![7] };
    assert_eq!(template.encode_to_vec(), b"\x12\x01\x07");
}
