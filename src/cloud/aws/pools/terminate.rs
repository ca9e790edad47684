//! Ending machines, many with one call: EC2 allows few calls a second, and up to a thousand machines each.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::cloud::{
    CloudError,
    aws::{client::Client, fleet::launch},
};

/// How long the first waits for others (aws, `pkg/batcher/terminateinstances.go`).
const WINDOW: Duration = Duration::from_millis(100);
/// Machines of one call (aws, as above).
const MOST: usize = 500;

type Asked = (String, oneshot::Sender<Result<(), CloudError>>);

/// Machines that are to end with the next call.
#[derive(Debug, Default)]
pub(super) struct Terminations(Arc<Mutex<Vec<Asked>>>);

impl Terminations {
    /// Starts the end of a machine; [`CloudError::NotFound`] when it has ended.
    pub(super) async fn end(&self, client: &Client, id: &str) -> Result<(), CloudError> {
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut asked = self.0.lock();
            asked.push((id.to_owned(), answer));
            asked.len() == 1
        };
        if is_first {
            // A task of its own: whoever came first may stop waiting, the others do not.
            let (client, asked) = (client.clone(), self.0.clone());
            tokio::spawn(async move {
                tokio::time::sleep(WINDOW).await;
                let mut all = std::mem::take(&mut *asked.lock());
                while !all.is_empty() {
                    let rest = all.split_off(all.len().min(MOST));
                    call(&client, std::mem::replace(&mut all, rest)).await;
                }
            });
        }
        answered.await.unwrap_or_else(|_| {
            let (call, message) = ("ec2:TerminateInstances".to_owned(), "the call was given up".to_owned());
            Err(CloudError::Unreachable { call, message })
        })
    }
}

/// One call for all; where that fails because of one of them, one for each.
async fn call(client: &Client, asked: Vec<Asked>) {
    let ids: Vec<_> = asked.iter().map(|(id, _)| id.clone()).collect();
    let together = launch::terminate(client, &ids).await;
    for (id, answer) in asked {
        let result = match &together {
            Ok(ended) if ended.contains(&id) => Err(gone(&id)),
            Ok(_) => Ok(()),
            Err(CloudError::NotFound(_)) if ids.len() > 1 => {
                match launch::terminate(client, std::slice::from_ref(&id)).await {
                    Ok(ended) if ended.contains(&id) => Err(gone(&id)),
                    other => other.map(|_| ()),
                }
            }
            Err(error) => Err(error.clone()),
        };
        // Who asked may be gone.
        let _ = answer.send(result);
    }
}

fn gone(id: &str) -> CloudError {
    CloudError::NotFound(format!("machine {id}"))
}
