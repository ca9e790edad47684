//! AWS, played by moto, with a proxy of ours in front that adds what moto lacks and fails on request.

mod fleet;
mod install;
mod proxy;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::http::Server;
use crate::network::free_address;
use crate::process::Process;
use crate::xml;

pub use proxy::Fault;
use proxy::Proxy;

/// The region of everything.
pub const REGION: &str = "eu-central-1";

/// moto answers 3 s after its start on an idle machine; tests share the machine with a build.
const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// A running moto. Dropping it stops it.
pub struct Moto {
    // Before the process: no connection is left when that ends.
    server: Server,
    proxy: Arc<Proxy>,
    process: Process,
}

/// A group to make.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// Its name.
    pub name: &'a str,
    /// The instance type of its launch template.
    pub instance_type: &'a str,
    /// It never gets smaller.
    pub min: u32,
    /// It never gets larger.
    pub max: u32,
    /// The size to begin with.
    pub desired: u32,
    /// Whether it replaces machines that are likely to be taken back.
    pub rebalances: bool,
    /// Its zones.
    pub zones: &'a [&'a str],
    /// Its tags, which its machines get too.
    pub tags: &'a [(&'a str, &'a str)],
}

/// Installs moto if need be; [`Moto::start`] does so too, but cannot from within a network namespace.
pub fn install() -> Result<()> {
    install::server().map(drop)
}

