//! Merge patches that say only what changed.

use serde_json::{Map, Value};

/// The JSON merge patch (RFC 7386) that turns `old` into `new`, or `None` where they are equal.
pub fn diff(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for name in old.keys().filter(|name| !new.contains_key(*name)) {
                patch.insert(name.clone(), Value::Null);
            }
            for (name, value) in new {
                let change = old.get(name).map_or_else(|| Some(value.clone()), |old| diff(old, value));
                if let Some(change) = change {
                    patch.insert(name.clone(), change);
                }
            }
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        _ => (old != new).then(|| new.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::diff;

    #[test]
    fn patches_hold_the_difference_only() {
        for (old, new, want) in [
            (json!({"a": 1}), json!({"a": 1}), None),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), Some(json!({"b": null}))),
            (json!({"a": {"x": 1, "y": 2}}), json!({"a": {"x": 1, "y": 3}}), Some(json!({"a": {"y": 3}}))),
            (json!({"list": [1, 2]}), json!({"list": [2]}), Some(json!({"list": [2]}))),
            (
                json!({}),
                json!({"health": {"m": {"status": "Happy"}}}),
                Some(json!({"health": {"m": {"status": "Happy"}}})),
            ),
        ] {
            assert_eq!(diff(&old, &new), want, "{old} -> {new}");
        }
    }
}
