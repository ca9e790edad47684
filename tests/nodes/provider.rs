//! What a provider of node groups is told of the process that asks it.

use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::task::{Context as Cx, Poll};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::BoxFuture;
use harness::wait;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService};
use tonic::transport::{Server, server::TcpIncoming};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::world::World;

const SOON: Duration = Duration::from_mins(1);

/// A provider without groups, and the methods that it was asked.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl NamedService for Recorder {
    const NAME: &'static str = "clusterautoscaler.cloudprovider.v1.externalgrpc.CloudProvider";
}

impl Service<http::Request<Body>> for Recorder {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Cx<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.lock().push(request.uri().path().rsplit('/').next().unwrap_or_default().to_owned());
        let service = tower::service_fn(|_: Request<()>| async { Ok::<_, Status>(Response::new(())) });
        Box::pin(async move { Ok(Grpc::new(ProstCodec::<(), ()>::default()).unary(service, request).await) })
    }
}

/// Whoever stops in an orderly way says so, once, and after everything else.
pub(crate) async fn is_told_at_the_end(world: Arc<World>) -> Result<()> {
    let recorder = Recorder::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = Server::builder().add_service(recorder.clone());
    tokio::spawn(serving.serve_with_incoming(TcpIncoming::from(listener)));
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("cloud.yaml");
    fs::write(&file, format!("address: {address}\n"))?;

    let config = format!("--cloud-config={}", file.display());
    world.start_tandem(&["--cloud-provider=externalgrpc", &config, "--scan-interval=1s"]).await?;
    wait::until("the groups to be asked for", SOON, || async {
        let asked = recorder.0.lock().clone();
        ensure!(asked.iter().any(|method| method == "NodeGroups"), "{asked:?}");
        Ok(())
    })
    .await?;
    world.stop_tandem().await?;
    let asked = recorder.0.lock().clone();
    let told: Vec<_> = asked.iter().filter(|method| *method == "Cleanup").collect();
    ensure!(told.len() == 1 && asked.last() == told.first().copied(), "{asked:?}");
    Ok(())
}
