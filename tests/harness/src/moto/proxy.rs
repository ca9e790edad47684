//! What moto lacks, in front of it: faults, pages, groups without capacity, hooks that hold a termination.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::fleet::{self, Fleets};
use crate::http::{Request, Response, answer};
use crate::xml;

/// Types that `GetInstanceTypesFromInstanceRequirements` chooses among: a few of each size are enough.
const CANDIDATES: [&str; 10] = [
    "c5.large",
    "c5.xlarge",
    "m5.large",
    "m5.xlarge",
    "m5.2xlarge",
    "m6g.large",
    "m6g.xlarge",
    "r5.large",
    "r5.xlarge",
    "t3.medium",
];

/// Families that the region has: all of moto's take it seven seconds to tell.
const FAMILIES: [&str; 6] = ["c5.*", "g4dn.*", "m5.*", "m6g.*", "r5.*", "t3.*"];

/// Makes calls of an action fail.
#[derive(Debug, Clone)]
pub struct Fault {
    /// As the permission is named: `autoscaling:SetDesiredCapacity`.
    pub action: &'static str,
    /// How many calls fail.
    pub times: u32,
    /// The HTTP status.
    pub status: u16,
    /// AWS' code.
    pub code: &'static str,
    /// AWS' words.
    pub message: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) fleets: Fleets,
    calls: Vec<String>,
    faults: Vec<Fault>,
    page_size: Option<usize>,
    /// Groups that get no machine, and why.
    exhausted: BTreeMap<String, String>,
    /// Sizes that moto does not know of.
    pub(super) desired: BTreeMap<String, u32>,
    /// Failed activities by group, newest first: when, and why.
    activities: BTreeMap<String, Vec<(Timestamp, String)>>,
    /// Groups with a hook on termination.
    hooks: BTreeMap<String, String>,
    /// Machines that a hook holds.
    held: BTreeMap<String, Held>,
}

/// A machine that a hook holds.
#[derive(Debug)]
struct Held {
    group: String,
    /// Whether the group keeps its size, and gets another machine in the end.
    is_replaced: bool,
}

pub(super) struct Proxy {
    moto: String,
    http: reqwest::Client,
    state: Mutex<State>,
    /// Held while a fleet is launched: one that is asked for again meanwhile is the same.
    pub(super) launching: tokio::sync::Mutex<()>,
}

/// A call, read.
pub(super) struct Call {
    service: String,
    action: String,
    pub(super) parameters: Vec<(String, String)>,
}

