//! The queue of notices, and hooks that hold machines.

use tandem::cloud::{
    CloudError,
    aws::{connect, lifecycle::Held, sqs},
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
    let messages = sqs::receive(&client, &queue).await.unwrap();
    let bodies: Vec<_> = messages.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(bodies, [r#"{"a": "b & c"}"#]);
    assert_eq!(bed.moto.messages(&queue).await.unwrap(), 1, "received is not deleted");
    sqs::delete(&client, &queue, &messages[0].receipt_handle).await.unwrap();
    assert_eq!(bed.moto.messages(&queue).await.unwrap(), 0);
    let gone = sqs::receive(&client, &format!("{queue}-gone")).await;
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
