//! Where instance types can be had.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::cloud::{
    CloudError,
    aws::{
        action::DESCRIBE_INSTANCE_TYPE_OFFERINGS,
        answer::{items, next},
        client::Client,
        form::Form,
        instance_types::InstanceTypeInfo,
    },
};

/// The terms on which a type can be had.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// The zone.
    pub zone: String,
    /// `on-demand` or `spot`.
    pub capacity_type: &'static str,
    /// Dollars an hour.
    pub price: f64,
}

/// Zones by type.
pub async fn zones(client: &Client) -> Result<BTreeMap<String, BTreeSet<String>>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        #[serde(default, deserialize_with = "items")]
        instance_type_offering_set: Vec<Found>,
        next_token: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Found {
        instance_type: String,
        location: String,
    }
    let form = Form::new().set("LocationType", "availability-zone");
    let (mut zones, mut token) = (BTreeMap::<_, BTreeSet<_>>::new(), None);
    loop {
        let page: Page = client
            .query(&DESCRIBE_INSTANCE_TYPE_OFFERINGS, form.clone().set_some("NextToken", token))
            .await?;
        for found in page.instance_type_offering_set {
            zones.entry(found.instance_type).or_default().insert(found.location);
        }
        token = next(page.next_token);
        if token.is_none() {
            return Ok(zones);
        }
    }
}

/// The terms of a type in these zones. What has no price cannot be compared and is left out; spot capacity whose price
/// is not known yet is taken to cost as much as on demand (Karpenter, `pkg/providers/pricing`).
pub fn terms(
    info: &InstanceTypeInfo,
    zones: &BTreeSet<String>,
    on_demand: Option<f64>,
    spot: &BTreeMap<(String, String), f64>,
) -> Vec<Terms> {
    let offers = |class: &str| info.supported_usage_classes.iter().any(|found| found == class);
    let mut found = Vec::new();
    for zone in zones {
        let terms = |capacity_type, price| Terms { zone: zone.clone(), capacity_type, price };
        if offers("on-demand") {
            found.extend(on_demand.map(|price| terms("on-demand", price)));
        }
        if offers("spot") {
            let price = spot.get(&(info.name.clone(), zone.clone())).copied().or(on_demand);
            found.extend(price.map(|price| terms("spot", price)));
        }
    }
    found
}
