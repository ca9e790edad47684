//! Act: notices that machines are taken away. Their nodes are emptied before, and what a hook holds is let go after.
//!
//! A message is deleted when it is dealt with, and not before: after a crash it comes again. While it is being dealt with it
//! comes again too, and is known.

mod empty;
mod kept;
mod managed;
mod metrics;
mod webhook;

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client as Kubernetes;
use parking_lot::Mutex;
use tandem_core::{
    nodes::interruption::{
        self as notices, Home, Kind, Message, Notice, Settings, Verdict, reasons::not_read,
    },
    scheduling::Node,
};
use tokio::sync::{Semaphore, watch};

use super::pools::Pools;
use crate::{
    cli::interruption::InterruptionArgs,
    cloud::{
        CloudError, CloudProvider,
        aws::{client::Client, sqs},
    },
    cluster::world::World,
    telemetry::events::Events,
};
use managed::Managed;
pub use metrics::Metrics;
pub use webhook::{Announcement, Template, TemplateError, Webhook, WebhookError};

/// Where it went wrong if the queue could not be read (aws-node-termination-handler, `pkg/monitor/sqsevent`).
const MONITOR: &str = "SQS_MONITOR";
/// After a call to the queue that failed, before the next.
const RETRY: Duration = Duration::from_secs(10);

/// The queue of notices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Queue {
    /// By its name.
    Named(String),
    /// By its address.
    At(String),
}

impl Queue {
    /// Its name or its address.
    fn text(&self) -> &str {
        match self {
            Self::Named(text) | Self::At(text) => text,
        }
    }

    /// A queue by its address or its name; none of an empty text.
    pub fn new(text: &str) -> Option<Self> {
        match text.trim() {
            "" => None,
            url if url.contains("://") => Some(Self::At(url.to_owned())),
            name => Some(Self::Named(name.to_owned())),
        }
    }
}

/// What notices need.
pub struct Config {
    /// The API client.
    pub client: Kubernetes,
    /// Pods and nodes.
    pub world: Arc<World>,
    /// Node pools, if there are any.
    pub pools: Option<Arc<Pools>>,
    /// The provider of node groups, if there is one.
    pub groups: Option<Arc<dyn CloudProvider>>,
    /// What speaks to AWS.
    pub aws: Client,
    /// The queue.
    pub queue: Queue,
    /// What the flags say.
    pub args: InterruptionArgs,
    /// What is told of notices beside events, if there is one.
    pub webhook: Option<Arc<Webhook>>,
    /// Writes events.
    pub events: Events,
    /// The pod of this process, where it is said that the queue cannot be read.
    pub own: ObjectReference,
    /// Whether this replica acts.
    pub leading: watch::Receiver<bool>,
}

/// Reads notices and acts on them.
pub struct Interruptions {
    config: Config,
    settings: Settings,
    /// What is known of the queue's address.
    address: Mutex<Option<String>>,
    /// Messages that are being dealt with: by what each is deleted now.
    working: Mutex<HashMap<String, String>>,
    /// By what machines are told from those of others, where the user says so.
    managed: Option<Managed>,
    /// What they came to, for `/metrics`.
    pub metrics: Metrics,
}

/// The pod of this process, as the object of events.
pub fn own_pod(namespace: &str, name: Option<&str>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.unwrap_or("tandem").to_owned()),
        ..ObjectReference::default()
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It is dealt with.
    Done,
    /// It is to come again.
    Again,
}

impl Interruptions {
    /// Nothing is read yet.
    pub fn new(config: Config) -> Arc<Self> {
        let settings = config.args.decisions();
        let managed = config.args.managed.tag().map(Managed::new);
        Arc::new(Self {
            metrics: Metrics::new(managed.is_some()),
            settings,
            managed,
            config,
            address: Mutex::default(),
            working: Mutex::default(),
        })
    }

