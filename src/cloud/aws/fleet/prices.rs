//! Prices: a table that is shipped, the Pricing API where it answers, and what spot capacity costs now.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::cloud::{
    CloudError,
    aws::{
        action::{DESCRIBE_SPOT_PRICE_HISTORY, GET_PRODUCTS},
        answer::{items, next},
        client::{Client, refused},
        form::Form,
    },
};

/// See the comments in the file.
const ON_DEMAND: &str = include_str!("on_demand.csv");

/// Records that one page of the Pricing API may hold.
const PRODUCTS: u32 = 100;

/// Records that one page of spot prices may hold.
const SPOT_PRICES: u32 = 1000;

/// The shipped on-demand price of a type, in dollars an hour: right in us-east-1, in other regions right in proportion.
pub fn shipped(instance_type: &str) -> Option<f64> {
    let rows =
        || ON_DEMAND.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(','));
    let price = |wanted: &str| rows().find(|(name, _)| *name == wanted)?.1.parse::<f64>().ok();
    let (family, size) = instance_type.split_once('.')?;
    price(instance_type).or_else(|| Some(price(family)? * larges(size)?))
}

/// A size in multiples of `large`. Bare metal has no size that its name tells.
fn larges(size: &str) -> Option<f64> {
    match size {
        "nano" => Some(1.0 / 16.0),
        "micro" => Some(1.0 / 8.0),
        "small" => Some(1.0 / 4.0),
        "medium" => Some(1.0 / 2.0),
        "large" => Some(1.0),
        "xlarge" => Some(2.0),
        _ => size.strip_suffix("xlarge")?.parse::<u32>().ok().map(|times| 2.0 * f64::from(times)),
    }
}

/// On-demand prices of Linux in the client's region by type, in dollars an hour: some 1,300 in about 14 pages.
pub async fn on_demand(client: &Client) -> Result<BTreeMap<String, f64>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Page {
        #[serde(default)]
        price_list: Vec<String>,
        next_token: Option<String>,
    }
    let filters = [
        ("regionCode", client.region()),
        ("operatingSystem", "Linux"),
        ("tenancy", "Shared"),
        ("preInstalledSw", "NA"),
        ("capacitystatus", "Used"),
        ("productFamily", "Compute Instance"),
        ("marketoption", "OnDemand"),
    ];
    let filters =
        filters.map(|(field, value)| json!({ "Type": "TERM_MATCH", "Field": field, "Value": value }));
    let mut body = json!({ "ServiceCode": "AmazonEC2", "FormatVersion": "aws_v1", "MaxResults": PRODUCTS, "Filters": filters });
    let mut prices = BTreeMap::new();
    loop {
        let page: Page = client.json(&GET_PRODUCTS, &body).await?;
        for product in page.price_list {
            let read = product_price(&product);
            let (name, price) =
                read.map_err(|error| refused(&GET_PRODUCTS, "MalformedAnswer", &error.to_string()))?;
            prices.extend(price.map(|price| (name, price)));
        }
        let Some(token) = next(page.next_token) else { return Ok(prices) };
        body["NextToken"] = token.into();
    }
}

/// The type of a product, and its price if it has one; in China that is in another currency.
fn product_price(text: &str) -> Result<(String, Option<f64>), serde_json::Error> {
    #[derive(Deserialize)]
    struct Product {
        product: Described,
        terms: Terms,
    }
    #[derive(Deserialize)]
    struct Described {
        attributes: Attributes,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Attributes {
        instance_type: String,
    }
    #[derive(Deserialize)]
    struct Terms {
        #[serde(rename = "OnDemand", default)]
        on_demand: BTreeMap<String, Term>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Term {
        price_dimensions: BTreeMap<String, Dimension>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Dimension {
        price_per_unit: BTreeMap<String, String>,
    }
    let product: Product = serde_json::from_str(text)?;
    let dimensions = product.terms.on_demand.values().flat_map(|term| term.price_dimensions.values());
    let prices = dimensions.flat_map(|dimension| dimension.price_per_unit.values());
    let price = prices.filter_map(|price| price.parse().ok()).find(|price: &f64| *price > 0.0);
    Ok((product.product.attributes.instance_type, price))
}

/// What spot capacity of Linux costs at `now` by type and zone, in dollars an hour.
pub async fn spot(client: &Client, now: Timestamp) -> Result<BTreeMap<(String, String), f64>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        #[serde(default, deserialize_with = "items")]
        spot_price_history_set: Vec<SpotPrice>,
        next_token: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct SpotPrice {
        instance_type: String,
        availability_zone: String,
        #[serde(rename = "spotPrice")]
        price: f64,
    }
    // From now on means: the prices in force.
    let form = Form::new()
        .list("ProductDescription", ["Linux/UNIX", "Linux/UNIX (Amazon VPC)"])
        .set("StartTime", now)
        .set("MaxResults", SPOT_PRICES);
    let (mut prices, mut token) = (BTreeMap::new(), None);
    loop {
        let page: Page =
            client.query(&DESCRIBE_SPOT_PRICE_HISTORY, form.clone().set_some("NextToken", token)).await?;
        for found in page.spot_price_history_set {
            // Newest first.
            prices.entry((found.instance_type, found.availability_zone)).or_insert(found.price);
        }
        token = next(page.next_token);
        if token.is_none() {
            return Ok(prices);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_priced_by_size_and_single_types_by_row() {
        for (name, price) in [
            ("m5.large", Some(0.096)),
            ("m5.24xlarge", Some(4.608)),
            ("c6g.medium", Some(0.034)),
            ("t3.nano", Some(0.0052)),
            ("i4i.8xlarge", Some(2.7456)),
            ("g5.12xlarge", Some(5.672)),
            ("m5.metal", None),
            ("zz9.large", None),
            ("m5", None),
        ] {
            let seen = shipped(name);
            let near = match (seen, price) {
                (Some(seen), Some(price)) => (seen - price).abs() < 1e-9,
                (seen, price) => seen == price,
            };
            assert!(near, "{name}: {seen:?}");
        }
    }

    #[test]
    fn every_row_of_the_table_reads() {
        for line in ON_DEMAND.lines().filter(|line| !line.starts_with('#')) {
            let (name, price) = line.split_once(',').unwrap();
            assert!(!name.is_empty() && price.parse::<f64>().unwrap() > 0.0, "{line}");
        }
    }

    #[test]
    fn a_product_reads() {
        let product = |price: &str| {
            json!({
                "product": { "attributes": { "instanceType": "m5.large", "vcpu": "2" }, "sku": "S" },
                "terms": { "OnDemand": { "S.T": { "priceDimensions": { "S.T.D": { "pricePerUnit": { "USD": price } } } } } },
            })
            .to_string()
        };
        assert_eq!(product_price(&product("0.0960000000")).unwrap(), ("m5.large".into(), Some(0.096)));
        assert_eq!(product_price(&product("0.0000000000")).unwrap(), ("m5.large".into(), None));
    }
}
