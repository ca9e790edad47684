//! Quantities that their author wrote as numbers (`cpu: 1`).
//!
//! In its own kinds the API server makes texts of them. In custom resources it keeps them as they are, and one number
//! would make a whole list unreadable.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

/// Fields of the core and autoscaling groups that hold a quantity.
const QUANTITIES: [&str; 3] = ["divisor", "sizeLimit", "tolerance"];
/// Fields of the core group that hold a map of them.
const QUANTITY_MAPS: [&str; 3] = ["limits", "overhead", "requests"];

/// Reads a value in which quantities may be numbers.
pub(super) fn with_quantities<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let mut value = Value::deserialize(deserializer)?;
    quantities_as_text(&mut value);
    serde_json::from_value(value).map_err(D::Error::custom)
}

/// Reads a list of resources, in which quantities may be numbers.
pub(super) fn resource_list<'de, D>(deserializer: D) -> Result<Option<BTreeMap<String, Quantity>>, D::Error>
where
    D: Deserializer<'de>,
{
    let mut value = Value::deserialize(deserializer)?;
    value.as_object_mut().into_iter().flat_map(|fields| fields.values_mut()).for_each(number_as_text);
    serde_json::from_value(value).map_err(D::Error::custom)
}

/// Reads a quantity that may be a number.
pub(super) fn quantity<'de, D>(deserializer: D) -> Result<Option<Quantity>, D::Error>
where
    D: Deserializer<'de>,
{
    let mut value = Value::deserialize(deserializer)?;
    number_as_text(&mut value);
    serde_json::from_value(value).map_err(D::Error::custom)
}

fn quantities_as_text(value: &mut Value) {
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(quantities_as_text),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Number(number) if QUANTITIES.contains(&name.as_str()) => {
                        *field = Value::String(number.to_string());
                    }
                    Value::Object(resources) if QUANTITY_MAPS.contains(&name.as_str()) => {
                        resources.values_mut().for_each(number_as_text);
                    }
                    _ => quantities_as_text(field),
                }
            }
        }
        _ => {}
    }
}

fn number_as_text(value: &mut Value) {
    if let Value::Number(number) = value {
        *value = Value::String(number.to_string());
    }
}
