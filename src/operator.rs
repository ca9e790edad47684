//! `tandem run`: everything started, in order, and stopped together.

mod plain;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use kube::Client;
use prometheus_client::registry::Registry;
use tandem_core::hpa;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    authorities,
    certs::{self, CertsConfig},
    cli::{election::Terms, run::RunArgs, scheduler},
    cloud::{
        self, CloudProvider, aws,
        pools::{
            PoolProvider,
            measured::{Calls, Measured},
        },
        provider,
    },
    cluster::{self, Cluster, world::World},
    controllers::{
        self, Shared,
        nodes::{
            buffer::{self, Buffers},
            capacity_quota::CapacityQuotas,
            demand::{self, Demand},
            groups::{NodeGroups, liveness::Liveness, metrics::MetricsCollector},
            interruption::{self, Interruptions, Queue, Webhook},
            pools::{self, Pools, gauges::Gauges},
            provisioning_request::Requests,
        },
    },
    dry_run::{self, Recorder, autoscaler::Controller, guard::guard},
    leader::{self, Election, MasterStatus},
    metrics_api::{
        MetricsApi, MetricsApiConfig, Observer, SERVICE_ACCOUNT_TOKEN, TrustStore, Upstream, UpstreamConfig,
        watch_trust,
    },
    samples::SampleStore,
    serve::{self, CertificateResolver},
    telemetry::{self, aws::AwsRequests, events::Events},
    webhooks::{self, Webhooks},
};

/// The reporter in `kubectl describe`, as KEDA's users know it.
const EVENT_SOURCE: &str = "keda-operator";
/// The reporter of events of node groups, as Cluster Autoscaler's users know it.
const GROUPS_EVENT_SOURCE: &str = "cluster-autoscaler";
/// The reporter of events of node pools, as Karpenter's users know it.
const POOLS_EVENT_SOURCE: &str = "karpenter";
/// The gate of node pools that keeps the room of buffers.
const CAPACITY_BUFFER: &str = "CapacityBuffer";
/// The reporter of events of interruption notices, as users of the handler know it.
const INTERRUPTION_EVENT_SOURCE: &str = "aws-node-termination-handler";
/// After the signal, open requests may end and the Lease is given back; the kubelet kills after 30 s.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(12);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The cluster cannot be reached, an address is taken, or a flag is wrong.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    args.without_effect.warn();
    let shutdown = CancellationToken::new();
    let client = cluster::client::connect_as(args.kubeconfig.as_deref(), args.user_agent.clone()).await?;
    let version = client.apiserver_version().await.context("kube-apiserver does not answer")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), kubernetes = version.git_version, "tandem starts");
    check_crds(&client).await?;
    let (client, recorder) = beginning(&args, client, &version.git_version)?;

    let namespaces = args.watched_namespaces();
    let cluster_namespace = args.cluster_object_namespace.clone().unwrap_or_else(|| args.namespace.clone());
    let settings = cluster::Settings {
        namespaces,
        labels: args.watch_label_selector.clone(),
        authentication_labels: args.watch_label_selector_for_triggerauth.clone(),
        cluster_object_namespace: cluster_namespace,
        secrets_only_in: args.restrict_secret_access.then(|| args.namespace.clone()),
    };
    let (cluster, changes) = Cluster::start(&client, settings);
    let reader = cluster::reader::Reader::new(client.clone(), cluster.secrets_only_in.clone());
    let http = scalers::HttpSettings {
        min_tls: args.http_min_tls_version,
        no_keep_alive: args.http_disable_keep_alive,
    };
    let context = scalers::Context::new(reader)?.connecting(&authorities::read(&args.ca_dir)?, http)?;
    let samples = SampleStore::new(cluster.clone(), context);

    let mut tasks = JoinSet::new();
    let identity = args.pod_name.clone().unwrap_or_else(|| format!("tandem-{}", std::process::id()));
    let leading = leadership(&args, &client, &identity, &mut tasks, &shutdown).await?;
    let events = Events::new(client.clone(), EVENT_SOURCE, Some(identity));
    let http_timeout = Duration::from_millis(args.http_default_timeout);
    let demand = demand(&args, &cluster, &events, &version.minor);
    let shared = Shared::new(
        cluster.clone(),
        samples.clone(),
        events,
        leading.clone(),
        http_timeout,
        demand,
        recorder.clone(),
    );

    let mut registry = telemetry::metrics::registry(cluster.clone(), samples);
    if args.takes_part() {
        let lease = args.election.terms()?.lease;
        registry.register_collector(Box::new(MasterStatus { lease, leading: leading.clone() }));
    }
    let liveness = nodes(&args, &shared, &mut registry, &mut tasks, &shutdown).await?;
    let ready = match &recorder {
        Some(recorder) => rehearse(&shared, recorder, &version.minor),
        None => serve_apis(&args, &shared, client, leading, &mut registry, &mut tasks, &shutdown).await?,
    };
    plain::serve(&args, (ready, liveness), registry, &mut tasks, &shutdown).await?;

    // These two have no end of their own; the runtime ends them.
    tokio::spawn(controllers::manager::run(shared, changes));
    let synced = cluster.clone();
    tokio::spawn(async move {
        let started = std::time::Instant::now();
        synced.synced().await;
        tracing::info!(
            scaled_objects = synced.scaled_objects.len(),
            seconds = started.elapsed().as_secs_f64(),
            "caches are filled"
        );
    });

    tokio::select! {
        result = wait_for_signal() => result?,
        () = shutdown.cancelled() => bail!("a part of Tandem cannot go on; see the log"),
    }
    tracing::info!("tandem stops");
    shutdown.cancel();
    if let Some(recorder) = recorder {
        recorder.stop();
    }
    let ended = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(SHUTDOWN_DEADLINE, ended).await;
    Ok(())
}

