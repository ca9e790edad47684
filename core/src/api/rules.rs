//! Rules of schemas.

use schemars::Schema;
use serde_json::{Value, json};

/// A rule in the Common Expression Language: what is said when it does not hold, and the rule.
pub(super) type Rule = (&'static str, &'static str);

/// Adds rules to a schema.
pub(super) fn rules(rules: &'static [Rule]) -> impl Fn(&mut Schema) {
    move |schema| {
        let rules = rules.iter().map(|(message, rule)| json!({"message": message, "rule": rule}));
        add_rules(schema, rules.collect());
    }
}

/// Adds rules to a schema, in the form of the keyword.
pub(super) fn add_rules(schema: &mut Schema, mut rules: Vec<Value>) {
    const RULES: &str = "x-kubernetes-validations";
    if let Some(Value::Array(before)) = schema.get(RULES) {
        rules.splice(0..0, before.clone());
    }
    schema.insert(RULES.to_owned(), Value::Array(rules));
}
