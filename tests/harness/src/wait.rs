//! Waiting for something to become true.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Between two looks. Short against what is waited for (seconds), long against what a look costs (a millisecond).
const PERIOD: Duration = Duration::from_millis(100);

/// Repeats `check` until it succeeds and returns its value. After `timeout` the error names `what` was waited for
/// and what the last look saw.
pub async fn until<T, F>(what: &str, timeout: Duration, mut check: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + timeout;
    loop {
        match check().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("waited {} s for {what}", timeout.as_secs()));
            }
            Err(_) => tokio::time::sleep(PERIOD).await,
        }
    }
}

/// Repeats `check` for the whole of `duration`; the first failure ends it.
pub async fn throughout<F>(what: &str, duration: Duration, mut check: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let end = Instant::now() + duration;
    while Instant::now() < end {
        check().await.with_context(|| format!("expected for {} s: {what}", duration.as_secs()))?;
        tokio::time::sleep(PERIOD).await;
    }
    Ok(())
}
