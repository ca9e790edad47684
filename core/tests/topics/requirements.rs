//! `requirements`: the algebra of requirements.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tandem_core::nodes::pools::requirements::{
    Operator, Requirement, Requirements, Selector, WellKnownLabels,
};

use super::{Differences, Verdict, read, unknown_kind};

/// A requirement as cases word it.
#[derive(Deserialize, Default, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Worded {
    key: String,
    operator: String,
    values: Vec<String>,
    min_values: Option<u32>,
}

impl Worded {
    pub(super) fn requirement(&self) -> Requirement {
        let operator =
            Operator::parse(&self.operator).unwrap_or_else(|| panic!("operator {}", self.operator));
        Requirement::new(&self.key, operator, &self.values).with_min_values(self.min_values)
    }

    fn of(selector: &Selector) -> Self {
        Self {
            key: selector.key.to_string(),
            operator: selector.operator.name().to_owned(),
            values: selector.values.iter().map(ToString::to_string).collect(),
            min_values: selector.min_values,
        }
    }
}

/// Requirements as cases list them.
pub(super) fn requirements(list: &Value) -> Requirements {
    read::<Vec<Worded>>(list).iter().map(Worded::requirement).collect()
}

pub(super) fn judge(case: &Value) -> Verdict {
    let requirement = |name: &str| read::<Worded>(&case[name]).requirement();
    let wanted = &case["expected"];
    let mut differences = Differences::default();
    match case["kind"].as_str() {
        Some("intersection") => intersection(case, &mut differences),
        Some("has") => {
            let value: String = read(&case["value"]);
            differences.same("has", requirement("a").has(&value), read(wanted));
        }
        Some("operator") => differences.same("operator", requirement("a").operator().name(), text(wanted)),
        Some("len") => differences.same("len", Some(requirement("a").len()), wanted.as_u64()),
        Some("string") => differences.same("text", requirement("a").to_string().as_str(), text(wanted)),
        Some("intersectionString") => {
            let both = requirement("a").intersection(&requirement("b"));
            differences.same("text", both.to_string().as_str(), text(wanted));
        }
        Some("nodeSelectorRequirements") => {
            differences.same("selectors", worded(&requirement("a").selectors()), read(wanted));
        }
        Some("intersectionHas") => {
            let both = requirement("a").intersection(&requirement("b"));
            for (value, has) in read::<BTreeMap<String, bool>>(&case["expectedHas"]) {
                differences.same(&value, both.has(&value), has);
            }
            let selectors = &case["expectedNodeSelectorRequirements"];
            if !selectors.is_null() {
                differences.same("selectors", worded(&both.selectors()), read(selectors));
            }
        }
        Some("any") => any(requirement("a").any(), wanted, &mut differences),
        Some("normalizedKey") => differences.same("key", &**requirement("a").key(), text(wanted)),
        Some("compatible") => compatible(case, &mut differences),
        Some("setNodeSelectorRequirements") => {
            let mut got = worded(&requirements(&case["set"]).selectors());
            let mut wanted: Vec<Worded> = read(wanted);
            got.sort();
            wanted.sort();
            differences.same("selectors", got, wanted);
        }
        Some("setString") => {
            differences.same("text", requirements(&case["set"]).to_string().as_str(), text(wanted));
        }
        Some("setNormalize") => {
            let set = requirements(&case["set"]);
            for (key, has) in read::<BTreeMap<String, bool>>(&wanted["hasKey"]) {
                differences.same(&key, set.get(&key).is_some(), has);
            }
            for (key, value) in read::<BTreeMap<String, String>>(&wanted["keyHasValue"]) {
                differences.same(&key, set.get(&key).map(|requirement| requirement.has(&value)), Some(true));
            }
        }
        _ => return unknown_kind(case),
    }
    differences.verdict()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn worded(selectors: &[Selector]) -> Vec<Worded> {
    selectors.iter().map(Worded::of).collect()
}

fn intersection(case: &Value, differences: &mut Differences) {
    let [a, b] = ["a", "b"].map(|name| read::<Worded>(&case[name]).requirement());
    let (both, wanted) = (a.intersection(&b), &case["expected"]);
    differences.same("key", &**both.key(), text(&wanted["key"]));
    differences.same("complement", Some(both.is_complement()), wanted["complement"].as_bool());
    let values: Vec<_> = both.values().iter().map(ToString::to_string).collect();
    differences.same("values", values, read(&wanted["values"]));
    differences.same("bounds", both.bounds(), (wanted["gte"].as_i64(), wanted["lte"].as_i64()));
    differences.same("minValues", both.min_values(), read(&wanted["minValues"]));
    differences.same("operator", both.operator().name(), text(&wanted["operator"]));
    differences.same("len", Some(both.len()), wanted["len"].as_u64());
    differences.same("intersects", Some(a.intersects(&b)), case["expectedHasIntersection"].as_bool());
}

fn any(got: Option<String>, wanted: &Value, differences: &mut Differences) {
    if let Some(empty) = wanted["empty"].as_bool() {
        differences.same("empty", got.is_none(), empty);
    }
    let got = got.unwrap_or_default();
    for (list, is_in) in [("oneOf", true), ("noneOf", false)] {
        if wanted[list].is_array() {
            differences.same(list, read::<Vec<String>>(&wanted[list]).contains(&got), is_in);
        }
    }
    let number = got.parse::<i64>().ok();
    if let Some(least) = wanted["intMin"].as_i64() {
        differences.holds(number.is_some_and(|number| number >= least), || format!("{got} below {least}"));
    }
    if let Some(most) = wanted["intMax"].as_i64() {
        differences.holds(number.is_some_and(|number| number <= most), || format!("{got} above {most}"));
    }
}

fn compatible(case: &Value, differences: &mut Differences) {
    let well_known = match case["allowUndefinedWellKnown"].as_bool() {
        Some(true) => WellKnownLabels::default(),
        _ => WellKnownLabels::none(),
    };
    let (existing, incoming) = (requirements(&case["existing"]), requirements(&case["incoming"]));
    let got = existing.compatible(&incoming, &well_known);
    differences.same("compatible", Some(got.is_ok()), case["expected"].as_bool());
    differences.same("quickly", existing.is_compatible(&incoming, &well_known), got.is_ok());
    if let Some(wanted) = case["expectedError"].as_str() {
        differences.same("error", got.err().map(|problem| problem.to_string()).as_deref(), Some(wanted));
    }
}
