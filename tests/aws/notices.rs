//! The queue of notices, and hooks that hold machines.

use tandem::cloud::{
    CloudError,
    aws::{connect, fleet::launch::machines_by_id, lifecycle::Held, sqs},
};

use crate::{Bed, LARGE};

#[tokio::test]
async fn messages_are_received_and_deleted() {
    let bed = Bed::start().await;
    let client = connect(&bed.plain()).await.unwrap();
    let missing = sqs::url(&client, "notices").await;
    assert!(matches!(missing, Err(CloudError::NotFound(_))), "{missing:?}");
    let queue = bed.moto.create_queue("notices").await.unwrap();
    assert_eq!(sqs::url(&client, "notices").await.unwrap(), queue);
    bed.moto.send(&queue, r#"{"a": "b & c"}"#).await.unwrap();
    let messages = sqs::receive(&client, &queue, 20).await.unwrap();
    let bodies: Vec<_> = messages.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(bodies, [r#"{"a": "b & c"}"#]);
    assert_eq!(bed.moto.messages(&queue).await.unwrap(), 1, "received is not deleted");
    sqs::delete(&client, &queue, &messages[0].receipt_handle).await.unwrap();
    assert_eq!(bed.moto.messages(&queue).await.unwrap(), 0);
    let gone = sqs::receive(&client, &format!("{queue}-gone"), 20).await;
    assert!(matches!(gone, Err(CloudError::NotFound(_))), "{gone:?}");
    bed.stop().await;
}

#[tokio::test]
async fn a_machine_that_a_hook_holds_is_let_go_once() {
    let bed = Bed::start().await;
    bed.moto.create_group(&LARGE).await.unwrap();
    bed.moto.hook("web", "drain").await.unwrap();
    let aws = bed.discovered().await;
    let web = crate::group(&aws, "web").await;
    let node = crate::nodes(&web, 0..1);
    tandem::cloud::CloudProvider::delete_nodes(&aws, "web", &node).await.unwrap();
    let machine = node[0].provider_id.rsplit('/').next().unwrap();
    let held = Held { group: "web", hook: "drain", token: "t", machine };
    let client = connect(&bed.plain()).await.unwrap();
    held.heartbeat(&client).await.unwrap();
    assert_eq!(bed.moto.group("web").await.unwrap().1.len(), 2);
    held.complete(&client).await.unwrap();
    assert_eq!(bed.moto.group("web").await.unwrap().1.len(), 1);
    // After a crash it is said again.
    held.complete(&client).await.unwrap();
    bed.stop().await;
}

#[tokio::test]
async fn machines_are_found_by_id_in_whatever_state_and_unknown_ones_are_left_out() {
    let bed = Bed::start().await;
    bed.moto.create_group(&LARGE).await.unwrap();
    let machines = bed.moto.group("web").await.unwrap().1;
    let ended = machines[0].clone();
    bed.moto.ask("ec2", "TerminateInstances", &[("InstanceId.1", &ended)]).await.unwrap();
    let tag = [("ResourceId.1", machines[1].as_str()), ("Tag.1.Key", "ours"), ("Tag.1.Value", "")];
    bed.moto.ask("ec2", "CreateTags", &tag).await.unwrap();
    bed.moto.forget_calls();
    let client = connect(&bed.plain()).await.unwrap();
    let asked = [ended.clone(), machines[1].clone(), "i-00000000000000000".to_owned()];
    let found = machines_by_id(&client, &asked).await.unwrap();
    let has = |machine: &str, key: &str| {
        let machine = found.iter().find(|found| found.instance_id == machine).unwrap();
        machine.tag_set.iter().any(|tag| tag.key == key)
    };
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(has(&machines[1], "ours") && !has(&ended, "ours"));
    assert!(has(&machines[1], "aws:autoscaling:groupName"), "by it the group's own tags are found");
    assert_eq!(bed.moto.calls(), ["ec2:DescribeInstances"]);
    bed.stop().await;
}
