//! What moto lacks of fleets, and what node pools ask that it cannot answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Context, Result};

use super::proxy::{Call, Proxy, ok, refusal};
use crate::http::{Response, answer};
use crate::xml;

/// On-demand prices that are answered, dollars an hour; others the caller has to know.
const PRICES: [(&str, &str); 2] = [("m5.large", "0.1150000000"), ("c5.large", "0.0970000000")];

/// What was told of fleets, and what became of them.
#[derive(Debug, Default)]
pub(super) struct Fleets {
    /// Types and zones without capacity.
    pub(super) sold_out: BTreeSet<(String, String)>,
    /// Instance profiles that EC2 does not know.
    pub(super) unknown_profiles: BTreeSet<String>,
    /// Placement groups by name: id, strategy and partitions.
    pub(super) placement_groups: BTreeMap<String, (String, String, u32)>,
    /// Where machines were launched: the id of a placement group, and the partition.
    pub(super) placements: Vec<(String, String)>,
    /// Launch templates by name.
    templates: BTreeMap<String, Template>,
    /// Answers by token, with the parameters that they are to.
    answers: BTreeMap<String, (String, String)>,
}

/// What moto does not hand on from a launch template to its machines.
#[derive(Debug, Default)]
struct Template {
    profile: String,
    security_groups: Vec<String>,
    placement: (String, String),
}

/// One choice of a fleet.
struct Choice<'a> {
    template: &'a str,
    instance_type: &'a str,
    zone: &'a str,
    prefix: String,
}

impl Proxy {
    /// Notes what moto does not hand on from templates to machines.
    pub(super) fn launch_template(&self, call: &Call) {
        let data = |name: &str| call.get(&format!("LaunchTemplateData.{name}")).to_owned();
        let template = Template {
            profile: data("IamInstanceProfile.Name"),
            security_groups: call.values("LaunchTemplateData.SecurityGroupId."),
            placement: (data("Placement.GroupId"), data("Placement.PartitionNumber")),
        };
        self.state().fleets.templates.insert(call.get("LaunchTemplateName").to_owned(), template);
    }

    /// The placement groups that a filter by name or an id means.
    pub(super) fn placement_groups(&self, call: &Call) -> Response {
        let (id, names) = (call.get("GroupId.1"), call.values("Filter.2.Value."));
        let mut found = String::new();
        for (name, (own, strategy, partitions)) in &self.state().fleets.placement_groups {
            if *own == id || names.contains(name) {
                let _ = write!(
                    found,
                    "<item><groupName>{name}</groupName><groupId>{own}</groupId><strategy>{strategy}</strategy>\
                     <partitionCount>{partitions}</partitionCount><state>available</state></item>"
                );
            }
        }
        if !id.is_empty() && found.is_empty() {
            let message = format!("The Placement Group '{id}' is unknown.");
            return refusal("ec2", 400, "InvalidPlacementGroupId.NotFound", &message);
        }
        ok(&format!(
            "<DescribePlacementGroupsResponse><placementGroupSet>{found}</placementGroupSet></DescribePlacementGroupsResponse>"
        ))
    }

    /// A fleet of what is to be had; asked again with the same token, the same one.
    pub(super) async fn fleet(&self, call: &Call) -> Result<Response> {
        let token = call.get("ClientToken").to_owned();
        let parameters = format!("{:?}", call.parameters);
        let _launching = self.launching.lock().await;
        if let Some((before, body)) = self.state().fleets.answers.get(&token) {
            let message = "The request uses the same client token as a previous, but non-identical request.";
            return Ok(if *before == parameters {
                ok(body)
            } else {
                refusal("ec2", 400, "IdempotentParameterMismatch", message)
            });
        }
        let body = match self.launch(call).await? {
            Ok(body) => body,
            Err(refused) => return Ok(refused),
        };
        self.state().fleets.answers.insert(token, (parameters, body.clone()));
        Ok(ok(&body))
    }

