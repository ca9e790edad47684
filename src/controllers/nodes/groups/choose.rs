//! Which group grows: the chain of `--expander`, and what its steps read outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::{Api, Client};
use tandem_core::{
    nodes::{
        expander::{
            CONFIG_MAP, Chain, Choice, Context, Expander, Pricing, Priorities, PriorityEvent, Progress, pick,
            waste,
        },
        pass::{ExpansionOption, ScaleUp},
    },
    pods::reasons::Event,
    scheduling::{Node, Pod, Resources, pod::Shape},
};
use tokio::runtime::Handle;

use super::{
    expander_server::{ExpanderServer, ServerError},
    status_map::reference,
};
use crate::{cli::nodes::NodeArgs, cloud::CloudProvider, telemetry::events::Events};

/// A pod that keeps the ratio of prices steady where pods request next to nothing: half a core and 500 MiB, as with
/// Cluster Autoscaler (`expander/price/price.go`).
const STABILIZATION_CPU: i64 = 500;
const STABILIZATION_MEMORY: i64 = 500 << 20;

/// Chooses groups.
pub(super) struct Chooser {
    chain: Chain,
    maps: Api<ConfigMap>,
    /// The ConfigMap of priorities, as the object of events.
    map: ObjectReference,
    server: Option<ExpanderServer>,
    provider: Arc<dyn CloudProvider>,
}

impl Chooser {
    pub(super) fn new(
        client: Client,
        namespace: &str,
        args: &NodeArgs,
        provider: Arc<dyn CloudProvider>,
    ) -> Result<Self, ServerError> {
        let server = || ExpanderServer::new(&args.grpc_expander_url, args.grpc_expander_cert.as_deref());
        Ok(Self {
            server: args.expander.has(Expander::Grpc).then(server).transpose()?,
            chain: args.expander.clone(),
            maps: Api::namespaced(client, namespace),
            map: reference(namespace, CONFIG_MAP),
            provider,
        })
    }

    /// Reads what the choices of one pass need.
    pub(super) async fn prepare(&self, cluster_nodes: usize) -> Choices {
        let mut events = Vec::new();
        let priorities =
            if self.chain.has(Expander::Priority) { self.priorities(&mut events).await } else { None };
        Choices {
            chain: self.chain.clone(),
            priorities,
            events,
            server: self.server.clone(),
            prices: Prices {
                provider: self.chain.has(Expander::Price).then(|| self.provider.clone()),
                nodes: BTreeMap::new(),
                pods: BTreeMap::new(),
            },
            gpu_label: self.provider.gpu_label().to_owned(),
            cluster_nodes,
            runtime: Handle::current(),
        }
    }

    async fn priorities(&self, events: &mut Vec<PriorityEvent>) -> Option<Priorities> {
        let map = match self.maps.get_opt(CONFIG_MAP).await {
            Ok(map) => map,
            Err(error) => {
                tracing::warn!(%error, "ConfigMap {CONFIG_MAP} cannot be read; no group goes first");
                return None;
            }
        };
        let Some(map) = map else {
            tracing::warn!("there is no ConfigMap {CONFIG_MAP}; no group goes first");
            return None;
        };
        Priorities::of_config_map(&map.data.unwrap_or_default())
            .map_err(|error| events.push(PriorityEvent::Invalid(error)))
            .ok()
    }

    /// Tells what the expanders had to say, each thing once.
    pub(super) async fn tell(&self, said: &[PriorityEvent], reporter: &Events) {
        let said: BTreeMap<String, &PriorityEvent> =
            said.iter().map(|event| (event.message(), event)).collect();
        for (message, event) in said {
            tracing::warn!(reason = event.reason(), "{message}");
            let event = Event { type_: "Warning", reason: event.reason(), message };
            reporter.publish(&self.map, &event).await;
        }
    }
}

/// The choices of one pass. They are made on a thread that may block.
pub(super) struct Choices {
    chain: Chain,
    priorities: Option<Priorities>,
    /// What the expanders have to say.
    pub(super) events: Vec<PriorityEvent>,
    server: Option<ExpanderServer>,
    prices: Prices,
    gpu_label: String,
    cluster_nodes: usize,
    runtime: Handle,
}

impl Choices {
    /// One of the options, by its index; `None` to stop.
    pub(super) fn choose(&mut self, scale_up: &ScaleUp<'_>, options: &[ExpansionOption]) -> Option<usize> {
        let choices: Vec<Choice> = options.iter().map(|option| self.choice(scale_up, option)).collect();
        if self.chain.has(Expander::LeastWaste) {
            choices.iter().for_each(say_waste);
        }
        let context = Context {
            priorities: self.priorities.as_ref(),
            cluster_nodes: self.cluster_nodes,
            seed: RandomState::new().build_hasher().finish(),
        };
        let mut progress = self.chain.begin(&choices, &context, &mut self.events);
        let left = loop {
            match progress {
                Progress::Left(left) => break left,
                Progress::Ask(question) => {
                    let kept =
                        ask(self.server.as_ref(), &self.runtime, scale_up, options, &choices, &question.left);
                    progress = self.chain.answer(&question, &kept, &choices, &context, &mut self.events);
                }
            }
        };
        let chosen = pick(&left, context.seed)?;
        tracing::info!("Best option to resize: {}", choices[chosen].group);
        tracing::info!("Estimated {} nodes needed in {}", choices[chosen].nodes, choices[chosen].group);
        Some(chosen)
    }