    /// Reads notices and acts on them; never returns.
    pub async fn run(self: Arc<Self>) {
        let mut leading = self.config.leading.clone();
        let workers = Arc::new(Semaphore::new(self.config.args.workers.max(1)));
        self.config.world.synced().await;
        tokio::spawn(self.clone().count_tagged());
        let mut said = None;
        loop {
            // Its sender lives as long as the process.
            let _ = leading.wait_for(|leads| *leads).await;
            match self.receive().await {
                Ok(messages) => {
                    said = None;
                    for message in messages {
                        // Never closed.
                        let Ok(permit) = workers.clone().acquire_owned().await else { return };
                        let this = self.clone();
                        tokio::spawn(async move {
                            this.handle(message).await;
                            drop(permit);
                        });
                    }
                }
                Err(error) => {
                    self.metrics.failed(MONITOR);
                    let text = error.to_string();
                    if said.as_ref() != Some(&text) {
                        let event = not_read(self.config.queue.text(), &text);
                        tracing::error!("{}", event.message);
                        self.config.events.tell(&self.config.own, &event).await;
                    }
                    said = Some(text);
                    *self.address.lock() = None;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn address(&self) -> Result<String, CloudError> {
        let known = self.address.lock().clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let address = match &self.config.queue {
            Queue::At(url) => url.clone(),
            Queue::Named(name) => sqs::url(&self.config.aws, name).await?,
        };
        tracing::info!(queue = address, "notices of interruptions are read");
        *self.address.lock() = Some(address.clone());
        Ok(address)
    }

    async fn receive(&self) -> Result<Vec<sqs::Message>, CloudError> {
        let address = self.address().await?;
        sqs::receive(&self.config.aws, &address, self.config.args.sqs_msg_visibility_timeout_sec).await
    }

    async fn handle(&self, message: sqs::Message) {
        let sqs::Message { message_id, receipt_handle, body } = message;
        if self.working.lock().insert(message_id.clone(), receipt_handle).is_some() {
            // It is being dealt with; from now on it is deleted by what it came with last.
            return;
        }
        let outcome = self.act(&body).await;
        let handle = self.working.lock().remove(&message_id);
        let (Outcome::Done, Some(handle)) = (outcome, handle) else { return };
        let deleted = match self.address().await {
            Ok(address) => sqs::delete(&self.config.aws, &address, &handle).await,
            Err(error) => Err(error),
        };
        match deleted {
            Ok(()) => self.metrics.deleted(),
            Err(error) => {
                self.metrics.failed("delete");
                tracing::warn!(%error, "a notice that was dealt with is still in the queue, and will come again");
            }
        }
    }

    async fn act(&self, body: &str) -> Outcome {
        let notice = match notices::parse(body) {
            Ok(Message::Notice(notice)) => notice,
            Ok(Message::Other(what)) => {
                self.metrics.received("no_op");
                tracing::debug!(what, "a message is no affair of nodes");
                return Outcome::Done;
            }
            Err(error) => {
                self.metrics.received("no_op");
                self.metrics.failed("parse");
                tracing::warn!(%error, body, "a message of the queue of notices is thrown away");
                return Outcome::Done;
            }
        };
        self.metrics.received(notice.kind.name());
        if let Some(sent) = notice.sent {
            self.metrics.waited(Timestamp::now().duration_since(sent));
        }
        let mut outcome = Outcome::Done;
        let mut others = Vec::new();
        for machine in &notice.machines {
            match self.pooled(&notice, machine).await {
                Some(Outcome::Again) => outcome = Outcome::Again,
                Some(Outcome::Done) => {}
                None => others.push(machine.clone()),
            }
        }
        let Ok(ours) = self.ours(&notice, others).await else { return Outcome::Again };
        for machine in ours {
            if self.machine(&notice, &machine).await == Outcome::Again {
                outcome = Outcome::Again;
            }
        }
        outcome
    }

    /// Those of these machines that are emptied; a notice about others counts as dealt with, as the handler has it.
    async fn ours(&self, notice: &Notice, mut machines: Vec<String>) -> Result<Vec<String>, CloudError> {
        let Some(managed) = &self.managed else { return Ok(machines) };
        let foreign = managed.foreign(&self.config.aws, &machines).await.inspect_err(|error| {
            self.metrics.failed("managed tag");
            tracing::warn!(%error, notice = notice.kind.name(), "it is not known whether machines have the managed tag");
        })?;
        for machine in &foreign {
            tracing::info!(
                machine,
                notice = notice.kind.name(),
                "a machine without the managed tag is left alone"
            );
        }
        machines.retain(|machine| !foreign.contains(machine));
        Ok(machines)
    }

    /// What became of a machine that is a pool's; `None` of another.
    async fn pooled(&self, notice: &Notice, machine: &str) -> Option<Outcome> {
        match self.config.pools.as_ref()?.interrupt(machine, &notice.kind, &self.settings).await {
            Ok(None) => None,
            Ok(Some(Verdict::Leave(_))) => Some(Outcome::Done),
            Ok(Some(_)) => {
                let node = self.node_of(machine);
                self.metrics.acted("cordon-and-drain", notice, node.as_deref(), true);
                self.post(self.announcement(notice, machine, node.as_deref()));
                Some(Outcome::Done)
            }
            Err(error) => {
                let node = self.node_of(machine);
                self.metrics.acted("cordon-and-drain", notice, node.as_deref(), false);
                tracing::warn!(%error, machine, "the node of a machine that is taken away could not be replaced");
                Some(Outcome::Again)
            }
        }
    }

    async fn machine(&self, notice: &Notice, machine: &str) -> Outcome {
        let Some(node) = self.node_of(machine) else { return self.unknown(notice, machine) };
        match notices::decide(&notice.kind, Home::Other, &self.settings) {
            Verdict::Leave(why) => {
                tracing::info!(
                    node = &*node.name,
                    machine,
                    notice = notice.kind.name(),
                    why,
                    "the node stays"
                );
                Outcome::Done
            }
            Verdict::DeleteClaim => Outcome::Done,
            Verdict::Empty { taint, evict } => self.empty(notice, machine, &node, taint, evict).await,
        }
    }

    fn node_of(&self, machine: &str) -> Option<Arc<Node>> {
        let nodes = self.config.world.nodes.all();
        nodes.into_iter().find(|node| node.provider_id.rsplit('/').next() == Some(machine))
    }

    /// What a webhook is told, if there is one.
    fn announcement(&self, notice: &Notice, machine: &str, node: Option<&Node>) -> Option<String> {
        let webhook = self.config.webhook.as_ref()?;
        let pods = node.map(|node| self.pods_of(node)).unwrap_or_default();
        let pods: Vec<_> = pods.iter().map(|pod| pod.name.to_string()).collect();
        let now = Timestamp::now();
        let text = webhook.text(&Announcement { notice, machine, node, pods: &pods, now });
        let text = text.inspect_err(|error| {
            self.metrics.failed("webhook");
            tracing::warn!(%error, "the template of the webhook does not fit a notice");
        });
        text.ok()
    }

    /// Tells the webhook. Nobody waits for it, and a notice counts as dealt with whether it hears of it or not.
    fn post(&self, text: Option<String>) {
        let (Some(webhook), Some(text)) = (self.config.webhook.clone(), text) else { return };
        let metrics = self.metrics.clone();
        tokio::spawn(async move {
            if let Err(error) = webhook.post(text).await {
                metrics.failed("webhook");
                tracing::warn!(%error, "the webhook was not told of a notice");
            }
        });
    }

    /// A machine that is no node here: of another cluster, not a node yet, or none any more.
    fn unknown(&self, notice: &Notice, machine: &str) -> Outcome {
        self.metrics.failed("node not found");
        let is_held = matches!(notice.kind, Kind::TerminateHook(_));
        let stays = is_held && !self.config.args.delete_sqs_msg_if_node_not_found;
        tracing::info!(
            machine,
            notice = notice.kind.name(),
            stays,
            "a notice is about a machine that is no node of this cluster"
        );
        if stays { Outcome::Again } else { Outcome::Done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_or_addressed() {
        assert_eq!(Queue::new(" "), None);
        assert_eq!(Queue::new("notices"), Some(Queue::Named("notices".to_owned())));
        let url = "https://sqs.eu-central-1.amazonaws.com/1/notices";
        assert_eq!(Queue::new(url), Some(Queue::At(url.to_owned())));
    }
}
