//! Rules that several trigger types share: addresses and targets.

use reqwest::Url;

use crate::metadata::{Finding, View};
use crate::scaler::milli;

/// A URL with scheme `http` or `https` and a host.
pub(crate) fn http_url(text: &str, param: &str, example: &str, view: &mut View<'_>) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if url.is_none() {
        let message = format!("{param} {text:?} is not an http or https URL with a host");
        view.error(Finding::of(param, message).hint(format!("e.g. {example:?}")));
    }
    url
}

/// The target in thousandths; absent or too small only where a formula uses the trigger.
pub(crate) fn target(value: Option<f64>, param: &str, view: &mut View<'_>) -> Option<i64> {
    let target = milli(value.unwrap_or_default());
    if target > 0 || view.input.as_metric_source {
        return Some(target);
    }
    let message = match value {
        None => format!("missing required parameter {param:?} in [triggerMetadata]"),
        Some(value) => format!("{param} must be a number of at least 0.001, is {value}"),
    };
    view.error(Finding::of(param, message));
    None
}
