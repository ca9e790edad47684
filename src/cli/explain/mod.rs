//! `tandem explain`: why a pod waits, why a node stays or goes, where a ScaledObject's count comes from.
//!
//! It reads the cluster, makes the same decisions as the running process, and writes nothing.

mod buffers;
mod groups;
mod node;
pub(super) mod page;
mod pod;
mod pools;
mod scaled_object;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use kube::Client;
use serde_json::Value;

use super::{nodes::NodeArgs, pools::PoolArgs};
use crate::{
    cluster::client,
    telemetry::logs::{self, Encoder},
};
use page::Page;

/// Arguments of `tandem explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Why a pod waits, and what each node group and node pool could do for it.
    Pod(Box<OfNodes>),
    /// Why a node stays or goes, and when.
    Node(Box<OfNodes>),
    /// Where a ScaledObject's count comes from: metric, target, what it wants, what limits that.
    #[command(name = "scaledobject", alias = "so")]
    ScaledObject(Common),
}

/// What every explanation takes.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Name of the object.
    pub name: String,
    /// Its namespace; without it that of the kubeconfig's context.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// Kubeconfig file; without it KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// How the explanation is printed.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// What explanations about nodes take: the flags of `tandem run` say which groups and pools there are.
#[derive(Debug, Clone, Args)]
pub struct OfNodes {
    #[command(flatten)]
    common: Common,
    /// Namespace in which Tandem runs, and keeps what it remembers.
    #[arg(long, env = "POD_NAMESPACE", default_value = "tandem")]
    tandem_namespace: String,
    #[command(flatten)]
    nodes: NodeArgs,
    #[command(flatten)]
    pools: PoolArgs,
}

/// How an explanation is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// An explanation, for people and for programs.
struct Answer {
    page: Page,
    json: Value,
}

/// Explains, and prints it.
pub fn run(args: &ExplainArgs) -> ExitCode {
    logs::install("error", Encoder::Console);
    let common = match &args.what {
        What::Pod(of) | What::Node(of) => &of.common,
        What::ScaledObject(common) => common,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let answer = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            let client = client::connect(common.kubeconfig.as_deref()).await?;
            explain(&args.what, client).await
        })
    });
    match answer {
        Ok(answer) => {
            let text = match common.output {
                Output::Text => answer.page.text(),
                Output::Json => format!("{:#}\n", answer.json),
            };
            // A reader that went away (`| head`) has seen what it wanted.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn explain(what: &What, client: Client) -> anyhow::Result<Answer> {
    match what {
        What::Pod(of) => pod::explain(of, client).await,
        What::Node(of) => node::explain(of, client).await,
        What::ScaledObject(common) => scaled_object::explain(common, client).await,
    }
}

impl Common {
    fn namespace<'a>(&'a self, client: &'a Client) -> &'a str {
        self.namespace.as_deref().unwrap_or_else(|| client.default_namespace())
    }
}
