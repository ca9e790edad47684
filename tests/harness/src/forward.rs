//! kube-proxy's part: what connects to a Service's address reaches one of its pods.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Listens on a Service's address until it is dropped.
#[derive(Debug)]
pub struct Forward {
    accepting: JoinHandle<()>,
}

impl Forward {
    /// Carries each connection to `service` over to one of `pods`, in turn; a pod that refuses is passed over, as
    /// one that is not ready would be.
    pub async fn start(service: SocketAddr, pods: Vec<SocketAddr>) -> Result<Self> {
        let listener =
            TcpListener::bind(service).await.with_context(|| format!("cannot listen on {service}"))?;
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let mut turn = 0;
            while let Ok((client, _)) = listener.accept().await {
                turn += 1;
                let mut order = pods.clone();
                order.rotate_left(turn % pods.len().max(1));
                connections.spawn(carry(client, order));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { accepting })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: TcpStream, pods: Vec<SocketAddr>) {
    for pod in pods {
        if let Ok(mut server) = TcpStream::connect(pod).await {
            // Small requests and answers: waiting to fill a packet would add 40 ms to each.
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}
