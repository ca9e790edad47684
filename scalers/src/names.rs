//! Names of external metrics.

/// The metric's name in the HPA: `s<trigger index>-<name>`.
pub fn metric_name(trigger_index: usize, name: &str) -> String {
    format!("s{trigger_index}-{name}")
}

/// Why a name does not belong to a trigger. The texts are KEDA's (`pkg/scalers/scaler.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// No `s<i>-` at the start.
    #[error("metric name without index prefix")]
    Missing,
    /// The prefix of another trigger.
    #[error("metric name contains incorrect index prefix")]
    Incorrect,
}

/// The inverse of [`metric_name`]: the name as the scaler knows it.
pub fn without_index(trigger_index: usize, metric: &str) -> Result<&str, IndexError> {
    let (prefix, name) = metric.split_once('-').ok_or(IndexError::Missing)?;
    let index = prefix.strip_prefix('s').ok_or(IndexError::Incorrect)?;
    if index == trigger_index.to_string() { Ok(name) } else { Err(IndexError::Incorrect) }
}

/// Replaces what may not stand in a metric's name by dashes (KEDA, `pkg/util/normalize_string.go`).
pub fn normalize(text: &str) -> String {
    text.replace(['/', '.', ':', '%', '(', ')'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_comes_off_again() {
        for (index, metric, wanted) in [
            (0, "s0-metricName", Ok("metricName")),
            (123, "s123-a-b", Ok("a-b")),
            (1, "s0-metricName", Err(IndexError::Incorrect)),
            (0, "0-metricName", Err(IndexError::Incorrect)),
            (0, "s00-metricName", Err(IndexError::Incorrect)),
            (0, "metricName", Err(IndexError::Missing)),
        ] {
            assert_eq!(without_index(index, metric), wanted, "{index} {metric}");
        }
        assert_eq!(without_index(7, &metric_name(7, "cron")), Ok("cron"));
    }

    #[test]
    fn every_special_character_becomes_a_dash() {
        assert_eq!(normalize("/.:%()input{a}_b-c"), "------input{a}_b-c");
    }
}