impl Call {
    pub(super) fn get(&self, name: &str) -> &str {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    /// Values of all parameters whose name begins so.
    pub(super) fn values(&self, prefix: &str) -> Vec<String> {
        let found = self.parameters.iter().filter(|(name, _)| name.starts_with(prefix));
        found.map(|(_, value)| value.clone()).collect()
    }
}

impl Proxy {
    pub(super) fn new(moto: String, http: reqwest::Client) -> Self {
        Self { moto, http, state: Mutex::default(), launching: tokio::sync::Mutex::default() }
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    pub(super) fn forget_calls(&self) {
        self.state().calls.clear();
    }

    pub(super) fn fail(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    pub(super) fn page_size(&self, records: usize) {
        self.state().page_size = Some(records);
    }

    pub(super) fn exhaust(&self, group: &str, reason: &str) {
        self.state().exhausted.insert(group.to_owned(), reason.to_owned());
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A handler that panicked has failed its test already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks moto; status and body.
    pub(super) async fn ask(
        &self,
        service: &str,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<(u16, String)> {
        let version = match service {
            "ec2" => "2016-11-15",
            "iam" => "2010-05-08",
            "sqs" => "2012-11-05",
            _ => "2011-01-01",
        };
        let mut form = vec![("Action", action), ("Version", version)];
        form.extend_from_slice(parameters);
        let scope = format!("test/20260101/{}/{service}/aws4_request", super::REGION);
        let authorization = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0");
        let request = self.http.post(&self.moto).header("authorization", authorization).form(&form);
        let response = request.send().await.with_context(|| format!("no answer to {service}:{action}"))?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Answers a call.
    pub(super) async fn answer(&self, request: Request) -> Response {
        let call = read(&request);
        let name = format!("{}:{}", call.service, call.action);
        if let Some(fault) = self.record(&name) {
            return refusal(&call.service, fault.status, fault.code, fault.message);
        }
        let answered = match name.as_str() {
            "autoscaling:SetDesiredCapacity" => self.set_desired_capacity(&call).await,
            "autoscaling:DescribeScalingActivities" => Ok(Some(self.activities(&call))),
            "autoscaling:TerminateInstanceInAutoScalingGroup" => self.terminate(&call).await,
            "autoscaling:RecordLifecycleActionHeartbeat" => Ok(Some(empty(&call.action))),
            "autoscaling:CompleteLifecycleAction" => self.complete(&call).await,
            "autoscaling:DescribeAutoScalingGroups" => self.groups(&call).await.map(Some),
            "ec2:CreateLaunchTemplate" => {
                self.launch_template(&call);
                Ok(None)
            }
            "ec2:DescribePlacementGroups" => Ok(Some(self.placement_groups(&call))),
            "ec2:CreateFleet" => self.fleet(&call).await.map(Some),
            "ssm:GetParameter" => self.parameter(request.body()).await,
            "eks:DescribeCluster" => Ok(Some(fleet::cluster())),
            "pricing:GetProducts" => fleet::products(request.body()).map(Some),
            "ec2:DescribeInstanceTypes" => self.instance_types(&call).await.map(Some),
            "ec2:GetInstanceTypesFromInstanceRequirements" => self.matching(&call).await.map(Some),
            _ => Ok(None),
        };
        match answered {
            Ok(Some(response)) => response,
            Ok(None) => self.forward(request).await.unwrap_or_else(|error| broken(&error)),
            Err(error) => broken(&error),
        }
    }

    /// Writes the call down; with the fault that it is due.
    fn record(&self, name: &str) -> Option<Fault> {
        let mut state = self.state();
        state.calls.push(name.to_owned());
        let fault = state.faults.iter_mut().find(|fault| fault.action == name && fault.times > 0)?;
        fault.times -= 1;
        Some(fault.clone())
    }

    async fn forward(&self, request: Request) -> Result<Response> {
        let (mut head, body) = request.into_parts();
        head.uri = format!("{}{}", self.moto, head.uri.path_and_query().map_or("/", |path| path.as_str()))
            .parse()?;
        head.headers.remove("host");
        let request = reqwest::Request::try_from(hyper::Request::from_parts(head, body))?;
        let response = self.http.execute(request).await?;
        let status = response.status().as_u16();
        let kind = response
            .headers()
            .get("content-type")
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or("text/xml")
            .to_owned();
        Ok(answer(status, &kind, response.bytes().await?))
    }

    /// AWS refuses sizes outside of the bounds and groups that do not exist; moto does not.
    async fn set_desired_capacity(&self, call: &Call) -> Result<Option<Response>> {
        let (name, wanted) = (call.get("AutoScalingGroupName"), call.get("DesiredCapacity").parse::<u32>()?);
        let (_, groups) = self.ask_groups(name).await?;
        if xml::content(&groups, "MaxSize").is_none() {
            let message = "AutoScalingGroup name not found - null";
            return Ok(Some(refusal("autoscaling", 400, "ValidationError", message)));
        }
        let bound = |bound: &str| xml::text(&groups, bound).parse::<u32>();
        let (min, max) = (bound("MinSize")?, bound("MaxSize")?);
        let outside = if wanted > max {
            Some(format!(
                "New SetDesiredCapacity value {wanted} is above max value {max} for the AutoScalingGroup."
            ))
        } else if wanted < min {
            Some(format!(
                "New SetDesiredCapacity value {wanted} is below min value {min} for the AutoScalingGroup."
            ))
        } else {
            None
        };
        if let Some(message) = outside {
            return Ok(Some(refusal("autoscaling", 400, "ValidationError", &message)));
        }
        let machines = xml::children(&groups, "Instances", "member").len();
        let Some(leaving) = self.resize(name, wanted, machines) else {
            return Ok(Some(empty(&call.action)));
        };
        if leaving == 0 {
            return Ok(None);
        }
        // moto counts those that a hook holds, AWS does not.
        let all = (wanted as usize + leaving).to_string();
        let parameters = [("AutoScalingGroupName", name), ("DesiredCapacity", &all)];
        self.ask("autoscaling", "SetDesiredCapacity", &parameters).await?;
        Ok(Some(empty(&call.action)))
    }

    /// Notes a size that moto does not know of; how many machines of the group that do not count a hook holds. `None` if
    /// moto is not to hear of it, since there are no machines to be had.
    fn resize(&self, name: &str, wanted: u32, machines: usize) -> Option<usize> {
        let mut state = self.state();
        let reason = state.exhausted.get(name).cloned();
        if let Some(reason) = reason.filter(|_| usize::try_from(wanted).is_ok_and(|wanted| wanted > machines))
        {
            state.desired.insert(name.to_owned(), wanted);
            state.activities.entry(name.to_owned()).or_default().insert(0, (Timestamp::now(), reason));
            return None;
        }
        let leaving = state.held.values().filter(|held| held.group == name && !held.is_replaced).count();
        if leaving == 0 {
            state.desired.remove(name);
        } else {
            state.desired.insert(name.to_owned(), wanted);
        }
        Some(leaving)
    }

    async fn ask_groups(&self, name: &str) -> Result<(u16, String)> {
        self.ask("autoscaling", "DescribeAutoScalingGroups", &[("AutoScalingGroupNames.member.1", name)])
            .await
    }

    fn activities(&self, call: &Call) -> Response {
        let state = self.state();
        let mut members = String::new();
        for (time, reason) in state.activities.get(call.get("AutoScalingGroupName")).into_iter().flatten() {
            // Writing to a String cannot fail.
            let _ = write!(
                members,
                "<member><StartTime>{time}</StartTime><StatusCode>Failed</StatusCode>\
                 <StatusMessage>{reason}</StatusMessage></member>"
            );
        }
        ok(&format!(
            "<DescribeScalingActivitiesResponse><DescribeScalingActivitiesResult><Activities>{members}</Activities>\
             </DescribeScalingActivitiesResult></DescribeScalingActivitiesResponse>"
        ))
    }

    pub(super) fn hook(&self, group: &str, name: &str) {
        self.state().hooks.insert(group.to_owned(), name.to_owned());
    }

    /// A group ends a machine, and keeps its size; its hook holds the machine.
    pub(super) fn hold(&self, group: &str, machine: &str, is_replaced: bool) {
        let held = Held { group: group.to_owned(), is_replaced };
        self.state().held.insert(machine.to_owned(), held);
    }

    /// With a hook the machine stays, and the size goes down at once.
    async fn terminate(&self, call: &Call) -> Result<Option<Response>> {
        self.shrink(call.get("InstanceId"), &call.action).await
    }

    /// Ends a machine of a group and lowers the group's size; nothing if moto can do that.
    pub(super) async fn shrink(&self, id: &str, action: &str) -> Result<Option<Response>> {
        let (_, instances) =
            self.ask("autoscaling", "DescribeAutoScalingInstances", &[("InstanceIds.member.1", id)]).await?;
        let group = xml::text(&instances, "AutoScalingGroupName").to_owned();
        if group.is_empty() {
            let message = format!("Instance Id not found - No managed instance found for instance ID: {id}");
            return Ok(Some(refusal("autoscaling", 400, "ValidationError", &message)));
        }
        let (_, described) = self.ask_groups(&group).await?;
        let known = xml::text(&described, "DesiredCapacity").parse::<u32>()?;
        let mut state = self.state();
        let overridden = state.desired.get(&group).copied();
        if state.hooks.contains_key(&group) {
            state.held.insert(id.to_owned(), Held { group: group.clone(), is_replaced: false });
            state.desired.insert(group, overridden.unwrap_or(known).saturating_sub(1));
            return Ok(Some(empty(action)));
        }
        if let Some(desired) = overridden {
            state.desired.insert(group, desired.saturating_sub(1));
        }
        Ok(None)
    }

    async fn complete(&self, call: &Call) -> Result<Option<Response>> {
        let id = call.get("InstanceId");
        let Some(Held { group, is_replaced }) = self.state().held.remove(id) else {
            let message = format!("No active Lifecycle Action found with instance ID {id}");
            return Ok(Some(refusal("autoscaling", 400, "ValidationError", &message)));
        };
        let shrinks = if is_replaced { "false" } else { "true" };
        let parameters = [("InstanceId", id), ("ShouldDecrementDesiredCapacity", shrinks)];
        self.ask("autoscaling", "TerminateInstanceInAutoScalingGroup", &parameters).await?;
        let mut state = self.state();
        if !state.held.values().any(|other| other.group == group) && !state.exhausted.contains_key(&group) {
            state.desired.remove(&group);
        }
        Ok(Some(empty(&call.action)))
    }

    async fn groups(&self, call: &Call) -> Result<Response> {
        let own = ["Action", "Version", "NextToken"];
        let (status, mut body) = self.ask(&call.service, &call.action, &without(call, &own)).await?;
        let state = self.state();
        for (name, desired) in &state.desired {
            let group = format!("<AutoScalingGroupName>{name}</AutoScalingGroupName>");
            body = xml::replace_after(&body, &group, "DesiredCapacity", &desired.to_string());
        }
        for id in state.held.keys() {
            let instance = format!("<InstanceId>{id}</InstanceId>");
            body = xml::replace_after(&body, &instance, "LifecycleState", "Terminating:Wait");
        }
        let size = state.page_size.unwrap_or(100).min(call.get("MaxRecords").parse().unwrap_or(100));
        let body = page(&body, ("AutoScalingGroups", "member", "NextToken"), size, call.get("NextToken"));
        Ok(answer(status, "text/xml", body))
    }

    async fn instance_types(&self, call: &Call) -> Result<Response> {
        let own = ["Action", "Version", "NextToken", "MaxResults"];
        let mut parameters = without(call, &own);
        // moto reads filters up to the first number that is missing.
        let filter = 1 + parameters.iter().filter(|(name, _)| name.ends_with(".Name")).count();
        let name = format!("Filter.{filter}.Name");
        let families: Vec<_> =
            (1..=FAMILIES.len()).map(|index| format!("Filter.{filter}.Value.{index}")).collect();
        if !parameters.iter().any(|(_, value)| *value == "instance-type") {
            parameters.push((&name, "instance-type"));
            parameters.extend(families.iter().map(String::as_str).zip(FAMILIES));
        }
        let (status, body) = self.ask(&call.service, &call.action, &parameters).await?;
        let size = self.state().page_size.unwrap_or(100).min(call.get("MaxResults").parse().unwrap_or(100));
        let body = page(&body, ("instanceTypeSet", "item", "nextToken"), size, call.get("NextToken"));
        Ok(answer(status, "text/xml", body))
    }

    /// By number of processors and memory alone.
    async fn matching(&self, call: &Call) -> Result<Response> {
        let names: Vec<_> = (1..=CANDIDATES.len()).map(|index| format!("InstanceType.{index}")).collect();
        let parameters: Vec<_> = names.iter().map(String::as_str).zip(CANDIDATES).collect();
        let (_, types) = self.ask("ec2", "DescribeInstanceTypes", &parameters).await?;
        let bound = |name: &str| call.get(&format!("InstanceRequirements.{name}")).parse::<u64>().ok();
        let inside = |value: u64, name: &str| {
            value >= bound(&format!("{name}.Min")).unwrap_or(0)
                && value <= bound(&format!("{name}.Max")).unwrap_or(u64::MAX)
        };
        let mut items = String::new();
        for found in xml::children(&types, "instanceTypeSet", "item") {
            let number = |name: &str| xml::text(found, name).parse::<u64>().unwrap_or(0);
            let memory = xml::text(xml::text(found, "memoryInfo"), "sizeInMiB").parse().unwrap_or(0);
            let architecture = format!("<item>{}</item>", call.get("ArchitectureType.1"));
            let fits = inside(number("defaultVCpus"), "VCpuCount") && inside(memory, "MemoryMiB");
            if fits && xml::text(found, "supportedArchitectures").contains(&architecture) {
                let name = xml::text(found, "instanceType");
                let _ = write!(items, "<item><instanceType>{name}</instanceType></item>");
            }
        }
        Ok(ok(&format!(
            "<GetInstanceTypesFromInstanceRequirementsResponse><instanceTypeSet>{items}</instanceTypeSet>\
             </GetInstanceTypesFromInstanceRequirementsResponse>"
        )))
    }
}

fn without<'a>(call: &'a Call, names: &[&str]) -> Vec<(&'a str, &'a str)> {
    let pairs = call.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    pairs.filter(|(name, _)| !names.contains(name)).collect()
}

/// One page of a list; the token is the number of records before it.
fn page(body: &str, (list, record, token): (&str, &str, &str), size: usize, after: &str) -> String {
    let records = xml::children(body, list, record);
    let from = after.parse().unwrap_or(0_usize);
    let until = (from + size).min(records.len());
    let whole = format!("<{list}>{}</{list}>", xml::text(body, list));
    let mut part = format!("<{list}>");
    for content in records.get(from..until).unwrap_or_default() {
        let _ = write!(part, "<{record}>{content}</{record}>");
    }
    let _ = write!(part, "</{list}>");
    if until < records.len() {
        let _ = write!(part, "<{token}>{until}</{token}>");
    }
    body.replacen(&whole, &part, 1)
}

/// The service stands in the signature's scope, the action in the form, a header or the path.
fn read(request: &Request) -> Call {
    let header =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let service =
        header("authorization").split("Credential=").nth(1).and_then(|scope| scope.split('/').nth(3));
    let target = header("x-amz-target").rsplit('.').next().unwrap_or_default();
    let parameters = form(request.body());
    let mut call =
        Call { service: service.unwrap_or("sts").to_owned(), action: target.to_owned(), parameters };
    if call.action.is_empty() {
        call.action = match (call.get("Action"), request.uri().path()) {
            ("", path) if path.contains("/node-groups/") => "DescribeNodegroup".to_owned(),
            ("", path) if path.starts_with("/clusters/") => "DescribeCluster".to_owned(),
            (action, _) => action.to_owned(),
        };
    }
    call
}

fn form(body: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(body);
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn ok(body: &str) -> Response {
    answer(200, "text/xml", body.to_owned())
}

fn empty(action: &str) -> Response {
    ok(&format!("<{action}Response><{action}Result></{action}Result></{action}Response>"))
}

pub(super) fn broken(error: &anyhow::Error) -> Response {
    answer(500, "text/plain", format!("proxy: {error:#}"))
}

pub(super) fn refusal(service: &str, status: u16, code: &str, message: &str) -> Response {
    let problem = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    match service {
        "ec2" => answer(status, "text/xml", format!("<Response><Errors>{problem}</Errors></Response>")),
        "autoscaling" | "iam" | "sts" => {
            answer(status, "text/xml", format!("<ErrorResponse>{problem}</ErrorResponse>"))
        }
        _ => answer(
            status,
            "application/x-amz-json-1.1",
            format!(r#"{{"__type":"{code}","message":"{message}"}}"#),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let wanted = [("a.1", "x y"), ("b", "ü/="), ("c", "%zz")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(form(b"a.1=x+y&b=%C3%BC%2F%3D&c=%zz"), wanted);
    }

    #[test]
    fn a_page_says_whether_there_are_more() {
        let body = "<R><L><m>1</m><m>2</m><m>3</m></L></R>";
        let list = ("L", "m", "T");
        assert_eq!(page(body, list, 2, ""), "<R><L><m>1</m><m>2</m></L><T>2</T></R>");
        assert_eq!(page(body, list, 2, "2"), "<R><L><m>3</m></L></R>");
    }
}
