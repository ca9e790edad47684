//! A control plane without room for pods, and the controllers of node pools beside it.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use clap::{Args as _, Command, FromArgMatches as _};
use harness::{Components, ControlPlane, Network, Options, control_plane, wait};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, PostParams},
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tandem::{
    cli::pools::PoolArgs,
    cloud::pools::{Settings, connect},
    cluster::world::World,
    controllers::nodes::pools::{self, Config, Pools},
    telemetry::{self, events::Events},
};
use tandem_core::api::karpenter::NodeClaim;
use tokio::{
    sync::{Mutex, MutexGuard, watch},
    task::JoinHandle,
};

/// For what takes a few seconds on an idle machine: generous, since the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// For what waits on purpose before it does anything, and then takes a few seconds.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Two control planes side by side would only take each other's processor.
pub(crate) async fn only_one() -> MutexGuard<'static, ()> {
    static ONLY: Mutex<()> = Mutex::const_new(());
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "tandem=info".to_owned());
    // The first of them sets it up for all.
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init());
    ONLY.lock().await
}

/// A Deployment on nodes with these labels.
pub(crate) fn deployment(name: &str, replicas: i32, cpu: &str, select: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "nodeSelector": select,
                    "containers": [{
                        "name": "main", "image": "image",
                        "resources": {"requests": {"cpu": cpu, "memory": "128Mi"}},
                    }],
                },
            },
        },
    })
}

/// A control plane without room for pods, and the controllers.
pub(crate) struct Bed {
    pub(crate) control_plane: ControlPlane,
    pub(crate) client: Client,
    /// The client of the `ServiceAccount`.
    restricted: Client,
}

/// Controllers at work.
pub(crate) struct Running {
    pools: Arc<Pools>,
    leader: watch::Sender<bool>,
    loops: JoinHandle<()>,
}

impl Running {
    /// Stops them wherever they stand.
    pub(crate) fn stop(&self) {
        self.leader.send_replace(false);
        self.loops.abort();
    }

    /// What `/metrics` shows of them.
    pub(crate) fn metrics(&self) -> Result<String> {
        let mut registry = Registry::default();
        self.pools.metrics.register(&mut registry);
        Ok(telemetry::metrics::text(&registry)?)
    }
}

impl Bed {
    pub(crate) async fn start() -> Result<Self> {
        let components = Components::find_or_build()?;
        let control_plane = ControlPlane::start(&components, Options::new(Network::Loopback)).await?;
        let client = control_plane.client();
        let named = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata: named("tandem"), ..Namespace::default() };
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        let account = ServiceAccount { metadata: named("tandem"), ..ServiceAccount::default() };
        Api::namespaced(client.clone(), "tandem").create(&PostParams::default(), &account).await?;
        let bed = Self {
            restricted: control_plane::client(&control_plane.kubeconfig_of("tandem", "tandem").await?)
                .await?,
            control_plane,
            client,
        };
        let crds = harness::source_tree().join("crds").display().to_string();
        bed.kubectl(&["apply", "--server-side", "-f", &crds], "").await?;
        bed.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "").await?;
        bed.kubectl(&["apply", "-f", "-"], include_str!("../../manifests/node-pools.yaml")).await?;
        // Pods have to find their nodes elsewhere.
        bed.kubectl(&["cordon", "node-0", "node-1"], "").await?;
        Ok(bed)
    }

    pub(crate) async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.control_plane.kubectl().run(arguments, input).await
    }

    /// Starts the controllers.
    pub(crate) async fn run(&self) -> Result<Running> {
        self.run_with("--feature-gates=").await
    }

    /// Starts them with one more flag.
    pub(crate) async fn run_with(&self, flag: &str) -> Result<Running> {
        let command = PoolArgs::augment_args(Command::new("pools"));
        let matches = command.try_get_matches_from(["pools", "--batch-idle-duration=500ms", flag])?;
        let (leader, leading) = watch::channel(true);
        let (pools, changes) = Pools::start(Config {
            client: self.restricted.clone(),
            world: World::start(&self.restricted, None),
            demand: None,
            buffers: None,
            recorder: None,
            provider: connect("kwok", &Settings::default(), &self.restricted).await?,
            events: Events::new(self.restricted.clone(), "karpenter", None),
            leading,
            settings: PoolArgs::from_arg_matches(&matches)?,
        });
        let loops = tokio::spawn(pools::run(pools.clone(), changes));
        Ok(Running { pools, leader, loops })
    }

    fn claims(&self) -> Api<NodeClaim> {
        Api::all(self.client.clone())
    }

    pub(crate) async fn claims_of(&self, pool: &str) -> Result<Vec<NodeClaim>> {
        let of_pool = ListParams::default().labels(&format!("karpenter.sh/nodepool={pool}"));
        Ok(self.claims().list(&of_pool).await?.items)
    }

    pub(crate) async fn nodes_of(&self, pool: &str) -> Result<Vec<Node>> {
        let of_pool = ListParams::default().labels(&format!("karpenter.sh/nodepool={pool}"));
        Ok(Api::<Node>::all(self.client.clone()).list(&of_pool).await?.items)
    }

    /// Applies [`deployment`].
    pub(crate) async fn deploy(&self, name: &str, replicas: i32, cpu: &str, select: Value) -> Result<()> {
        self.apply(&deployment(name, replicas, cpu, &select)).await
    }

    pub(crate) async fn apply(&self, object: &Value) -> Result<()> {
        self.kubectl(&["apply", "-f", "-"], &object.to_string()).await.map(drop)
    }

    pub(crate) async fn scale(&self, name: &str, replicas: i32) -> Result<()> {
        let (deployment, replicas) = (format!("deployment/{name}"), format!("--replicas={replicas}"));
        self.kubectl(&["scale", &deployment, &replicas], "").await?;
        Ok(())
    }

    pub(crate) async fn pods(&self, app: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        Ok(pods.list(&ListParams::default().labels(&format!("app={app}"))).await?.items)
    }

    pub(crate) async fn running(&self, app: &str, count: usize) -> Result<()> {
        wait::until(&format!("{count} running pods of {app}"), SOON, || async {
            let pods = self.pods(app).await?;
            let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
            let running = pods.iter().filter(|pod| phase(pod).as_deref() == Some("Running")).count();
            ensure!(running == count, "{running} of {} run", pods.len());
            Ok(())
        })
        .await
    }

    /// Waits until a pool has no claim and no node.
    pub(crate) async fn gone(&self, pool: &str) -> Result<()> {
        wait::until(&format!("{pool} to have no node"), SOON, || async {
            let (claims, nodes) = (self.claims_of(pool).await?, self.nodes_of(pool).await?);
            ensure!(claims.is_empty() && nodes.is_empty(), "{} claims, {} nodes", claims.len(), nodes.len());
            Ok(())
        })
        .await
    }
}
