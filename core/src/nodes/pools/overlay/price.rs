//! What an overlay makes of a price (core, `pkg/cloudprovider/types.go`, `AdjustedPrice`).

use super::Problem;
use crate::api::karpenter::NodeOverlaySpec;

/// A price that is set or moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PriceChange {
    /// Dollars an hour.
    To(f64),
    /// Dollars an hour more, or less.
    By(f64),
    /// Hundredths more, or less.
    Percent(f64),
}

impl PriceChange {
    /// What a spec says of prices; `None` if nothing.
    pub(super) fn read(spec: &NodeOverlaySpec) -> Result<Option<Self>, Problem> {
        match (&spec.price, &spec.price_adjustment) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Problem::TwoPrices),
            (Some(text), None) => {
                let price = number(text).filter(|_| text.starts_with(|first: char| first.is_ascii_digit()));
                price.map(|price| Some(Self::To(price))).ok_or_else(|| Problem::Price(text.clone()))
            }
            (None, Some(text)) => {
                adjustment(text).map(Some).ok_or_else(|| Problem::PriceAdjustment(text.clone()))
            }
        }
    }

    /// The price after it, dollars an hour; never below zero.
    pub(super) fn apply(self, price: f64) -> f64 {
        let changed = match self {
            Self::To(price) => price,
            Self::By(dollars) => price + dollars,
            Self::Percent(percent) => price * (1.0 + percent / 100.0),
        };
        // Not `max`: a price that nobody knows (NaN) would be none.
        if changed < 0.0 { 0.0 } else { changed }
    }
}

fn adjustment(text: &str) -> Option<PriceChange> {
    if !text.starts_with(['+', '-']) {
        return None;
    }
    match text.strip_suffix('%') {
        Some(percent) => number(percent).filter(|it| *it >= -100.0).map(PriceChange::Percent),
        None => number(text).map(PriceChange::By),
    }
}

/// A finite number in digits: what else Rust reads as one (`inf`, `1e3`) is none here.
fn number(text: &str) -> Option<f64> {
    let is_number = text.chars().all(|letter| letter.is_ascii_digit() || "+-.".contains(letter));
    text.parse().ok().filter(|number: &f64| is_number && number.is_finite())
}
