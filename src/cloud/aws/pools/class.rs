//! What the selectors of a node class find.

use std::{collections::BTreeMap, future::Future};

use jiff::Timestamp;
use tandem_core::{
    api::karpenter::{EC2NodeClassSpec, NodeClassReference},
    nodes::pools::{instance_type::InstanceType, requirements::Requirements},
};
use tokio::time::{Duration, Instant};

use super::{
    family::{Family, architecture},
    placement,
};
use crate::cloud::{
    CloudError,
    aws::{
        client::Client,
        fleet::selectors::{self, Image, PlacementGroup, SecurityGroup, Subnet, Term},
    },
};

/// How long subnets and security groups are taken as they were (aws, `SUBNET_REFRESH_INTERVAL`).
const NETWORK_FRESH: Duration = Duration::from_mins(1);
/// How long images are (aws, `pkg/controllers/nodeclass/ami.go`).
const IMAGES_FRESH: Duration = Duration::from_mins(5);

/// An image that a class finds, and the machines that it is for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ClassImage {
    /// `ami-…`.
    pub(super) id: String,
    /// Its name.
    pub(super) name: String,
    /// Whether it should not be used any more.
    pub(super) is_deprecated: bool,
    /// What the labels of machines have to be that it runs on.
    pub(super) requirements: Requirements,
}

/// What the selectors of a class find; each alone may have failed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// Most free addresses first.
    pub(super) subnets: Result<Vec<Subnet>, CloudError>,
    /// By id.
    pub(super) security_groups: Result<Vec<SecurityGroup>, CloudError>,
    /// The better ones first: those that are not deprecated, newer ones.
    pub(super) images: Result<Vec<ClassImage>, CloudError>,
    /// None if the class names none.
    pub(super) placement_group: Result<Option<PlacementGroup>, CloudError>,
}

/// What a class found last, and when.
#[derive(Debug, Default)]
pub(super) struct Memory {
    spec: EC2NodeClassSpec,
    network: Option<Instant>,
    images: Option<Instant>,
    found: Option<Found>,
}

impl Memory {
    /// What the selectors find now; what a call fails to find again is taken as it was.
    pub(super) async fn find<F: Future<Output = Result<String, CloudError>>>(
        &mut self,
        client: &Client,
        spec: &EC2NodeClassSpec,
        kubernetes: impl FnOnce() -> F,
    ) -> Found {
        if self.spec != *spec {
            *self = Self { spec: spec.clone(), ..Self::default() };
        }
        let is_old = |since: Option<Instant>, fresh| since.is_none_or(|since| since.elapsed() >= fresh);
        let mut found = self.found.take();
        if is_old(self.network, NETWORK_FRESH) {
            let (subnets, security_groups, placement_group) = tokio::join!(
                subnets(client, spec),
                security_groups(client, spec),
                placement::find(client, spec)
            );
            let all = subnets.is_ok() && security_groups.is_ok() && placement_group.is_ok();
            self.network = all.then(Instant::now);
            found = Some(match found.take() {
                Some(old) => Found {
                    subnets: or_old(subnets, old.subnets.ok()),
                    security_groups: or_old(security_groups, old.security_groups.ok()),
                    placement_group: or_old(placement_group, old.placement_group.ok()),
                    images: old.images,
                },
                None => Found { subnets, security_groups, placement_group, images: Ok(Vec::new()) },
            });
        }
        if is_old(self.images, IMAGES_FRESH)
            && let Some(found) = &mut found
        {
            let images = match kubernetes().await {
                Ok(version) => images(client, spec, &version, Timestamp::now()).await,
                Err(error) => Err(error),
            };
            let old = self.images.take().and_then(|_| found.images.clone().ok());
            self.images = images.is_ok().then(Instant::now);
            found.images = or_old(images, old);
        }
        let found = found.unwrap_or_else(|| Found {
            subnets: Ok(Vec::new()),
            security_groups: Ok(Vec::new()),
            images: Ok(Vec::new()),
            placement_group: Ok(None),
        });
        self.found = Some(found.clone());
        found
    }
}

/// A refusal counts, an answer that did not come does not.
fn or_old<T>(new: Result<T, CloudError>, old: Option<T>) -> Result<T, CloudError> {
    match (new, old) {
        (Err(CloudError::Throttled { .. } | CloudError::Unreachable { .. }), Some(old)) => Ok(old),
        (new, _) => new,
    }
}

