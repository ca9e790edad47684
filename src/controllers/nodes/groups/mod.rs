//! Node groups: what a pass asks for, done.

mod act;
mod choose;
mod expander_server;
pub mod injection;
mod latency;
pub mod liveness;
pub mod look;
pub mod metrics;
mod parts;
mod rehearsal;
pub mod remove;
mod report;
pub mod settings;
pub mod status_map;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use parking_lot::Mutex;
use tandem_core::{
    nodes::{
        action::Action,
        group::NodeGroup,
        pass::{self, Input, Memory, Model, Outcome, PassSettings, ScaleDownSettings, ScaleUp},
        printed::duration,
        provisioning_request::{Answer, Answered},
        reasons,
        template::PassingTaints,
        told::Learned,
    },
    scheduling::Node,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use self::expander_server::ServerError;
use self::{
    act::{Removed, SoftTaints},
    choose::Chooser,
    injection::Injection,
    liveness::Liveness,
    metrics::Metrics,
    parts::Parts,
    rehearsal::Rehearsal,
    remove::RemoveOptions,
    report::{Reporter, Told},
    status_map::StatusMap,
};
use crate::{
    cli::nodes::NodeArgs,
    cloud::{CloudError, CloudProvider},
    cluster::world::World,
    controllers::nodes::{
        buffer::{Buffers, Loop},
        capacity_quota::CapacityQuotas,
        demand::{Demand, Expected},
        provisioning_request::{Requests, Seen, requests},
    },
    dry_run::Recorder,
    telemetry::events::Events,
};

/// After a pod that fits nowhere others follow within moments: the pass waits until so long none came.
const BATCH_IDLE: Duration = Duration::from_millis(200);
/// A stream of such pods is not waited for longer than this.
const BATCH_MAX: Duration = Duration::from_secs(1);

/// How long the provider may take to clean up: of the 12 s that all have to end, some are others'.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// What the loop works with.
pub struct NodeGroups {
    client: Client,
    world: Arc<World>,
    demand: Option<Arc<Demand>>,
    buffers: Option<Arc<Buffers>>,
    requests: Option<Requests>,
    injection: Option<Injection>,
    quotas: Option<CapacityQuotas>,
    provider: Arc<dyn CloudProvider>,
    args: NodeArgs,
    settings: PassSettings,
    /// What the last pass saw; a pass that breaks off loses it.
    model: Option<Model>,
    /// What nodes told of themselves.
    told: Learned,
    removal: RemoveOptions,
    passing: PassingTaints,
    chooser: Chooser,
    reporter: Reporter,
    status: StatusMap,
    metrics: Arc<Metrics>,
    liveness: Arc<Liveness>,
    /// Nodes whose removal is under way, and whether they are drained.
    removing: Arc<Mutex<BTreeMap<Arc<str>, bool>>>,
    /// What is wrong with the provider or its groups, as it was said last.
    problems: Vec<String>,
    strangers: look::Strangers,
    /// In a dry run.
    rehearsal: Option<Rehearsal>,
}

impl NodeGroups {
    /// Puts the parts together. `namespace` is where the status ConfigMap lives; with a `recorder` nothing is done.
    ///
    /// # Errors
    /// `--expander` has `grpc`, and it is not said where the server is, or whom to trust.
    pub fn new(
        client: Client,
        (world, demand): (Arc<World>, Option<Arc<Demand>>),
        provider: Arc<dyn CloudProvider>,
        args: NodeArgs,
        events: Events,
        namespace: &str,
        recorder: Option<Arc<Recorder>>,
    ) -> Result<Self, ServerError> {
        let map = status_map::reference(namespace, &args.status_config_map_name);
        Ok(Self {
            chooser: Chooser::new(client.clone(), namespace, &args, provider.clone())?,
            settings: settings::pass(&args, &*provider),
            model: None,
            told: Learned::default(),
            removal: settings::remove(&args),
            passing: settings::passing_taints(&args),
            reporter: Reporter::new(events, map),
            status: StatusMap::new(
                client.clone(),
                namespace,
                &args.status_config_map_name,
                args.write_status_configmap && recorder.is_none(),
            ),
            metrics: Arc::new(Metrics::new(&args)),
            liveness: Liveness::new(&args),
            removing: Arc::default(),
            problems: Vec::new(),
            strangers: look::Strangers::default(),
            rehearsal: recorder.map(Rehearsal::new),
            client,
            world,
            demand,
            buffers: None,
            requests: None,
            injection: Injection::new(&args),
            quotas: None,
            provider,
            args,
        })
    }

    /// Keeps the room of buffers, too.
    #[must_use]
    pub fn keeping(self, buffers: Option<Arc<Buffers>>) -> Self {
        Self { buffers, ..self }
    }

    /// Answers ProvisioningRequests, too.
    #[must_use]
    pub fn answering(self, requests: Option<Requests>) -> Self {
        Self { requests, ..self }
    }

    /// Keeps CapacityQuotas, too.
    #[must_use]
    pub fn within(self, quotas: Option<CapacityQuotas>) -> Self {
        Self { quotas, ..self }
    }

    /// What `/metrics` shows of it.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Whether it goes on.
    pub fn liveness(&self) -> Arc<Liveness> {
        self.liveness.clone()
    }

    /// Runs passes while this replica leads, until `shutdown`.
    pub async fn run(mut self, mut leading: watch::Receiver<bool>, shutdown: CancellationToken) {
        // From now on: caches that are never filled are no reason to wait for ever.
        tokio::spawn(self.liveness.clone().follow(leading.clone()));
        self.world.synced().await;
        if let Some(buffers) = &self.buffers {
            buffers.synced().await;
        }
        if let Some(requests) = &self.requests {
            requests.synced().await;
        }
        if let Some(quotas) = &self.quotas {
            quotas.synced().await;
        }
        let mut rises = self.demand.as_ref().map(|demand| demand.rises());
        let (removed, mut removals) = mpsc::unbounded_channel();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                led = leading.wait_for(|leads| *leads) => if led.is_err() { return },
            }
            let mut memory = self.status.start().await;
            let mut first = true;
            while *leading.borrow() && !shutdown.is_cancelled() {
                let started = Instant::now();
                tracing::debug!("Starting main loop");
                self.metrics.activity("main");
                self.liveness.begins();
                match self.pass(&mut memory, first, &removed).await {
                    Ok((outcome, groups)) => {
                        first = false;
                        self.metrics.passed(&outcome, started.elapsed());
                        if self.args.emit_per_nodegroup_metrics {
                            self.metrics.of_groups(&outcome.found, &groups, &memory.cluster);
                        }
                        self.status.write(&outcome, &groups, &memory, &self.problems).await;
                        // One that broke off has left nothing behind.
                        if self.model.is_some() {
                            self.liveness.succeeded();
                            self.metrics.took("mainSuccessful", started.elapsed());
                        }
                    }
                    Err(error) => {
                        self.metrics.error("cloudProviderError");
                        self.metrics.took("main", started.elapsed());
                        let problem = format!("the provider's node groups cannot be read: {error}");
                        self.say(vec![problem]).await;
                        self.status.say(&self.problems, &memory).await;
                    }
                }
                let waits = Instant::now();
                self.wait(started, &mut memory, &mut removals, &mut rises, &shutdown).await;
                self.metrics.took("loopWait", waits.elapsed());
            }
            if shutdown.is_cancelled() {
                self.status.clear().await;
                return self.clean_up().await;
            }
        }
    }

    /// Tells the provider that this was the last call. Who does not lead says nothing: the leader goes on.
    async fn clean_up(&self) {
        let provider = self.provider.name();
        match tokio::time::timeout(CLEAN_UP, self.provider.cleanup()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(provider, %error, "the provider could not clean up"),
            Err(_) => tracing::warn!(
                provider,
                seconds = CLEAN_UP.as_secs(),
                "the provider did not clean up in time"
            ),
        }
    }

    /// Until the next pass is due: at once for pods that fit nowhere or are expected, else after the scan interval.
    async fn wait(
        &self,
        started: Instant,
        memory: &mut Memory,
        removals: &mut mpsc::UnboundedReceiver<Removed>,
        rises: &mut Option<watch::Receiver<u64>>,
        shutdown: &CancellationToken,
    ) {
        let due = started + self.args.scan_interval;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep_until(due) => {
                    let interval = SignedDuration::try_from(self.args.scan_interval).unwrap_or_default();
                    return tracing::debug!("Autoscaler loop triggered by a {} timer", duration(interval));
                }
                Some(removed) = removals.recv() => act::remember(memory, &removed, &self.settings),
                () = rise(rises, started) => {
                    return tracing::info!("Autoscaler loop triggered by pods that are expected");
                }
                () = self.world.unschedulable.notified() => {
                    batch(&self.world).await;
                    return tracing::info!("Autoscaler loop triggered by unschedulable pod appearing");
                }
            }
        }
    }

    async fn pass(
        &mut self,
        memory: &mut Memory,
        first: bool,
        removed: &mpsc::UnboundedSender<Removed>,
    ) -> Result<(Outcome, Vec<NodeGroup>), CloudError> {
        let started = Instant::now();
        let nodes = self.world.nodes();
        let (mut groups, mut problems) = look::groups(&*self.provider).await?;
        if self.strangers.come(&nodes, &groups) {
            self.provider.changed().await;
            (groups, problems) = look::groups(&*self.provider).await?;
        }
        self.say(problems).await;
        self.metrics.took("cloudProviderRefresh", started.elapsed());
        self.metrics.of_sizes(&groups);
        if let Some(rehearsal) = self.rehearsal.take() {
            let (outcome, rehearsal) = self.rehearse(rehearsal, (nodes, &groups), memory).await;
            self.rehearsal = Some(rehearsal);
            return Ok((outcome, groups));
        }
        let (input, seen) = self.input((nodes, groups.clone())).await;
        if first {
            for action in pass::left_over(&input.nodes, &input.removing) {
                self.act(&action, &groups, memory, removed).await;
            }
        }
        self.metrics.of_cluster(input.nodes.iter().map(|node| &**node), input.removing.len());
        self.metrics.of_templates(&input.templates, self.provider.gpu_label());
        let before = memory.clone();
        let (decides, read) = (Instant::now(), started.elapsed());
        let (outcome, after) = self.decide(input, before, read).await;
        *memory = after;
        self.metrics.took("autoscaling", decides.elapsed());
        self.tell(&outcome, &groups, memory).await;
        let actions = outcome.actions.clone();
        self.act_all(&actions, &groups, memory, removed).await;
        self.answer(seen, &outcome, memory).await;
        Ok((outcome, groups))
    }

    /// Says what is wrong with the provider or its groups: what is new, once.
    async fn say(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            self.reporter.on_status(&reasons::provider_problem(problem)).await;
        }
        self.problems = problems;
    }

    /// Says what was decided, and tells buffers where their room would be.
    async fn tell(&self, outcome: &Outcome, groups: &[NodeGroup], memory: &Memory) {
        let ScaleDownSettings { enabled: shrinks, recheck, .. } = self.settings.scale_down;
        let told = Told { outcome, memory, groups, shrinks, recheck, now: Timestamp::now() };
        self.reporter.decided(&told).await;
        let total = outcome.found.total;
        if !self.args.scale_up_from_zero && total.ready == 0 {
            self.reporter.on_status(&reasons::no_nodes(total.registered == 0)).await;
        }
        if let Some(buffers) = &self.buffers {
            self.reporter.room(outcome, |buffer| buffers.reference(buffer)).await;
            let placed = outcome.buffers.iter().map(|it| (it.buffer.clone(), it.placement));
            buffers.placed(Loop::Groups, placed.collect());
        }
    }

    /// Tells ProvisioningRequests what became of them. Those whose groups refused to grow are tried again, as others are that
    /// found no room.
    async fn answer(&self, seen: Vec<Seen>, outcome: &Outcome, memory: &mut Memory) {
        let Some(requests) = &self.requests else { return };
        let now = Timestamp::now();
        let grown = outcome.plan.increases.iter().map(|increase| &increase.group);
        let failed: BTreeSet<Arc<str>> =
            grown.filter(|group| memory.cluster.backoffs.of(group, now).is_some()).cloned().collect();
        for Answered { uid, answer, .. } in &outcome.requests {
            if matches!(answer, Answer::Provisioned(groups) if groups.iter().any(|it| failed.contains(it))) {
                memory.requests.fail(uid, "CapacityIsNotFound", "", now, self.settings.requests);
            }
        }
        requests.tell(seen, &outcome.requests, &failed).await;
    }

    async fn input(&mut self, there: (Vec<Arc<Node>>, Vec<NodeGroup>)) -> (Input, Vec<Seen>) {
        let force_ds = self.args.force_ds;
        let mut input =
            look::look(&self.world, &*self.provider, &self.passing, &mut self.told, force_ds, there).await;
        let Expected { pods, owners } = match &self.demand {
            Some(demand) => demand.expected(&input.pods).await,
            None => Expected::default(),
        };
        input.expected = pods;
        if let Some(injection) = &mut self.injection {
            let pods = injection.expected(&input, &owners, &self.settings.pending, &self.world);
            input.expected.extend(pods);
        }
        if let Some(buffers) = &self.buffers {
            input.expected.extend(buffers.pods());
        }
        let seen = self.requests.as_ref().map(|requests| requests.look(&input.pods, input.now));
        let seen = seen.unwrap_or_default();
        input.requests = requests(&seen);
        if let Some(quotas) = &self.quotas {
            input.quotas = quotas.look(&input.nodes).await;
        }
        input.removing = self.removing.lock().clone();
        (input, seen)
    }

    /// The pass itself, off the threads that serve: it computes for as long as a second on a great cluster.
    /// What it is about took so long to be read.
    async fn decide(&mut self, input: Input, mut memory: Memory, read: Duration) -> (Outcome, Memory) {
        let mut model = self.model.take().unwrap_or_else(|| Model::new(self.settings.clone()));
        let unchanged = memory.clone();
        let mut choices = self.chooser.prepare(input.nodes.len()).await;
        let pass = tokio::task::spawn_blocking(move || {
            let mut choose = |scale_up: &ScaleUp<'_>, options: &[_]| choices.choose(scale_up, options);
            let mut parts = Parts::after(read);
            let mut ended = |part| parts.ended(part);
            let outcome = model.pass_in_parts(&mut memory, &input, &mut choose, &mut ended);
            (outcome, memory, choices.events, parts, Some(model))
        });
        let (outcome, memory, said, parts, model) = pass.await.unwrap_or_else(|error| {
            self.metrics.error("internalError");
            tracing::error!(%error, "a pass broke off; nothing is done");
            (Outcome::default(), unchanged, Vec::new(), Parts::default(), None)
        });
        self.model = model;
        for (function, took) in parts.took(&outcome) {
            self.metrics.took(function, took);
        }
        self.chooser.tell(&said, self.reporter.events()).await;
        (outcome, memory)
    }

    /// Groups grow and shrink side by side, each on its own.
    async fn act_all(
        &self,
        actions: &[Action],
        groups: &[NodeGroup],
        memory: &mut Memory,
        removed: &mpsc::UnboundedSender<Removed>,
    ) {
        let mut soft_taints = SoftTaints::new(self.args.max_bulk_soft_taint_time);
        let mut took = BTreeMap::<&str, Duration>::new();
        for action in actions {
            let started = Instant::now();
            if soft_taints.may(action, started) {
                self.act(action, groups, memory, removed).await;
                if let Some(function) = parts::function(action) {
                    *took.entry(function).or_default() += started.elapsed();
                }
            }
        }
        for (function, took) in took {
            self.metrics.took(function, took);
        }
    }
}

/// Waits until more pods are expected than were. Samples of a thousand objects start no more than a pass a second.
async fn rise(rises: &mut Option<watch::Receiver<u64>>, passed: Instant) {
    let Some(rises) = rises else { return std::future::pending().await };
    if rises.changed().await.is_err() {
        return std::future::pending().await;
    }
    // Whoever stops waiting here must hear of it again.
    rises.mark_changed();
    tokio::time::sleep_until(passed + BATCH_MAX).await;
    rises.mark_unchanged();
}

/// Waits for the pods that follow the first one.
async fn batch(world: &World) {
    let latest = Instant::now() + BATCH_MAX;
    loop {
        tokio::select! {
            () = world.unschedulable.notified() => {}
            () = tokio::time::sleep(BATCH_IDLE) => return,
            () = tokio::time::sleep_until(latest) => return,
        }
    }
}
