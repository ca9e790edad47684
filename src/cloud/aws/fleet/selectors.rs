//! Subnets, security groups and images by selector terms: what any term finds is meant, within a term all must hold.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use crate::cloud::{
    CloudError,
    aws::{
        action::{
            DESCRIBE_IMAGES, DESCRIBE_PLACEMENT_GROUPS, DESCRIBE_SECURITY_GROUPS, DESCRIBE_SUBNETS,
            GET_PARAMETER,
        },
        answer::{items, next},
        client::Client,
        form::Form,
    },
};

/// Images that one page may hold.
const IMAGES: u32 = 1000;

/// A selector term.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Term {
    /// The id; other fields then do not count.
    pub id: Option<String>,
    /// The name; `*` stands for anything.
    pub name: Option<String>,
    /// Whose it is: an account's number, `self` or `amazon`. Of images only.
    pub owner: Option<String>,
    /// Tags; the value `*` means any.
    pub tags: BTreeMap<String, String>,
}

impl Term {
    fn form(&self, id_filter: &str, name_filter: &str) -> Form {
        if let Some(id) = &self.id {
            return Form::new().filter(id_filter, [id]);
        }
        let mut form = Form::new();
        if let Some(name) = &self.name {
            form = form.filter(name_filter, [name]);
        }
        for (key, value) in &self.tags {
            form = if value == "*" {
                form.filter("tag-key", [key])
            } else {
                form.filter(&format!("tag:{key}"), [value])
            };
        }
        form
    }
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    /// `subnet-…`.
    pub subnet_id: String,
    /// Its zone.
    pub availability_zone: String,
    /// The zone's id, which is the same in all accounts.
    #[serde(default)]
    pub availability_zone_id: String,
    /// Addresses that are free.
    #[serde(default)]
    pub available_ip_address_count: u32,
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroup {
    /// `sg-…`.
    pub group_id: String,
    /// Its name.
    #[serde(default)]
    pub group_name: String,
}

/// A placement group: where EC2 puts machines to each other.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacementGroup {
    /// `pg-…`.
    pub group_id: String,
    /// `cluster`, `partition` or `spread`.
    pub strategy: String,
    /// How many partitions it has, if it has such.
    #[serde(default)]
    pub partition_count: u32,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// `ami-…`.
    pub image_id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// `x86_64` or `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// When it was made, as RFC 3339; newer ones are preferred.
    #[serde(default)]
    pub creation_date: String,
    /// From when on it should not be used, as RFC 3339.
    pub deprecation_time: Option<String>,
}

/// Subnets, those with the most free addresses first.
pub async fn subnets(client: &Client, terms: &[Term]) -> Result<Vec<Subnet>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        #[serde(default, deserialize_with = "items")]
        subnet_set: Vec<Subnet>,
        next_token: Option<String>,
    }
    let mut found = BTreeMap::new();
    for term in terms {
        let (form, mut token) = (term.form("subnet-id", "tag:Name"), None);
        loop {
            let page: Page =
                client.query(&DESCRIBE_SUBNETS, form.clone().set_some("NextToken", token)).await?;
            found.extend(page.subnet_set.into_iter().map(|subnet| (subnet.subnet_id.clone(), subnet)));
            token = next(page.next_token);
            if token.is_none() {
                break;
            }
        }
    }
    let mut found: Vec<_> = found.into_values().collect();
    // Stable: of as many addresses each, by id.
    found.sort_by_key(|subnet| std::cmp::Reverse(subnet.available_ip_address_count));
    Ok(found)
}

/// Security groups, by id.
pub async fn security_groups(client: &Client, terms: &[Term]) -> Result<Vec<SecurityGroup>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        #[serde(default, deserialize_with = "items")]
        security_group_info: Vec<SecurityGroup>,
        next_token: Option<String>,
    }
    let mut found = BTreeMap::new();
    for term in terms {
        let (form, mut token) = (term.form("group-id", "group-name"), None);
        loop {
            let page: Page =
                client.query(&DESCRIBE_SECURITY_GROUPS, form.clone().set_some("NextToken", token)).await?;
            found.extend(page.security_group_info.into_iter().map(|group| (group.group_id.clone(), group)));
            token = next(page.next_token);
            if token.is_none() {
                break;
            }
        }
    }
    Ok(found.into_values().collect())
}