    fn choice(&mut self, scale_up: &ScaleUp<'_>, option: &ExpansionOption) -> Choice {
        let candidate = &scale_up.candidates[option.candidate];
        let node = &candidate.template.node;
        let pricing = if self.prices.provider.is_some() {
            Pricing {
                node: self.prices.node(&self.runtime, &candidate.group.id, node),
                pods: self.prices.pods(&self.runtime, scale_up, option),
                stabilization: self.prices.stabilization(&self.runtime).unwrap_or(0.0),
                has_gpu: !self.gpu_label.is_empty() && node.labels.contains_key(&self.gpu_label),
                exists: true,
            }
        } else {
            Pricing::default()
        };
        scale_up.choice(option, pricing)
    }
}

fn say_waste(choice: &Choice) {
    let waste = waste(choice);
    tracing::info!(
        "Expanding Node Group {} would waste {:.2}% CPU, {:.2}% Memory, {:.2}% Blended",
        choice.group,
        waste.cpu * 100.0,
        waste.memory * 100.0,
        waste.total() * 50.0
    );
}

/// What the server keeps; everything if it does not say.
fn ask(
    server: Option<&ExpanderServer>,
    runtime: &Handle,
    scale_up: &ScaleUp<'_>,
    options: &[ExpansionOption],
    choices: &[Choice],
    asked: &[usize],
) -> Vec<usize> {
    let Some(server) = server else { return asked.to_vec() };
    match runtime.block_on(server.best(scale_up, options, asked)) {
        Ok(kept) => {
            let kept: BTreeSet<&str> = kept.iter().map(String::as_str).collect();
            asked.iter().copied().filter(|choice| kept.contains(&*choices[*choice].group)).collect()
        }
        Err(status) => {
            tracing::warn!(code = ?status.code(), error = status.message(), "--grpc-expander-url did not choose; all groups stay in the choice");
            asked.to_vec()
        }
    }
}

/// Prices, each asked for once in a pass.
struct Prices {
    /// `None` if prices do not matter.
    provider: Option<Arc<dyn CloudProvider>>,
    nodes: BTreeMap<Arc<str>, Option<f64>>,
    /// By the index of the class that waits; `None` is the pod of stabilization.
    pods: BTreeMap<Option<usize>, Option<f64>>,
}

impl Prices {
    fn node(&mut self, runtime: &Handle, group: &Arc<str>, node: &Node) -> Option<f64> {
        let provider = self.provider.as_ref()?;
        *self.nodes.entry(group.clone()).or_insert_with(|| {
            let price = runtime.block_on(provider.node_price(node)).unwrap_or_else(|error| {
                tracing::warn!(%group, %error, "price of a node is not known");
                None
            });
            if price.is_none() {
                tracing::warn!(%group, "there is no price for this group; --expander=price never chooses it");
            }
            price
        })
    }

    /// Pods of a class request the same, and so cost the same.
    fn pods(&mut self, runtime: &Handle, scale_up: &ScaleUp<'_>, option: &ExpansionOption) -> Option<f64> {
        let scheduled = option.scheduled.iter().enumerate().filter(|(_, count)| **count > 0);
        let mut total = 0.0;
        for (waiting, count) in scheduled {
            let pod = scale_up.waiting[waiting].pods.first()?;
            total += self.pod(runtime, Some(waiting), pod)? * f64::from(*count);
        }
        Some(total)
    }

    fn stabilization(&mut self, runtime: &Handle) -> Option<f64> {
        let requests = Resources {
            cpu: STABILIZATION_CPU,
            memory: STABILIZATION_MEMORY,
            pods: 1,
            ..Resources::default()
        };
        let shape = Arc::new(Shape { requests, ..Shape::default() });
        self.pod(runtime, None, &Pod { name: "stabilize".into(), shape, ..Pod::default() })
    }

    fn pod(&mut self, runtime: &Handle, class: Option<usize>, pod: &Pod) -> Option<f64> {
        let provider = self.provider.as_ref()?;
        *self.pods.entry(class).or_insert_with(|| {
            runtime.block_on(provider.pod_price(pod)).unwrap_or_else(|error| {
                tracing::warn!(pod = pod.key(), %error, "price of a pod is not known");
                None
            })
        })
    }
}