    async fn launch(&self, call: &Call) -> Result<std::result::Result<String, Response>> {
        let choices = choices(call);
        let (mut errors, mut left, mut groups) = (String::new(), Vec::new(), Vec::new());
        let mut placement = Default::default();
        {
            let state = self.state();
            for choice in &choices {
                let key = (choice.instance_type.to_owned(), choice.zone.to_owned());
                let Template { profile, .. } =
                    state.fleets.templates.get(choice.template).context("no such template")?;
                let error = if state.fleets.sold_out.contains(&key) {
                    let message = "We currently do not have sufficient capacity in the Availability Zone you requested.";
                    Some(("InsufficientInstanceCapacity", message.to_owned()))
                } else if state.fleets.unknown_profiles.contains(profile) {
                    let message = format!(
                        "Value ({profile}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
                    );
                    Some(("InvalidParameterValue", message))
                } else {
                    None
                };
                match error {
                    None => left.push(choice),
                    Some((code, message)) => {
                        let _ = write!(
                            errors,
                            "<item><errorCode>{code}</errorCode><errorMessage>{message}</errorMessage>\
                             <launchTemplateAndOverrides><overrides><instanceType>{}</instanceType><availabilityZone>{}\
                             </availabilityZone></overrides></launchTemplateAndOverrides></item>",
                            choice.instance_type, choice.zone
                        );
                    }
                }
            }
            if let Some(first) = left.first()
                && let Some(found) = state.fleets.templates.get(first.template)
            {
                groups.clone_from(&found.security_groups);
                placement = found.placement.clone();
            }
        }
        let errors = format!("<errorSet>{errors}</errorSet>");
        let Some(first) = left.first() else {
            let fleet = "<fleetId>fleet-0</fleetId><fleetInstanceSet></fleetInstanceSet>";
            return Ok(Ok(format!("<CreateFleetResponse>{fleet}{errors}</CreateFleetResponse>")));
        };
        // moto takes the first, whatever it costs: callers name the cheapest first.
        let (config, _) = first.prefix.split_once(".Overrides.").context("no override")?;
        let own =
            |name: &str| !name.starts_with("LaunchTemplateConfigs.") && name != "Action" && name != "Version";
        let mut parameters: Vec<(String, String)> =
            call.parameters.iter().filter(|(name, _)| own(name)).cloned().collect();
        for (name, value) in &call.parameters {
            if let Some(rest) = name.strip_prefix(&format!("{config}.LaunchTemplateSpecification.")) {
                parameters.push((
                    format!("LaunchTemplateConfigs.1.LaunchTemplateSpecification.{rest}"),
                    value.clone(),
                ));
            }
            if let Some(rest) = name.strip_prefix(&format!("{}.", first.prefix)) {
                parameters.push((format!("LaunchTemplateConfigs.1.Overrides.1.{rest}"), value.clone()));
            }
        }
        let borrowed: Vec<_> =
            parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (status, body) = self.ask("ec2", "CreateFleet", &borrowed).await?;
        if status != 200 {
            return Ok(Err(answer(status, "text/xml", body)));
        }
        let id = xml::content(&body, "instanceIds").map(|ids| xml::text(ids, "item").to_owned());
        if let Some(id) = id {
            self.join_groups(&id, &groups).await?;
            self.state().fleets.placements.push(placement);
        }
        let body = body.replacen("</CreateFleetResponse>", &format!("{errors}</CreateFleetResponse>"), 1);
        Ok(Ok(body))
    }

    /// moto gives machines of fleets the default security group.
    async fn join_groups(&self, id: &str, groups: &[String]) -> Result<()> {
        let names: Vec<_> = (1..=groups.len()).map(|index| format!("GroupId.{index}")).collect();
        let mut parameters = vec![("InstanceId", id)];
        parameters.extend(names.iter().map(String::as_str).zip(groups.iter().map(String::as_str)));
        if !groups.is_empty() {
            self.ask("ec2", "ModifyInstanceAttribute", &parameters).await?;
        }
        Ok(())
    }

    /// Images that EKS publishes: any of moto's, of the architecture that the name of the parameter has.
    pub(super) async fn parameter(&self, body: &[u8]) -> Result<Option<Response>> {
        let asked: serde_json::Value = serde_json::from_slice(body)?;
        let name = asked["Name"].as_str().unwrap_or_default();
        if !name.starts_with("/aws/service/eks/") && !name.starts_with("/aws/service/bottlerocket/") {
            return Ok(None);
        }
        let architecture = if name.contains("arm64") { "arm64" } else { "x86_64" };
        let filter = [("Filter.1.Name", "architecture"), ("Filter.1.Value.1", architecture)];
        let (_, images) = self.ask("ec2", "DescribeImages", &filter).await?;
        Ok(Some(match xml::content(&images, "imageId").filter(|_| !name.contains("/neuron/")) {
            Some(id) => json(&serde_json::json!({"Parameter": {"Name": name, "Value": id}})),
            None => refusal("ssm", 400, "ParameterNotFound", ""),
        }))
    }
}

/// A cluster of EKS of any name.
pub(super) fn cluster() -> Response {
    json(&serde_json::json!({"cluster": {
        "endpoint": "https://api.test", "certificateAuthority": {"data": "Y2E="},
        "kubernetesNetworkConfig": {"serviceIpv4Cidr": "10.100.0.0/16"},
    }}))
}

/// One price a page.
pub(super) fn products(body: &[u8]) -> Result<Response> {
    let asked: serde_json::Value = serde_json::from_slice(body)?;
    let page: usize = asked["NextToken"].as_str().unwrap_or("0").parse()?;
    let (name, price) = PRICES.get(page).context("no such page")?;
    let product = serde_json::json!({
        "product": {"attributes": {"instanceType": name}},
        "terms": {"OnDemand": {"S.T": {"priceDimensions": {"S.T.D": {"pricePerUnit": {"USD": price}}}}}},
    });
    let next = (page + 1 < PRICES.len()).then(|| (page + 1).to_string());
    Ok(json(&serde_json::json!({"PriceList": [product.to_string()], "NextToken": next})))
}

fn json(body: &serde_json::Value) -> Response {
    answer(200, "application/x-amz-json-1.1", body.to_string())
}

fn choices(call: &Call) -> Vec<Choice<'_>> {
    let mut choices = Vec::new();
    for config in 1.. {
        let config = format!("LaunchTemplateConfigs.{config}");
        let template = call.get(&format!("{config}.LaunchTemplateSpecification.LaunchTemplateName"));
        if template.is_empty() {
            break;
        }
        for index in 1.. {
            let prefix = format!("{config}.Overrides.{index}");
            let instance_type = call.get(&format!("{prefix}.InstanceType"));
            if instance_type.is_empty() {
                break;
            }
            let zone = call.get(&format!("{prefix}.AvailabilityZone"));
            choices.push(Choice { template, instance_type, zone, prefix });
        }
    }
    choices
}
