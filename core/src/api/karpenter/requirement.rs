//! Requirements and references, as several kinds have them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{LONGEST_KEY, QUALIFIED_NAME, requirement_key, values};
use crate::{
    api::rules::{Rule, rules},
    nodes::pools::requirements::{Operator, Requirement, Requirements},
};

/// Rules of lists of requirements that any kind has.
pub(super) const SELECTORS: &[Rule] = &[
    (
        "requirements with operator 'In' must have a value defined",
        "self.all(x, x.operator == 'In' ? x.values.size() != 0 : true)",
    ),
    (
        "requirements operator 'Gt', 'Lt', 'Gte' or 'Lte' must have a single positive integer value",
        "self.all(x, (x.operator in ['Gt', 'Lt', 'Gte', 'Lte']) ? (x.values.size() == 1 && int(x.values[0]) >= 0) : true)",
    ),
];

/// Rules of lists of requirements with minimal numbers of values.
pub(super) const MIN_VALUES: &[Rule] = &[(
    "requirements with 'minValues' must have at least that many values specified in the 'values' field",
    "self.all(x, (x.operator == 'In' && has(x.minValues)) ? x.values.size() >= x.minValues : true)",
)];

/// What a label of a node has to be, and how many values of it there must be a choice of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequirementWithMinValues {
    /// The label.
    #[serde(default)]
    #[schemars(!default, length(max = LONGEST_KEY), extend("pattern" = QUALIFIED_NAME), transform = requirement_key)]
    pub key: String,
    /// How the values are meant.
    #[serde(default)]
    #[schemars(
        !default,
        extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Gte", "Lte"])
    )]
    pub operator: String,
    /// Values; one integer for Gt, Lt, Gte and Lte.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = values)]
    pub values: Vec<String>,
    /// Least number of distinct values among the instance types that may serve a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    pub min_values: Option<i32>,
}

impl RequirementWithMinValues {
    /// One without a minimal number of values.
    pub fn new(key: &str, operator: Operator, values: &[&str]) -> Self {
        Self {
            key: key.to_owned(),
            operator: operator.name().to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            min_values: None,
        }
    }

    /// As decisions read it. An operator that is not known allows no value.
    pub fn read(&self) -> Requirement {
        let operator = Operator::parse(&self.operator).unwrap_or(Operator::DoesNotExist);
        Requirement::new(&self.key, operator, &self.values)
            .with_min_values(self.min_values.and_then(|least| u32::try_from(least).ok()))
    }

    /// All of a list, as decisions read them.
    pub fn read_all(list: &[Self]) -> Requirements {
        list.iter().map(Self::read).collect()
    }

    /// Requirements as a list, in the order of their labels.
    pub fn list(requirements: &Requirements) -> Vec<Self> {
        let entry = |selector: crate::nodes::pools::requirements::Selector| Self {
            key: selector.key.to_string(),
            operator: selector.operator.name().to_owned(),
            values: selector.values.iter().map(ToString::to_string).collect(),
            min_values: selector.min_values.and_then(|least| i32::try_from(least).ok()),
        };
        requirements.selectors().into_iter().map(entry).collect()
    }
}

const GROUP: &[Rule] = &[("group may not be empty", "self != ''")];
const KIND: &[Rule] = &[("kind may not be empty", "self != ''")];
const NAME: &[Rule] = &[("name may not be empty", "self != ''")];

/// The object that says what of a provider's nodes is not a requirement, such as an EC2NodeClass.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct NodeClassReference {
    /// Its group.
    #[serde(default)]
    #[schemars(!default, extend("pattern" = r"^[^/]*$"), transform = rules(GROUP))]
    pub group: String,
    /// Its kind.
    #[serde(default)]
    #[schemars(!default, transform = rules(KIND))]
    pub kind: String,
    /// Its name.
    #[serde(default)]
    #[schemars(!default, transform = rules(NAME))]
    pub name: String,
}
