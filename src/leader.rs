//! Who writes: the holder of the Lease. Every replica serves reads.

use std::{fmt, time::Duration};

use kube::Client;
use kube_lease_manager::{LeaseCreateMode, LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics::gauges;

/// What the election depends on.
#[derive(Debug, Clone)]
pub struct Election {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// Name of this replica.
    pub identity: String,
    /// How long the Lease holds without renewal.
    pub duration: Duration,
    /// How long before its end the leader renews it.
    pub renew_before: Duration,
    /// Between two tries to take part.
    pub retry: Duration,
}

/// Whether this replica holds the Lease, for `/metrics`, as controller-runtime tells it (client-go,
/// `tools/leaderelection/metrics.go`).
#[derive(Debug)]
pub struct MasterStatus {
    /// Name of the Lease.
    pub lease: String,
    /// What [`elect`] returned.
    pub leading: watch::Receiver<bool>,
}

impl Collector for MasterStatus {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let holds = f64::from(u8::from(*self.leading.borrow()));
        let help = "Whether this replica leads";
        let series = [([("name", self.lease.clone())], holds)];
        gauges(&mut encoder, "leader_election_master_status", help, series)
    }
}

/// Takes part in the election until `shutdown`, when the Lease is given back so that the next replica need not wait
/// for its end. The channel says whether this replica leads.
///
/// # Errors
/// The Lease cannot be created or read.
pub async fn elect(
    client: Client,
    election: Election,
    tasks: &mut JoinSet<()>,
    shutdown: CancellationToken,
) -> Result<watch::Receiver<bool>, LeaseManagerError> {
    let (leads, leading) = watch::channel(false);
    let manager = LeaseManagerBuilder::new(client, election.lease)
        .with_namespace(election.namespace)
        .with_identity(election.identity)
        .with_duration(election.duration.as_secs())
        .with_grace(election.renew_before.as_secs())
        .with_create_mode(LeaseCreateMode::AutoCreate)
        .build()
        .await?;
    tasks.spawn(follow(manager, election.retry, leads, shutdown));
    Ok(leading)
}

async fn follow(
    mut manager: LeaseManager,
    retry: Duration,
    leads: watch::Sender<bool>,
    shutdown: CancellationToken,
) {
    while !shutdown.is_cancelled() {
        let (mut channel, task) = manager.watch().await;
        loop {
            let leading = *channel.borrow_and_update();
            if leads.send_if_modified(|old| std::mem::replace(old, leading) != leading) {
                tracing::info!(leading, "leadership changed");
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = channel.changed() => if changed.is_err() { break },
            }
        }
        // Who does not know that it leads does not lead. Closing the channel gives the Lease back.
        leads.send_replace(false);
        drop(channel);
        match task.await {
            Ok(Ok(again)) => manager = again,
            Ok(Err(error)) => {
                return tracing::error!(%error, "leader election ended; this replica serves reads only");
            }
            Err(error) => {
                return tracing::error!(%error, "leader election failed; this replica serves reads only");
            }
        }
        tokio::time::sleep(retry).await;
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::telemetry::metrics::text;

    #[test]
    fn who_leads_is_told() {
        let (leads, leading) = watch::channel(false);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(MasterStatus { lease: "tandem".to_owned(), leading }));
        let shown = |value| {
            let line = format!(r#"leader_election_master_status{{name="tandem"}} {value}"#);
            text(&registry).unwrap().lines().any(|it| it == line)
        };
        assert!(shown("0.0"));
        leads.send_replace(true);
        assert!(shown("1.0"));
    }
}
