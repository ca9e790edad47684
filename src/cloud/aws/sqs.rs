//! A queue of notices.

use serde::Deserialize;
use serde_json::json;

use super::{
    action::{DELETE_MESSAGE, GET_QUEUE_URL, RECEIVE_MESSAGE},
    client::Client,
};
use crate::cloud::CloudError;

/// Messages of one call: as many as SQS gives.
const MOST: u32 = 10;
/// How long a call waits for a message, in seconds: below what one attempt of a call may take.
const WAIT: u32 = 10;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Message {
    /// Its id, the same whenever it is received.
    pub message_id: String,
    /// By which it is deleted; another whenever it is received.
    pub receipt_handle: String,
    /// What it says.
    #[serde(default)]
    pub body: String,
}

/// The address of a queue by its name.
pub async fn url(client: &Client, name: &str) -> Result<String, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        queue_url: String,
    }
    let answer: Answer = client.json(&GET_QUEUE_URL, &json!({ "QueueName": name })).await?;
    Ok(answer.queue_url)
}

/// Messages of a queue; waits for one. Each is hidden from others for so many seconds.
pub async fn receive(client: &Client, queue: &str, hidden: u32) -> Result<Vec<Message>, CloudError> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct Answer {
        messages: Option<Vec<Message>>,
    }
    let asked = json!({
        "QueueUrl": queue, "MaxNumberOfMessages": MOST, "WaitTimeSeconds": WAIT, "VisibilityTimeout": hidden,
    });
    let answer: Option<Answer> = client.json(&RECEIVE_MESSAGE, &asked).await?;
    Ok(answer.and_then(|answer| answer.messages).unwrap_or_default())
}

/// Removes a message.
pub async fn delete(client: &Client, queue: &str, receipt_handle: &str) -> Result<(), CloudError> {
    let asked = json!({ "QueueUrl": queue, "ReceiptHandle": receipt_handle });
    client.json::<serde::de::IgnoredAny>(&DELETE_MESSAGE, &asked).await.map(|_| ())
}
