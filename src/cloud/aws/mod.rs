//! Act: node groups out of Auto Scaling groups of AWS, and what node pools need of EC2.
//!
//! Calls are written by hand and signed by reqsign: the official client of EC2 alone takes ten minutes and 8 GB to
//! compile, and a tenth of its calls are needed. `manifests/iam/` allows exactly [`action::ACTIONS`].

pub mod action;
mod answer;
pub mod autoscaling;
pub mod client;
mod credentials;
pub mod discovery;
pub mod eks;
pub mod endpoints;
pub mod fleet;
pub mod form;
mod groups;
pub mod instance_types;
pub mod launch_templates;
pub mod lifecycle;
pub mod pools;
pub mod sqs;
pub mod tags;
pub mod template;

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use tandem_core::nodes::group::NodeGroup;
use thiserror::Error;

use super::{CloudError, CloudProvider, NodeRef, Template};
use client::{Client, OnRequest};
use discovery::Discovery;
use endpoints::Endpoints;
use groups::Groups;
use template::Templates;

/// Where a machine says what region it is in, unless `AWS_EC2_METADATA_SERVICE_ENDPOINT` says where else.
const METADATA: &str = "http://169.254.169.254";

/// How long the metadata service has to answer. Where it is, it does in milliseconds.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no provider.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A flag's value does not read.
    #[error("{flag}: {problem}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What was seen, and what it should be.
        problem: String,
    },
    /// No flag says which groups.
    #[error(
        "no node groups are named: give --nodes=MIN:MAX:NAME for each, or \
         --node-group-auto-discovery=asg:tag=k8s.io/cluster-autoscaler/enabled,k8s.io/cluster-autoscaler/CLUSTER"
    )]
    NoGroups,
    /// The file does not read.
    #[error("--cloud-config: {0}")]
    CloudConfig(String),
    /// A variable's value does not read.
    #[error("environment variable {name} is {value:?}, it should be {wanted}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The region is not known.
    #[error("the region is not known: set AWS_REGION ({0})")]
    NoRegion(String),
    /// The HTTP client cannot be made.
    #[error("no HTTP client: {0}")]
    Client(String),
}

impl From<SetupError> for CloudError {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Flag { flag, problem } => Self::configuration(flag, problem),
            SetupError::CloudConfig(problem) => Self::configuration("--cloud-config", problem),
            other => Self::configuration("--cloud-provider=aws", other.to_string()),
        }
    }
}

/// What the provider is told.
#[derive(Clone)]
pub struct Config {
    /// Values of `--nodes`.
    pub nodes: Vec<String>,
    /// Values of `--node-group-auto-discovery`.
    pub discoveries: Vec<String>,
    /// The text of the file that `--cloud-config` names.
    pub cloud_config: Option<String>,
    /// The variables of the environment; the process' own, save in tests.
    pub environment: HashMap<String, String>,
    /// Whether tags of groups that say what nodes have are believed without asking EC2 for the instance type.
    pub believes_tags: bool,
    /// Told of every request.
    pub on_request: OnRequest,
}

impl Config {
    /// The flags' values, with the process' environment and nobody told of requests.
    pub fn new(nodes: Vec<String>, discoveries: Vec<String>) -> Self {
        let environment = std::env::vars().collect();
        Self {
            nodes,
            discoveries,
            cloud_config: None,
            environment,
            believes_tags: false,
            on_request: OnRequest::default(),
        }
    }
}

/// Node groups out of Auto Scaling groups.
pub struct Aws {
    client: Client,
    groups: Groups,
    templates: Templates,
}

impl Aws {
    /// A provider of the groups that `config` names. Asks nothing of AWS yet, save the metadata service for the region
    /// if the environment does not name it.
    pub async fn new(config: &Config) -> Result<Self, SetupError> {
        let discovery = Discovery::new(&config.nodes, &config.discoveries)?;
        let client = connect(config).await?;
        let templates = Templates::new(config.believes_tags);
        Ok(Self { client, groups: Groups::new(discovery, Timestamp::now()), templates })
    }
}

#[async_trait]
impl CloudProvider for Aws {
    fn name(&self) -> &'static str {
        "aws"
    }

    async fn groups(&self) -> Result<(Vec<NodeGroup>, Vec<(String, CloudError)>), CloudError> {
        self.groups.list(&self.client).await
    }

    async fn template(&self, group: &str) -> Result<Option<Template>, CloudError> {
        let group = self.groups.get(&self.client, group).await?;
        self.templates.of(&self.client, &group).await.map(Some)
    }

    async fn increase(&self, group: &str, target: u32, delta: u32) -> Result<(), CloudError> {
        self.groups.increase(&self.client, group, target, delta, Timestamp::now()).await
    }

    async fn delete_nodes(&self, group: &str, nodes: &[NodeRef]) -> Result<(), CloudError> {
        self.groups.delete(&self.client, group, nodes, Timestamp::now()).await
    }

    async fn replace(&self, group: &str, node: &NodeRef) -> Result<bool, CloudError> {
        self.groups.replace(&self.client, group, node).await
    }

    async fn changed(&self) {
        self.groups.forget().await;
    }

    async fn decrease_target(&self, group: &str, target: u32, delta: u32) -> Result<(), CloudError> {
        self.groups.decrease(&self.client, group, target, delta, Timestamp::now()).await
    }

    fn gpu_label(&self) -> &'static str {
        "k8s.amazonaws.com/accelerator"
    }
}

/// What speaks to AWS. Asks nothing of it yet, save the metadata service for the region if the environment does not name it.
pub async fn connect(config: &Config) -> Result<Client, SetupError> {
    let region = region(&config.environment).await?;
    let endpoints = Endpoints::new(&region, &config.environment, config.cloud_config.as_deref())?;
    Client::new(endpoints, &config.environment, config.on_request.clone())
}

/// The region: the environment's, or the machine's own.
async fn region(environment: &HashMap<String, String>) -> Result<String, SetupError> {
    let named = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| environment.get(*name));
    if let Some(region) = named.filter(|region| !region.is_empty()) {
        return Ok(region.clone());
    }
    let service = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").map_or(METADATA, String::as_str);
    region_of_machine(service.trim_end_matches('/'))
        .await
        .map_err(|error| SetupError::NoRegion(error.to_string()))
}

async fn region_of_machine(service: &str) -> Result<String, reqwest::Error> {
    let http = reqwest::Client::builder().no_proxy().timeout(METADATA_TIMEOUT).build()?;
    let token = http
        .put(format!("{service}/latest/api/token"))
        .header("x-aws-ec2-metadata-token-ttl-seconds", "60")
        .send()
        .await?
        .error_for_status()?
        .text()
        .await?;
    let region = http
        .get(format!("{service}/latest/meta-data/placement/region"))
        .header("x-aws-ec2-metadata-token", token);
    region.send().await?.error_for_status()?.text().await
}
