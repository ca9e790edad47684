//! What EC2 offers in the region: types, zones and prices; and what of it a node class can have.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use tandem_core::{
    api::karpenter::EC2NodeClassSpec,
    nodes::pools::{
        instance_type::{InstanceType, Offering},
        requirements::{
            Requirement,
            labels::{CAPACITY_TYPE, ZONE},
        },
    },
};
use tokio::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{
    class::{Found, image_for},
    labels::ZONE_ID,
    machine_type::{Overheads, instance_type},
    placement,
};
use crate::cloud::{
    CloudError,
    aws::{
        client::Client,
        fleet::{
            offerings::{self, terms},
            prices,
        },
        instance_types::{self, InstanceTypeInfo},
    },
};

/// Between two looks (aws, polls of prices and instance types).
const FRESH: Duration = Duration::from_hours(12);
/// Before a look that failed is tried again, while an older one stands.
const RETRY: Duration = Duration::from_mins(1);

/// What EC2 offers in a region.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Market {
    /// By name.
    pub(super) types: BTreeMap<String, InstanceTypeInfo>,
    /// Zones by type.
    pub(super) zones: BTreeMap<String, BTreeSet<String>>,
    /// Dollars an hour by type.
    pub(super) on_demand: BTreeMap<String, f64>,
    /// Dollars an hour by type and zone.
    pub(super) spot: BTreeMap<(String, String), f64>,
}

/// The market, read when it is wanted and kept.
#[derive(Debug, Default)]
pub(super) struct Markets {
    kept: Mutex<Option<(Instant, Arc<Market>)>>,
}

impl Markets {
    /// The market now, or as it was if AWS does not answer.
    pub(super) async fn get(&self, client: &Client, isolated: bool) -> Result<Arc<Market>, CloudError> {
        let mut kept = self.kept.lock().await;
        let old = match &*kept {
            Some((until, market)) if Instant::now() < *until => return Ok(market.clone()),
            Some((_, market)) => Some(market.clone()),
            None => None,
        };
        let (market, fresh) = match (read(client, isolated).await, old) {
            (Ok(market), _) => (Arc::new(market), FRESH),
            (Err(error), Some(old)) => {
                tracing::warn!(%error, "instance types cannot be read again, those read before are used");
                (old, RETRY)
            }
            (Err(error), None) => return Err(error),
        };
        *kept = Some((Instant::now() + fresh, market.clone()));
        Ok(market)
    }
}

/// Prices that cannot be asked for are those that are shipped.
async fn read(client: &Client, isolated: bool) -> Result<Market, CloudError> {
    let asked = async { if isolated { Ok(BTreeMap::new()) } else { prices::on_demand(client).await } };
    let (types, zones, on_demand, spot) = tokio::join!(
        instance_types::all(client),
        offerings::zones(client),
        asked,
        prices::spot(client, Timestamp::now())
    );
    let types = types?;
    let asked = on_demand.unwrap_or_else(|error| {
        tracing::warn!(%error, "on-demand prices cannot be asked for; those that are shipped are used");
        BTreeMap::new()
    });
    let price =
        |name: &String| Some((name.clone(), asked.get(name).copied().or_else(|| prices::shipped(name))?));
    Ok(Market {
        on_demand: types.keys().filter_map(price).collect(),
        types,
        zones: zones?,
        spot: spot.unwrap_or_else(|error| {
            tracing::warn!(%error, "spot prices cannot be asked for; spot is taken to cost what on demand does");
            BTreeMap::new()
        }),
    })
}

impl Market {
    /// The types that a class can have: in the zones of its subnets and its placement group, with an image that runs on them;
    /// by name.
    pub(super) fn of_class(
        &self,
        spec: &EC2NodeClassSpec,
        region: &str,
        found: &Found,
        overheads: Overheads,
    ) -> Arc<[Arc<InstanceType>]> {
        let subnets = found.subnets.as_deref().unwrap_or_default();
        let images = found.images.as_deref().unwrap_or_default();
        let group = found.placement_group.as_ref().ok().and_then(Option::as_ref);
        let zone_ids: BTreeMap<&str, &str> = subnets
            .iter()
            .map(|subnet| (subnet.availability_zone.as_str(), subnet.availability_zone_id.as_str()))
            .collect();
        let build = |info: &InstanceTypeInfo| {
            let offered = self.zones.get(&info.name)?;
            let zones = offered.iter().filter(|zone| zone_ids.contains_key(zone.as_str())).cloned().collect();
            let on_demand = self.on_demand.get(&info.name).copied();
            let offering = |terms: offerings::Terms| {
                let mut requirements = vec![
                    Requirement::is(ZONE, &terms.zone),
                    Requirement::is(CAPACITY_TYPE, terms.capacity_type),
                ];
                let id = zone_ids.get(terms.zone.as_str()).filter(|id| !id.is_empty());
                requirements.extend(id.map(|id| Requirement::is(ZONE_ID, id)));
                Offering {
                    requirements: requirements.into_iter().collect(),
                    price: terms.price,
                    available: true,
                    reservation: None,
                }
            };
            let mut offerings: Vec<_> =
                terms(info, &zones, on_demand, &self.spot).into_iter().map(offering).collect();
            if let Some(group) = group {
                if !placement::takes(group, info) {
                    return None;
                }
                offerings = placement::within(group, &offerings);
            }
            let built = instance_type(info, spec, region, overheads, offerings);
            (!built.offerings.is_empty() && image_for(images, &built).is_some()).then(|| Arc::new(built))
        };
        self.types.values().filter_map(build).collect()
    }
}