impl Moto {
    /// Starts it on a free port of loopback; the log is in `<folder>/logs`. Installs it first if need be (once a
    /// minute or so, from the Python package index).
    pub async fn start(folder: &Path) -> Result<Self> {
        // reqwest takes the process-wide provider; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let program = tokio::task::spawn_blocking(install::server).await??;
        let address = free_address()?;
        let arguments = vec!["-H".into(), address.ip().to_string(), "-p".into(), address.port().to_string()];
        let mut process =
            Process::start("moto", &folder.join("logs"), &program, arguments, Vec::new()).await?;
        // moto closes connections when it likes; one that is kept may be gone when it is used.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
        let url = format!("http://{address}");
        process
            .wait_until_ready(READY_TIMEOUT, || async {
                http.get(format!("{url}/moto-api/data.json")).send().await?.error_for_status()?;
                Ok(())
            })
            .await?;
        let proxy = Arc::new(Proxy::new(url, http));
        let answering = Arc::clone(&proxy);
        let server = Server::start(free_address()?, move |request| {
            let proxy = Arc::clone(&answering);
            // AWS does what it was asked to do, whoever hangs up.
            let answered = tokio::spawn(async move { proxy.answer(request).await });
            async move { answered.await.unwrap_or_else(|error| proxy::broken(&error.into())) }
        })
        .await?;
        Ok(Self { server, proxy, process })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The variables that lead a client to it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let pairs = [
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Every call so far, as permissions are named, in order.
    pub fn calls(&self) -> Vec<String> {
        self.proxy.calls()
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        self.proxy.forget_calls();
    }

    /// Makes the next calls of an action fail.
    pub fn fail(&self, fault: Fault) {
        self.proxy.fail(fault);
    }

    /// Pages hold no more than this many groups or types.
    pub fn page_size(&self, records: usize) {
        self.proxy.page_size(records);
    }

    /// From now on a group gets no machine, and says why in its activities.
    pub fn exhaust(&self, group: &str, reason: &str) {
        self.proxy.exhaust(group, reason);
    }

    /// From now on fleets get no machine of this type in this zone.
    pub fn sell_out(&self, instance_type: &str, zone: &str) {
        self.proxy.state().fleets.sold_out.insert((instance_type.to_owned(), zone.to_owned()));
    }

    /// Makes a placement group; its id.
    pub fn create_placement_group(&self, name: &str, strategy: &str, partitions: u32) -> String {
        let id = format!("pg-{name}");
        let group = (id.clone(), strategy.to_owned(), partitions);
        self.proxy.state().fleets.placement_groups.insert(name.to_owned(), group);
        id
    }

    /// Where fleets put their machines, in order: the id of a placement group and the partition, or nothing.
    pub fn placements(&self) -> Vec<(String, String)> {
        self.proxy.state().fleets.placements.clone()
    }

    /// From now on fleets get no machine with this instance profile.
    pub fn forget_profile(&self, name: &str) {
        self.proxy.state().fleets.unknown_profiles.insert(name.to_owned());
    }

    /// Makes a subnet in each of these zones, and a security group, with these tags; their ids, the group's last.
    pub async fn create_network(&self, zones: &[&str], tags: &[(&str, &str)]) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        let tag = |resource: &str| {
            let mut parameters = vec![("TagSpecification.1.ResourceType".to_owned(), resource.to_owned())];
            for (index, (key, value)) in tags.iter().enumerate() {
                let field = |field: &str| format!("TagSpecification.1.Tag.{}.{field}", index + 1);
                parameters.extend([(field("Key"), (*key).to_owned()), (field("Value"), (*value).to_owned())]);
            }
            parameters
        };
        let vpc = self.ask("ec2", "CreateVpc", &[("CidrBlock", "10.7.0.0/16")]).await?;
        let vpc = xml::text(&vpc, "vpcId").to_owned();
        for (index, zone) in zones.iter().enumerate() {
            let mut parameters = tag("subnet");
            parameters.push(("VpcId".to_owned(), vpc.clone()));
            parameters.push(("AvailabilityZone".to_owned(), (*zone).to_owned()));
            parameters.push(("CidrBlock".to_owned(), format!("10.7.{index}.0/24")));
            let subnet = self.ask("ec2", "CreateSubnet", &borrowed(&parameters)).await?;
            ids.push(xml::text(&subnet, "subnetId").to_owned());
        }
        let mut parameters = tag("security-group");
        parameters.push(("VpcId".to_owned(), vpc));
        parameters.push(("GroupName".to_owned(), "nodes".to_owned()));
        parameters.push(("GroupDescription".to_owned(), "nodes".to_owned()));
        let group = self.ask("ec2", "CreateSecurityGroup", &borrowed(&parameters)).await?;
        ids.push(xml::text(&group, "groupId").to_owned());
        Ok(ids)
    }

    /// Makes a role that machines may have.
    pub async fn create_role(&self, name: &str) -> Result<()> {
        let parameters = [("RoleName", name), ("AssumeRolePolicyDocument", "{}")];
        self.ask("iam", "CreateRole", &parameters).await.map(drop)
    }

    /// Tags of a machine.
    pub async fn tags_of(&self, machine: &str) -> Result<BTreeMap<String, String>> {
        let filter = [("Filter.1.Name", "resource-id"), ("Filter.1.Value.1", machine)];
        let answer = self.ask("ec2", "DescribeTags", &filter).await?;
        let tags = xml::children(&answer, "tagSet", "item").into_iter();
        Ok(tags.map(|tag| (xml::text(tag, "key").to_owned(), xml::text(tag, "value").to_owned())).collect())
    }

    /// Makes a queue; its address.
    pub async fn create_queue(&self, name: &str) -> Result<String> {
        let answer = self.ask("sqs", "CreateQueue", &[("QueueName", name)]).await?;
        Ok(xml::text(&answer, "QueueUrl").to_owned())
    }

    /// Puts a message into a queue.
    pub async fn send(&self, queue: &str, body: &str) -> Result<()> {
        self.ask("sqs", "SendMessage", &[("QueueUrl", queue), ("MessageBody", body)]).await.map(drop)
    }

    /// How many messages a queue has, those that were received and not deleted included.
    pub async fn messages(&self, queue: &str) -> Result<u32> {
        let parameters = [("QueueUrl", queue), ("AttributeName.1", "All")];
        let answer = self.ask("sqs", "GetQueueAttributes", &parameters).await?;
        let wanted = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
        let attributes = xml::elements(&answer, "Attribute").into_iter();
        let counts = attributes.filter(|attribute| wanted.contains(&xml::text(attribute, "Name")));
        counts.map(|attribute| Ok(xml::text(attribute, "Value").parse::<u32>()?)).sum()
    }

    /// Asks moto itself, past the proxy: nothing is recorded, nothing fails.
    pub async fn ask(&self, service: &str, action: &str, parameters: &[(&str, &str)]) -> Result<String> {
        let (status, body) = self.proxy.ask(service, action, parameters).await?;
        ensure!(status == 200, "{service}:{action} was answered with {status}: {body}");
        Ok(body)
    }

    /// Makes a group with a launch template of its own.
    pub async fn create_group(&self, group: &Group<'_>) -> Result<()> {
        let image = self.image().await?;
        let template = format!("{}-template", group.name);
        let launch = [
            ("LaunchTemplateName", template.as_str()),
            ("LaunchTemplateData.ImageId", &image),
            ("LaunchTemplateData.InstanceType", group.instance_type),
        ];
        self.ask("ec2", "CreateLaunchTemplate", &launch).await?;
        let own = [
            ("LaunchTemplate.LaunchTemplateName".to_owned(), template),
            ("LaunchTemplate.Version".to_owned(), "$Latest".to_owned()),
        ];
        self.create_group_of(group, &own).await
    }

    /// Makes a group that launches what `launched` says, in parameters of `CreateAutoScalingGroup`.
    pub async fn create_group_of(&self, group: &Group<'_>, launched: &[(String, String)]) -> Result<()> {
        let mut parameters = vec![
            ("AutoScalingGroupName".to_owned(), group.name.to_owned()),
            ("MinSize".to_owned(), group.min.to_string()),
            ("MaxSize".to_owned(), group.max.to_string()),
            ("DesiredCapacity".to_owned(), group.desired.to_string()),
            ("CapacityRebalance".to_owned(), group.rebalances.to_string()),
        ];
        parameters.extend_from_slice(launched);
        for (index, zone) in group.zones.iter().enumerate() {
            parameters.push((format!("AvailabilityZones.member.{}", index + 1), (*zone).to_owned()));
        }
        for (index, (key, value)) in group.tags.iter().enumerate() {
            let tag =
                |field: &str, value: &str| (format!("Tags.member.{}.{field}", index + 1), value.to_owned());
            parameters.extend([tag("Key", key), tag("Value", value), tag("PropagateAtLaunch", "true")]);
            parameters.extend([tag("ResourceId", group.name), tag("ResourceType", "auto-scaling-group")]);
        }
        self.ask("autoscaling", "CreateAutoScalingGroup", &borrowed(&parameters)).await.map(|_| ())
    }

    /// Gives a group a hook that holds its machines when they end.
    pub async fn hook(&self, group: &str, name: &str) -> Result<()> {
        self.proxy.hook(group, name);
        let transition = ("LifecycleTransition", "autoscaling:EC2_INSTANCE_TERMINATING");
        let parameters = [("AutoScalingGroupName", group), ("LifecycleHookName", name), transition];
        self.ask("autoscaling", "PutLifecycleHook", &parameters).await.map(|_| ())
    }

    /// Somebody makes a group with a hook smaller by this machine.
    pub async fn shrink(&self, machine: &str) -> Result<()> {
        let held = self.proxy.shrink(machine, "TerminateInstanceInAutoScalingGroup").await?;
        held.map(drop).with_context(|| format!("no hook holds {machine}"))
    }

    /// A group ends a machine that is not well, and keeps its size; its hook holds the machine.
    pub fn end_unwell(&self, group: &str, machine: &str) {
        self.proxy.hold(group, machine, true);
    }

    /// A group launches a machine beyond its size, in place of one that is likely to be taken back.
    pub async fn launch_beyond(&self, group: &str) -> Result<()> {
        let (size, _) = self.group(group).await?;
        self.proxy.state().desired.insert(group.to_owned(), size);
        let more = (size + 1).to_string();
        let parameters = [("AutoScalingGroupName", group), ("DesiredCapacity", &more)];
        self.ask("autoscaling", "SetDesiredCapacity", &parameters).await.map(drop)
    }

    /// A group ends a machine in whose place it has launched another; its hook holds the machine.
    pub fn end_beyond(&self, group: &str, machine: &str) {
        self.proxy.hold(group, machine, false);
    }

    /// EC2 takes a machine back.
    pub async fn take_back(&self, machine: &str) -> Result<()> {
        self.ask("ec2", "TerminateInstances", &[("InstanceId.1", machine)]).await.map(drop)
    }

    /// Some image.
    pub async fn image(&self) -> Result<String> {
        let images = self
            .ask(
                "ec2",
                "DescribeImages",
                &[("Filter.1.Name", "architecture"), ("Filter.1.Value.1", "x86_64")],
            )
            .await?;
        xml::content(&images, "imageId").map(str::to_owned).context("moto has no image")
    }

    /// The size of a group, and the ids of its machines, as moto sees them.
    pub async fn group(&self, name: &str) -> Result<(u32, Vec<String>)> {
        let answer = self
            .ask("autoscaling", "DescribeAutoScalingGroups", &[("AutoScalingGroupNames.member.1", name)])
            .await?;
        let group = xml::content(&answer, "AutoScalingGroups").context("no groups in the answer")?;
        let machines = xml::children(group, "Instances", "member");
        let ids = machines.iter().map(|machine| xml::text(machine, "InstanceId").to_owned()).collect();
        Ok((xml::text(group, "DesiredCapacity").parse()?, ids))
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(self) -> Result<()> {
        let Self { server, process, .. } = self;
        drop(server);
        process.stop().await.map(|_| ())
    }
}

fn borrowed(parameters: &[(String, String)]) -> Vec<(&str, &str)> {
    parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
