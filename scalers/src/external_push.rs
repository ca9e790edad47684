//! Scales on what a gRPC server of the user's reports by itself.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use crate::channels::classify;
use crate::context::Context;
use crate::error::Error;
use crate::external::{External, Parameters, metrics};
use crate::externalscaler::{
    GetMetricSpecResponse, IsActiveResponse, Method, STREAM_IS_ACTIVE, STREAM_METRIC_SPEC, ScaledObjectRef,
};
use crate::kind::{Example, Kind, Trigger};
use crate::metadata::{Metadata, Param, View};
use crate::scaler::{Metric, Push, Reading, Scaler};

pub(crate) const KIND: Kind = Kind::of::<PushParameters>(
    &["external-push"],
    "As `external`, and the server reports changes by itself.\n\n\
     `StreamIsActive` wakes a workload at once instead of at the next poll; `StreamMetricSpec`, which is optional, changes \
     metrics and targets.",
    Example { metadata: &[("scalerAddress", "scaler.shop:6000"), ("queue", "orders")], metric_type: None },
)
.open();

/// Pause before a broken stream is opened again: the first and the longest, doubled between (KEDA,
/// `pkg/scalers/external_scaler.go`).
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

struct PushParameters(Parameters);

/// A server that reports about one object.
struct ExternalPush(External);

impl Metadata for PushParameters {
    const PARAMS: &'static [Param] = Parameters::PARAMS;

    fn read(view: &mut View<'_>) -> Option<Self> {
        Parameters::read(view).map(Self)
    }
}

impl Trigger for PushParameters {
    fn build(self, view: &mut View<'_>) -> Option<Box<dyn Scaler>> {
        let external = self.0.external(view)?;
        Some(Box::new(ExternalPush(external)))
    }
}

#[async_trait]
impl Scaler for ExternalPush {
    async fn metrics(&self, cx: &Context) -> Result<Vec<Metric>, Error> {
        self.0.metrics(cx).await
    }

    async fn read(&self, cx: &Context, metric: &str) -> Result<Reading, Error> {
        self.0.read(cx, metric).await
    }

    fn pushes(&self) -> bool {
        true
    }

    async fn watch(&self, cx: &Context, events: mpsc::Sender<Push>) -> Result<(), Error> {
        let activity = async {
            let push = |answer: IsActiveResponse| Push::Active(answer.result);
            let unimplemented = self.follow(cx, &STREAM_IS_ACTIVE, push, &events).await;
            Err(classify(&unimplemented, &self.0.target, STREAM_IS_ACTIVE.name))
        };
        let specs = async {
            let push = |answer: GetMetricSpecResponse| Push::Metrics(metrics(answer));
            // Servers need not have it; then the metrics are asked for.
            self.follow(cx, &STREAM_METRIC_SPEC, push, &events).await;
            Ok(())
        };
        tokio::select! {
            result = async { tokio::try_join!(activity, specs).map(|((), ())| ()) } => result,
            () = events.closed() => Ok(()),
        }
    }
}

impl ExternalPush {
    /// Hands on everything that a stream says, and opens it again when it breaks; returns the server's word that it
    /// has no such stream.
    async fn follow<A>(
        &self,
        cx: &Context,
        method: &Method<ScaledObjectRef, A>,
        push: impl Fn(A) -> Push,
        events: &mpsc::Sender<Push>,
    ) -> Status
    where
        A: prost::Message + Default + 'static,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut said_something = false;
            let end = self.stream(cx, method, &push, events, &mut said_something).await;
            match end {
                Err(StreamError::Status(status)) if status.code() == Code::Unimplemented => return status,
                Err(StreamError::Status(status)) => {
                    let error = classify(&status, &self.0.target, method.name);
                    tracing::warn!(%error, ?pause, object = %self.object(), "stream of an external scaler broke");
                }
                Err(StreamError::Channel(error)) => {
                    tracing::warn!(%error, object = %self.object(), "no channel to an external scaler");
                }
                Ok(()) => said_something = true,
            }
            if said_something {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One stream from its opening to its end.
    async fn stream<A>(
        &self,
        cx: &Context,
        method: &Method<ScaledObjectRef, A>,
        push: impl Fn(A) -> Push,
        events: &mpsc::Sender<Push>,
        said_something: &mut bool,
    ) -> Result<(), StreamError>
    where
        A: prost::Message + Default + 'static,
    {
        let channel = self.0.channel(cx).map_err(StreamError::Channel)?;
        let mut stream = method.stream(channel, self.0.object.clone()).await.map_err(StreamError::Status)?;
        while let Some(answer) = stream.message().await.map_err(StreamError::Status)? {
            *said_something = true;
            // Fails when nobody listens any more, which ends the whole watch.
            let _ = events.send(push(answer)).await;
        }
        Ok(())
    }

    fn object(&self) -> String {
        format!("{}/{}", self.0.object.namespace, self.0.object.name)
    }
}

/// Why a stream ended before its time.
enum StreamError {
    Status(Status),
    Channel(Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, input};
    use crate::testing_grpc::Fake;

    fn scaler(address: &str) -> Box<dyn Scaler> {
        crate::build(&input("external-push", &[("scalerAddress", address)])).unwrap()
    }

    #[tokio::test]
    async fn pushes_are_handed_on_and_the_watch_ends_with_its_listener() {
        let fake = Fake::start().await;
        let scaler = scaler(&fake.address);
        assert!(scaler.pushes());
        let context = Fixture::new().context;
        let (sender, mut pushes) = mpsc::channel(8);
        let watch = tokio::spawn(async move { scaler.watch(&context, sender).await });
        fake.push_active(true).await;
        assert_eq!(pushes.recv().await, Some(Push::Active(true)));
        fake.push_active(false).await;
        assert_eq!(pushes.recv().await, Some(Push::Active(false)));
        fake.push_specs(&[("depth", 9, 0.0)]).await;
        let metric = Metric::External { name: "depth".to_owned(), target_milli: 9_000 };
        assert_eq!(pushes.recv().await, Some(Push::Metrics(vec![metric])));
        drop(pushes);
        assert!(watch.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_server_without_the_stream_is_an_error_and_one_without_specs_is_not() {
        let fake = Fake::start().await;
        fake.without("StreamMetricSpec");
        let context = Fixture::new().context;
        let (sender, mut pushes) = mpsc::channel(8);
        let push = scaler(&fake.address);
        let watch = tokio::spawn(async move { push.watch(&context, sender).await });
        fake.push_active(true).await;
        assert_eq!(pushes.recv().await, Some(Push::Active(true)));
        drop(pushes);
        assert!(watch.await.unwrap().is_ok());

        fake.without("StreamIsActive");
        let (sender, _pushes) = mpsc::channel(8);
        let error = scaler(&fake.address).watch(&Fixture::new().context, sender).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the external scaler at {} does not implement StreamIsActive", fake.address)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_stream_is_opened_again_with_growing_pauses() {
        let fake = Fake::start().await;
        let (context, scaler) = (Fixture::new().context, scaler(&fake.address));
        fake.break_streams();
        let (sender, _pushes) = mpsc::channel(8);
        let watch = tokio::spawn(async move { scaler.watch(&context, sender).await });
        let opened = fake.opened("StreamIsActive", 8).await;
        let pauses: Vec<_> = opened.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
        watch.abort();
    }
}