/// The placement group of this id, else of this name, if machines can be launched into it.
///
/// # Errors
/// [`CloudError::NotFound`] if there is none.
pub async fn placement_group(
    client: &Client,
    id: Option<&str>,
    name: Option<&str>,
) -> Result<PlacementGroup, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        #[serde(default, deserialize_with = "items")]
        placement_group_set: Vec<PlacementGroup>,
    }
    let form = Form::new().filter("state", ["available"]);
    let form = match (id, name) {
        (Some(id), _) => form.set("GroupId.1", id),
        // By a filter: as a parameter, a name that is not there would be an error.
        (None, name) => form.filter("group-name", name),
    };
    let found = match client.query::<Answer>(&DESCRIBE_PLACEMENT_GROUPS, form).await {
        // Codes that EC2 has for it: `InvalidPlacementGroup.Unknown`, `InvalidPlacementGroupId.NotFound`.
        Err(CloudError::Refused { code, .. }) if code == "InvalidPlacementGroup.Unknown" => None,
        Err(CloudError::NotFound(_)) => None,
        answered => answered?.placement_group_set.into_iter().next(),
    };
    let named = || format!("placement group {}", id.or(name).unwrap_or_default());
    found.ok_or_else(|| CloudError::NotFound(named()))
}

/// Images, newest first. A term with a name or tags and no owner means the account's own and Amazon's: anybody may
/// publish an image under any name.
pub async fn images(client: &Client, terms: &[Term]) -> Result<Vec<Image>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        #[serde(default, deserialize_with = "items")]
        images_set: Vec<Image>,
        next_token: Option<String>,
    }
    let mut found = BTreeMap::new();
    for term in terms {
        let owners = match (&term.owner, &term.id) {
            (Some(owner), _) => vec![owner.as_str()],
            (None, Some(_)) => vec![],
            (None, None) => vec!["self", "amazon"],
        };
        let form = term.form("image-id", "name").list("Owner", owners).set("MaxResults", IMAGES);
        let mut token = None;
        loop {
            let page: Page =
                client.query(&DESCRIBE_IMAGES, form.clone().set_some("NextToken", token)).await?;
            found.extend(page.images_set.into_iter().map(|image| (image.image_id.clone(), image)));
            token = next(page.next_token);
            if token.is_none() {
                break;
            }
        }
    }
    let mut found: Vec<_> = found.into_values().collect();
    found.sort_by(|a, b| (&b.creation_date, &a.name).cmp(&(&a.creation_date, &b.name)));
    Ok(found)
}

/// The id that a public parameter stands for, `/aws/service/eks/optimized-ami/…/image_id` say.
pub async fn parameter(client: &Client, name: &str) -> Result<String, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        parameter: Parameter,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Parameter {
        value: String,
    }
    client.json::<Answer>(&GET_PARAMETER, &json!({ "Name": name })).await.map(|answer| answer.parameter.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_is_filters_that_all_hold() {
        let tags = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "*".to_owned())]);
        let term = Term { name: Some("web-*".into()), tags, ..Term::default() };
        assert_eq!(
            term.form("group-id", "group-name").encode("D", "1"),
            "Action=D&Version=1&Filter.1.Name=group-name&Filter.1.Value.1=web-%2A&Filter.2.Name=tag%3Aa&\
             Filter.2.Value.1=1&Filter.3.Name=tag-key&Filter.3.Value.1=b"
        );
        let by_id = Term { id: Some("sg-1".into()), ..term };
        assert_eq!(
            by_id.form("group-id", "group-name").encode("D", "1"),
            "Action=D&Version=1&Filter.1.Name=group-id&Filter.1.Value.1=sg-1"
        );
    }
}
