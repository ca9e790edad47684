//! One requirement: a set of the values that a label may have.
//!
//! Sets are exact or the complement of an exact set, with two integer bounds on a complement. What they allow and how they
//! intersect is Karpenter's (core, `pkg/scheduling/requirement.go`), its approximation included: a complement between bounds
//! counts as endless even where the values that it leaves out fill the bounds.

use std::{collections::BTreeSet, fmt, sync::Arc};

use super::labels::normalize;

/// How many values a message names.
const VALUES_NAMED: usize = 5;

/// How a requirement reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// One of the values.
    In,
    /// None of the values; also where the label is absent.
    NotIn,
    /// Any value.
    Exists,
    /// No value: the label is absent.
    DoesNotExist,
    /// An integer above.
    Gt,
    /// An integer below.
    Lt,
    /// An integer at or above.
    Gte,
    /// An integer at or below.
    Lte,
}

impl Operator {
    /// Reads an operator of a node selector.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "In" => Self::In,
            "NotIn" => Self::NotIn,
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => Self::Gt,
            "Lt" => Self::Lt,
            "Gte" => Self::Gte,
            "Lte" => Self::Lte,
            _ => return None,
        })
    }

    /// Its name in a node selector.
    pub fn name(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
            Self::Gt => "Gt",
            Self::Lt => "Lt",
            Self::Gte => "Gte",
            Self::Lte => "Lte",
        }
    }

    /// Whether a node without the label satisfies it.
    pub fn allows_absence(self) -> bool {
        matches!(self, Self::NotIn | Self::DoesNotExist)
    }
}

/// The values that a label may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    key: Arc<str>,
    /// Whether all values but `values` are meant.
    complement: bool,
    values: BTreeSet<Arc<str>>,
    /// Least integer, of a complement.
    gte: Option<i64>,
    /// Greatest integer, of a complement.
    lte: Option<i64>,
    min_values: Option<u32>,
}

impl Requirement {
    /// A requirement as a node selector words it; an older name of the key is read as the newer one.
    ///
    /// A bound that is no integer, or that nothing can lie beyond, allows no value, as kube-scheduler decides too.
    pub fn new<V: AsRef<str>>(key: &str, operator: Operator, values: impl IntoIterator<Item = V>) -> Self {
        let mut requirement = Self::exists(key);
        let mut values = values.into_iter();
        let mut bound =
            |beyond: i64| values.next().and_then(|value| integer(value.as_ref())?.checked_add(beyond));
        match operator {
            Operator::Exists => {}
            Operator::DoesNotExist => requirement.complement = false,
            Operator::In | Operator::NotIn => {
                requirement.complement = operator == Operator::NotIn;
                requirement.values = values.map(|value| value.as_ref().into()).collect();
            }
            Operator::Gt | Operator::Gte => {
                requirement.gte = bound(i64::from(operator == Operator::Gt));
                requirement.complement = requirement.gte.is_some();
            }
            Operator::Lt | Operator::Lte => {
                requirement.lte = bound(-i64::from(operator == Operator::Lt));
                requirement.complement = requirement.lte.is_some();
            }
        }
        requirement
    }

    /// Any value.
    pub fn exists(key: &str) -> Self {
        Self {
            key: normalize(key).into(),
            complement: true,
            values: BTreeSet::new(),
            gte: None,
            lte: None,
            min_values: None,
        }
    }

    /// Exactly this value.
    pub fn is(key: &str, value: &str) -> Self {
        Self::new(key, Operator::In, [value])
    }

    /// With at least so many distinct values among the instance types of a node.
    #[must_use]
    pub fn with_min_values(mut self, min_values: Option<u32>) -> Self {
        self.min_values = min_values;
        self
    }

    /// The label.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Whether all values but [`Requirement::values`] are meant.
    pub fn is_complement(&self) -> bool {
        self.complement
    }

    /// The values that are named, in their order.
    pub fn values(&self) -> &BTreeSet<Arc<str>> {
        &self.values
    }

    /// Least and greatest integer, of a complement.
    pub fn bounds(&self) -> (Option<i64>, Option<i64>) {
        (self.gte, self.lte)
    }

    /// Least number of distinct values among the instance types of a node.
    pub fn min_values(&self) -> Option<u32> {
        self.min_values
    }

    /// How it reads, its bounds aside.
    pub fn operator(&self) -> Operator {
        match (self.complement, self.values.is_empty()) {
            (true, true) => Operator::Exists,
            (true, false) => Operator::NotIn,
            (false, true) => Operator::DoesNotExist,
            (false, false) => Operator::In,
        }
    }

    /// How many values it allows; a complement has 2^63 − 1 less those that it leaves out.
    pub fn len(&self) -> u64 {
        let named = self.values.len() as u64;
        if self.complement { i64::MAX as u64 - named } else { named }
    }

    /// Whether it allows no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it allows the value.
    pub fn has(&self, value: &str) -> bool {
        self.values.contains(value) != self.complement && within(value, self.gte, self.lte)
    }