/// The client that everything goes through, which in a dry run writes to a record and nowhere else.
fn beginning(
    args: &RunArgs,
    client: Client,
    kubernetes: &str,
) -> anyhow::Result<(Client, Option<Arc<Recorder>>)> {
    if !args.dry_run {
        return Ok((client, None));
    }
    let path = args.dry_run_record.display();
    let recorder = Recorder::open(&args.dry_run_record, kubernetes)
        .with_context(|| format!("the record {path} cannot be written; name another by --dry-run-record"))?;
    tracing::info!(record = %path, "dry run: nothing is written to the cluster, and no API of it is served");
    Ok((guard(client, recorder.clone()), Some(recorder)))
}

/// Plays the HPA controller in a dry run: the metrics API and the webhooks are another's, who goes on serving them.
fn rehearse(shared: &Arc<Shared>, recorder: &Arc<Recorder>, version: &str) -> Ready {
    let rules = hpa::Settings::of(minor(version));
    // It has no end of its own; the runtime ends it.
    tokio::spawn(Controller::new(shared.clone(), recorder.clone(), rules).run());
    let cluster = shared.cluster.clone();
    Arc::new(move || (!cluster.is_synced()).then_some("caches are not filled yet"))
}

/// A missing CRD is said at once, with what to do, instead of a watch that fails for ever.
async fn check_crds(client: &Client) -> anyhow::Result<()> {
    let served = cluster::client::served(client, "keda.sh/v1alpha1").await;
    let served = served.context("kube-apiserver does not say which kinds it has")?;
    for wanted in ["scaledobjects", "scaledjobs", "triggerauthentications", "clustertriggerauthentications"] {
        if !served.contains(wanted) {
            bail!("CRD {wanted}.keda.sh is not installed; apply the crds folder: kubectl apply -f crds/");
        }
    }
    Ok(())
}