async fn subnets(client: &Client, spec: &EC2NodeClassSpec) -> Result<Vec<Subnet>, CloudError> {
    let terms = spec.subnet_selector_terms.iter().map(|term| Term {
        id: term.id.clone(),
        tags: term.tags.clone().unwrap_or_default(),
        ..Term::default()
    });
    selectors::subnets(client, &terms.collect::<Vec<_>>()).await
}

async fn security_groups(client: &Client, spec: &EC2NodeClassSpec) -> Result<Vec<SecurityGroup>, CloudError> {
    let terms = spec.security_group_selector_terms.iter().map(|term| Term {
        id: term.id.clone(),
        name: term.name.clone(),
        tags: term.tags.clone().unwrap_or_default(),
        ..Term::default()
    });
    selectors::security_groups(client, &terms.collect::<Vec<_>>()).await
}

async fn images(
    client: &Client,
    spec: &EC2NodeClassSpec,
    kubernetes: &str,
    now: Timestamp,
) -> Result<Vec<ClassImage>, CloudError> {
    let alias = spec.ami_selector_terms.iter().find_map(|term| term.alias.as_deref());
    let mut found = match alias {
        Some(alias) => of_alias(client, spec, alias, kubernetes).await?,
        None => of_terms(client, spec).await?,
    };
    let is_deprecated = |image: &Image| {
        let time = image.deprecation_time.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
        time.is_some_and(|time| time <= now)
    };
    found.sort_by_key(|(image, _)| is_deprecated(image));
    let image = |(image, mut requirements): (Image, Requirements)| {
        requirements.add(architecture(&image.architecture));
        ClassImage {
            is_deprecated: is_deprecated(&image),
            id: image.image_id,
            name: image.name,
            requirements,
        }
    };
    Ok(found.into_iter().map(image).collect())
}

/// Images that EKS publishes; what it does not publish for this version is left out.
async fn of_alias(
    client: &Client,
    spec: &EC2NodeClassSpec,
    alias: &str,
    kubernetes: &str,
) -> Result<Vec<(Image, Requirements)>, CloudError> {
    let named = EC2NodeClassSpec { ami_family: None, ..spec.clone() };
    let version = alias.split_once('@').map_or("latest", |(_, version)| version);
    let mut ids: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut variants = Vec::new();
    for published in Family::of(&named).published(version, kubernetes) {
        if !ids.contains_key(&published.parameter) {
            let id = match selectors::parameter(client, &published.parameter).await {
                Ok(id) => Some(id),
                // Not every build is there for every kind of machine.
                Err(CloudError::NotFound(_)) => None,
                Err(error) => return Err(error),
            };
            ids.insert(published.parameter.clone(), id);
        }
        if let Some(Some(id)) = ids.get(&published.parameter) {
            variants.push((id.clone(), published.variant));
        }
    }
    let terms: Vec<_> = ids.into_values().flatten().map(by_id).collect();
    let images = selectors::images(client, &terms).await?;
    let of = |image: Image| {
        let own = variants.iter().filter(|(id, _)| *id == image.image_id).map(|(_, variant)| *variant);
        own.map(|variant| (image.clone(), variant.requirements())).collect::<Vec<_>>()
    };
    Ok(images.into_iter().flat_map(of).collect())
}

async fn of_terms(
    client: &Client,
    spec: &EC2NodeClassSpec,
) -> Result<Vec<(Image, Requirements)>, CloudError> {
    let mut terms = Vec::new();
    for term in &spec.ami_selector_terms {
        terms.push(match &term.ssm_parameter {
            Some(parameter) => by_id(selectors::parameter(client, parameter).await?),
            None => Term {
                id: term.id.clone(),
                name: term.name.clone(),
                owner: term.owner.clone(),
                tags: term.tags.clone().unwrap_or_default(),
            },
        });
    }
    let images = selectors::images(client, &terms).await?;
    Ok(images.into_iter().map(|image| (image, Requirements::new())).collect())
}

fn by_id(id: String) -> Term {
    Term { id: Some(id), ..Term::default() }
}

/// The best image for machines of a type.
pub(super) fn image_for<'a>(images: &'a [ClassImage], of: &InstanceType) -> Option<&'a ClassImage> {
    images.iter().find(|image| of.requirements.intersects(&image.requirements))
}

/// How a class is called in messages.
pub(super) fn named(reference: &NodeClassReference) -> String {
    format!("{} {}", reference.kind, reference.name)
}