    /// A value that it allows: the least that is named, or the least integer from zero that fits; none if there is none.
    pub fn any(&self) -> Option<String> {
        if !self.complement {
            return self.values.first().map(ToString::to_string);
        }
        let least = self.gte.unwrap_or_else(|| self.lte.map_or(0, |lte| lte.min(0)));
        let greatest = self.lte.unwrap_or(i64::MAX);
        let upwards = (least..=greatest).map(|number| number.to_string());
        // Downwards only where the greatest is what there is to begin from.
        let below = self.gte.map_or(i64::MIN, |_| least);
        let downwards = (below..least).rev().map(|number| number.to_string());
        upwards.chain(downwards).find(|value| !self.values.contains(value.as_str()))
    }

    /// The values that both allow, and the greater minimum of distinct values.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self {
            key: self.key.clone(),
            complement: self.complement && other.complement,
            values: BTreeSet::new(),
            gte: self.gte.max(other.gte),
            lte: least(self.lte, other.lte),
            min_values: self.min_values.max(other.min_values),
        };
        if let (Some(gte), Some(lte)) = (both.gte, both.lte)
            && gte > lte
        {
            (both.complement, both.gte, both.lte) = (false, None, None);
            return both;
        }
        let fits = |value: &&Arc<str>| within(value, both.gte, both.lte);
        both.values = match (self.complement, other.complement) {
            (true, true) => self.values.union(&other.values).filter(fits).cloned().collect(),
            (true, false) => other.values.difference(&self.values).filter(fits).cloned().collect(),
            (false, true) => self.values.difference(&other.values).filter(fits).cloned().collect(),
            (false, false) => self.values.intersection(&other.values).filter(fits).cloned().collect(),
        };
        if !both.complement {
            (both.gte, both.lte) = (None, None);
        }
        both
    }

    /// Whether [`Requirement::intersection`] would allow a value; builds nothing.
    pub fn intersects(&self, other: &Self) -> bool {
        let (gte, lte) = (self.gte.max(other.gte), least(self.lte, other.lte));
        if let (Some(gte), Some(lte)) = (gte, lte)
            && gte > lte
        {
            return false;
        }
        let (named, against) = match (self.complement, other.complement) {
            (true, true) => return true,
            (true, false) => (other, self),
            // Look the few up among the many.
            (false, false) if self.values.len() > other.values.len() => (other, self),
            (false, _) => (self, other),
        };
        let allowed = |value: &&Arc<str>| {
            against.values.contains(&***value) != against.complement && within(value, gte, lte)
        };
        named.values.iter().any(|value| allowed(&value))
    }

    /// As the entries of a node selector: two if it has two bounds. Beside bounds, the values that are left out are lost, as
    /// Karpenter loses them.
    pub fn selectors(&self) -> Vec<Selector> {
        let selector = |operator, values| Selector {
            key: self.key.clone(),
            operator,
            values,
            min_values: self.min_values,
        };
        let bound = |operator, bound: i64| selector(operator, vec![bound.to_string().into()]);
        let bounds: Vec<_> =
            [self.gte.map(|gte| bound(Operator::Gte, gte)), self.lte.map(|lte| bound(Operator::Lte, lte))]
                .into_iter()
                .flatten()
                .collect();
        if bounds.is_empty() {
            vec![selector(self.operator(), self.values.iter().cloned().collect())]
        } else {
            bounds
        }
    }
}

/// An entry of a node selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The label.
    pub key: Arc<str>,
    /// How the values are meant.
    pub operator: Operator,
    /// Values in their order; one integer for a bound; none for `Exists` and `DoesNotExist`.
    pub values: Vec<Arc<str>>,
    /// Least number of distinct values among the instance types of a node.
    pub min_values: Option<u32>,
}

impl fmt::Display for Requirement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.key, self.operator().name())?;
        if !self.values.is_empty() {
            let named: Vec<&str> = self.values.iter().take(VALUES_NAMED).map(|value| &**value).collect();
            write!(formatter, " [{}", named.join(" "))?;
            if self.values.len() > VALUES_NAMED {
                write!(formatter, " and {} others", self.values.len() - VALUES_NAMED)?;
            }
            write!(formatter, "]")?;
        }
        if let Some(gte) = self.gte {
            write!(formatter, " >={gte}")?;
        }
        if let Some(lte) = self.lte {
            write!(formatter, " <={lte}")?;
        }
        if let Some(min_values) = self.min_values {
            write!(formatter, " minValues {min_values}")?;
        }
        Ok(())
    }
}

/// The lesser bound; none is no bound.
fn least(left: Option<i64>, right: Option<i64>) -> Option<i64> {
    left.into_iter().chain(right).min()
}

/// An integer as Go's `strconv.Atoi` reads it: an optional sign and decimal digits.
fn integer(value: &str) -> Option<i64> {
    value.parse().ok()
}

/// Whether a value lies within bounds; with a bound, what is no integer does not.
fn within(value: &str, gte: Option<i64>, lte: Option<i64>) -> bool {
    if gte.is_none() && lte.is_none() {
        return true;
    }
    integer(value)
        .is_some_and(|number| gte.is_none_or(|gte| number >= gte) && lte.is_none_or(|lte| number <= lte))
}