async fn leadership(
    args: &RunArgs,
    client: &Client,
    identity: &str,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> anyhow::Result<watch::Receiver<bool>> {
    if !args.takes_part() {
        let (sender, leading) = watch::channel(true);
        let shutdown = shutdown.clone();
        tasks.spawn(async move {
            shutdown.cancelled().await;
            drop(sender);
        });
        return Ok(leading);
    }
    let Terms { lease, namespace, duration, renew_deadline, retry } = args.election.terms()?;
    let election = Election {
        namespace: namespace.unwrap_or_else(|| args.namespace.clone()),
        lease,
        identity: identity.to_owned(),
        duration,
        renew_before: duration.saturating_sub(renew_deadline).max(Duration::from_secs(1)),
        retry,
    };
    leader::elect(client.clone(), election, tasks, shutdown.clone())
        .await
        .context("leader election cannot start; may this service account write Leases in its namespace?")
}

/// What HPAs are about to ask for, where a provider of nodes is named and it is not turned off.
fn demand(args: &RunArgs, cluster: &Arc<Cluster>, events: &Events, minor: &str) -> Option<Arc<Demand>> {
    let most = args.nodes.max_expected_pods;
    (most > 0 && args.scales_nodes())
        .then(|| Demand::new(cluster.clone(), events.clone(), most, self::minor(minor)))
}

/// The minor version of Kubernetes; one that cannot be read is a new one.
fn minor(text: &str) -> u32 {
    text.trim_end_matches('+').parse().unwrap_or(u32::MAX)
}

/// Node groups and node pools, where a provider of nodes is named. Returns what tells whether the former go on.
async fn nodes(
    args: &RunArgs,
    shared: &Shared,
    registry: &mut Registry,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Arc<Liveness>>> {
    let profile = scheduler::profile(&args.nodes, &args.pools)?;
    let (groups, pools, queue) = (args.nodes.provider(), args.pools.provider(), args.notices());
    if groups.is_none() && pools.is_none() && queue.is_none() {
        return Ok(None);
    }
    let queue = queue.filter(|_| {
        if args.dry_run {
            tracing::info!("the queue of notices is not read: whoever receives one hides it from others");
        }
        !args.dry_run
    });
    let world = World::start(&shared.cluster.client, profile);
    let requests = AwsRequests::default();
    requests.register(registry);
    if let Some(recorder) = &shared.recorder {
        tokio::spawn(dry_run::world::watch(world.clone(), recorder.clone()));
    }
    if let Some(demand) = &shared.demand {
        registry.register_collector(Box::new(demand::metrics::MetricsCollector(demand.clone())));
    }
    let buffers = buffers(args, shared, &world, (groups.is_some(), pools.is_some())).await?;
    let (groups, liveness) = match groups {
        Some(name) => {
            let kept = buffers.clone().filter(|_| args.nodes.capacity_buffer_pod_injection_enabled);
            let around = (world.clone(), kept, &requests);
            let (provider, liveness) =
                node_groups(args, name, shared, around, registry, tasks, shutdown).await?;
            (Some(provider), Some(liveness))
        }
        None => (None, None),
    };
    let pools = match pools {
        Some(name) => {
            let kept = buffers.filter(|_| args.pools.feature_gates.is_on(CAPACITY_BUFFER));
            Some(node_pools(args, name, shared, (world.clone(), kept, &requests), registry).await?)
        }
        None => None,
    };
    if let Some(queue) = queue {
        interruptions(args, queue, shared, (world, &requests), (groups, pools), registry).await?;
    }
    Ok(liveness)
}

/// Room that is kept, where a loop is told to keep it.
async fn buffers(
    args: &RunArgs,
    shared: &Shared,
    world: &Arc<World>,
    (groups, pools): (bool, bool),
) -> anyhow::Result<Option<Arc<Buffers>>> {
    let by_pools = pools && args.pools.feature_gates.is_on(CAPACITY_BUFFER);
    let writes = by_pools || groups && args.nodes.capacity_buffer_controller_enabled;
    let by_groups = groups && args.nodes.capacity_buffer_pod_injection_enabled;
    if !(writes || by_groups) {
        return Ok(None);
    }
    let client = shared.cluster.client.clone();
    buffer::check_installed(&client).await?;
    let (scale, world, leading) = (shared.cluster.scale.clone(), world.clone(), shared.leading.clone());
    // Whose status is never written would be told so with every look.
    let writes = writes && shared.recorder.is_none();
    let buffers = Buffers::start(buffer::Config { client, scale, world, leading, writes });
    // It has no end of its own; the runtime ends it.
    tokio::spawn(buffers.clone().run());
    Ok(Some(buffers))
}

/// Notices that machines are taken away.
async fn interruptions(
    args: &RunArgs,
    queue: Queue,
    shared: &Shared,
    (world, requests): (Arc<World>, &AwsRequests),
    (groups, pools): (Option<Arc<dyn CloudProvider>>, Option<Arc<Pools>>),
    registry: &mut Registry,
) -> anyhow::Result<()> {
    let client = shared.cluster.client.clone();
    let on_request = requests.observer();
    let aws = aws::connect(&aws::Config { on_request, ..aws::Config::new(Vec::new(), Vec::new()) }).await?;
    let interruptions = Interruptions::new(interruption::Config {
        events: Events::new(client.clone(), INTERRUPTION_EVENT_SOURCE, args.pod_name.clone())
            .annotated(args.interruption.kubernetes_events_extra_annotations.0.clone()),
        leading: shared.leading.clone(),
        own: interruption::own_pod(&args.namespace, args.pod_name.as_deref()),
        args: args.interruption.clone(),
        webhook: Webhook::new(&args.interruption.webhook)?.map(Arc::new),
        client,
        world,
        pools,
        groups,
        aws,
        queue,
    });
    interruptions.metrics.register(registry);
    // It has no end of its own; the runtime ends it.
    tokio::spawn(interruptions.run());
    Ok(())
}

async fn node_groups(
    args: &RunArgs,
    name: &str,
    shared: &Shared,
    (world, buffers, aws): (Arc<World>, Option<Arc<Buffers>>, &AwsRequests),
    registry: &mut Registry,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> anyhow::Result<(Arc<dyn CloudProvider>, Arc<Liveness>)> {
    let client = shared.cluster.client.clone();
    let settings = provider::Settings {
        recorder: shared.recorder.clone(),
        on_aws_request: aws.observer(),
        ..args.nodes.provider_settings()
    };
    let mut provider = provider::connect(name, &settings, client.clone()).await?;
    if let Some(recorder) = shared.recorder.clone() {
        provider = Arc::new(dry_run::providers::Groups { provider, recorder });
    }
    tracing::info!(provider = name, "node groups are scaled");
    let events = Events::new(client.clone(), GROUPS_EVENT_SOURCE, args.pod_name.clone());
    let requests = provisioning_requests(args, shared, &world).await?;
    let quotas = capacity_quotas(args, shared, &world).await?;
    let groups = NodeGroups::new(
        client,
        (world, shared.demand.clone()),
        provider.clone(),
        args.nodes.clone(),
        events,
        &args.namespace,
        shared.recorder.clone(),
    )?
    .keeping(buffers)
    .answering(requests)
    .within(quotas);
    registry.register_collector(Box::new(MetricsCollector(groups.metrics())));
    let liveness = groups.liveness();
    tasks.spawn(groups.run(shared.leading.clone(), shutdown.clone()));
    Ok((provider, liveness))
}

/// ProvisioningRequests, where they are to be answered.
async fn provisioning_requests(
    args: &RunArgs,
    shared: &Shared,
    world: &Arc<World>,
) -> anyhow::Result<Option<Requests>> {
    if !args.nodes.enable_provisioning_requests {
        return Ok(None);
    }
    let instance = &args.nodes.check_capacity_processor_instance;
    // Whose status is never written would be told so with every pass.
    let writes = shared.recorder.is_none();
    Ok(Some(Requests::start(&shared.cluster.client, world, instance, writes).await?))
}

/// CapacityQuotas, where they are to be kept.
async fn capacity_quotas(
    args: &RunArgs,
    shared: &Shared,
    world: &Arc<World>,
) -> anyhow::Result<Option<CapacityQuotas>> {
    if !args.nodes.capacity_quotas_enabled {
        return Ok(None);
    }
    // Whose status is never written would be told so with every pass.
    let writes = shared.recorder.is_none();
    Ok(Some(CapacityQuotas::start(&shared.cluster.client, world, writes).await?))
}

async fn node_pools(
    args: &RunArgs,
    name: &str,
    shared: &Shared,
    (world, buffers, aws): (Arc<World>, Option<Arc<Buffers>>, &AwsRequests),
    registry: &mut Registry,
) -> anyhow::Result<Arc<Pools>> {
    let client = shared.cluster.client.clone();
    let settings = args.pools.provider_settings(&world);
    let calls = Calls::default();
    let (on_aws_request, calls_of_provider) = (aws.observer(), calls.clone());
    let settings = cloud::pools::Settings { on_aws_request, calls: calls_of_provider, ..settings };
    calls.register(registry);
    let provider = cloud::pools::connect(name, &settings, &client).await?;
    let mut provider: Arc<dyn PoolProvider> = Arc::new(Measured { provider, calls });
    if let Some(recorder) = shared.recorder.clone() {
        provider = Arc::new(dry_run::providers::Pools { provider, recorder });
    }
    let (pools, changes) = Pools::start(pools::Config {
        provider,
        events: Events::new(client.clone(), POOLS_EVENT_SOURCE, args.pod_name.clone()),
        leading: shared.leading.clone(),
        settings: args.pools.clone(),
        demand: shared.demand.clone(),
        buffers,
        recorder: shared.recorder.clone(),
        client,
        world,
    });
    tracing::info!(provider = name, "node pools are scaled");
    pools.metrics.register(registry);
    registry.register_collector(Box::new(Gauges::new(pools.clone())));
    // It has no end of its own; the runtime ends it.
    tokio::spawn(pools::run(pools.clone(), changes));
    Ok(pools)
}

async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{what} cannot listen on {address}"))
}

fn upstream(args: &RunArgs) -> anyhow::Result<Option<Upstream>> {
    let Some(url) = args.external_metrics_upstream.clone() else { return Ok(None) };
    let token = std::path::PathBuf::from(SERVICE_ACCOUNT_TOKEN);
    let config = UpstreamConfig {
        url,
        ca_file: args.external_metrics_upstream_ca.clone(),
        insecure_skip_tls_verify: args.external_metrics_upstream_insecure,
        token_file: token.exists().then_some(token),
    };
    Ok(Some(Upstream::new(config)?))
}

/// The certificates, and what is served with them: the metrics API and the webhooks.
async fn serve_apis(
    args: &RunArgs,
    shared: &Shared,
    client: Client,
    leading: watch::Receiver<bool>,
    registry: &mut Registry,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Ready> {
    let certificates = Arc::new(CertificateResolver::default());
    let config = certs_config(args);
    tasks.spawn(keep_certificates(config, client, certificates.clone(), leading, shutdown.clone()));
    let ready = serve_metrics_api(args, shared, &certificates, registry, tasks, shutdown).await?;
    serve_webhooks(args, &shared.cluster, &certificates, registry, tasks, shutdown).await?;
    Ok(ready)
}

async fn serve_metrics_api(
    args: &RunArgs,
    shared: &Shared,
    certificates: &Arc<CertificateResolver>,
    registry: &mut Registry,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Ready> {
    let client = shared.cluster.client.clone();
    let trust = Arc::new(TrustStore::default());
    tasks.spawn(watch_trust(client.clone(), trust.clone(), shutdown.clone()));
    let observer = Observer::default();
    observer.register(registry);
    shared.samples.observer().register(registry);
    let ready = readiness(shared.cluster.clone(), trust.clone(), certificates.clone());
    let is_ready = ready.clone();
    let api = MetricsApi::new(MetricsApiConfig {
        source: shared.samples.clone(),
        client,
        trust,
        upstream: upstream(args)?,
        ready: Box::new(move || is_ready().is_none()),
        observer,
    });
    let listener = bind(SocketAddr::new(args.bind_address, args.secure_port), "the metrics API").await?;
    let tls = serve::server_config(certificates.clone(), args.service_min_tls_version)?;
    tasks.spawn(Arc::new(api).run(listener, tls, shutdown.clone()));
    Ok(ready)
}

async fn serve_webhooks(
    args: &RunArgs,
    cluster: &Arc<Cluster>,
    certificates: &Arc<CertificateResolver>,
    registry: &mut Registry,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(address) = args.webhook_bind_address.0 else { return Ok(()) };
    let observer = webhooks::Observer::default();
    observer.register(registry);
    let webhooks = Webhooks::new(cluster.clone(), observer);
    let listener = bind(address, "the admission webhooks").await?;
    let tls = serve::server_config(certificates.clone(), args.service_min_tls_version)?;
    let handler = move |request, _| {
        let webhooks = webhooks.clone();
        async move { webhooks.handle(request).await }
    };
    tasks.spawn(serve::serve(listener, tls, handler, shutdown.clone()));
    Ok(())
}

/// Why this replica must not be sent requests yet; `None` once it may.
type Ready = Arc<dyn Fn() -> Option<&'static str> + Send + Sync>;

fn readiness(cluster: Arc<Cluster>, trust: Arc<TrustStore>, certificates: Arc<CertificateResolver>) -> Ready {
    Arc::new(move || {
        let missing = [
            (!cluster.is_synced(), "caches are not filled yet"),
            (!trust.is_loaded(), "the client authorities are not read yet"),
            (!certificates.is_ready(), "there is no serving certificate yet"),
        ];
        missing.into_iter().find_map(|(missing, why)| missing.then_some(why))
    })
}

async fn keep_certificates(
    config: CertsConfig,
    client: Client,
    certificates: Arc<CertificateResolver>,
    leading: watch::Receiver<bool>,
    shutdown: CancellationToken,
) {
    if let Err(error) = certs::run(config, client, certificates, leading, shutdown.clone()).await {
        tracing::error!(%error, "no certificates can be made");
        shutdown.cancel();
    }
}

fn certs_config(args: &RunArgs) -> CertsConfig {
    CertsConfig {
        secret: args.cert_secret_name.clone(),
        metrics_service: args.metrics_server_service_name.clone(),
        webhook_service: args.webhooks_service_name.clone(),
        cluster_domain: args.k8s_cluster_domain.clone(),
        webhook_configuration: args.validating_webhook_name.clone(),
        directory: args.cert_dir.clone().filter(|_| !args.enable_cert_rotation),
        ..CertsConfig::new(&args.namespace)
    }
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    Ok(())
}
