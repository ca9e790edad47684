//! The room of buffers as the running process keeps it, read without a trace.

use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;

use crate::{
    cluster::{scale::Scales, world::World},
    controllers::nodes::buffer::{Buffers, Config, check_installed},
};

/// All buffers, looked at once; `None` if this loop keeps no room.
pub(super) async fn read(
    keeps: bool,
    client: &Client,
    world: &Arc<World>,
) -> anyhow::Result<Option<Arc<Buffers>>> {
    if !keeps {
        return Ok(None);
    }
    check_installed(client).await?;
    let buffers = Buffers::start(Config {
        client: client.clone(),
        scale: Arc::new(Scales::uncached(client.clone())),
        world: world.clone(),
        leading: watch::channel(false).1,
        writes: false,
    });
    // The process ends soon.
    tokio::spawn(buffers.clone().run());
    buffers.synced().await;
    Ok(Some(buffers))
}
