//! Nodes, end to end: Tandem on a real control plane, with moto for AWS, whose machines become kwok's nodes.
//!
//! `cargo test --test nodes [FILTER]`. Each scenario has a control plane, an AWS and a Tandem of its own, since a scenario
//! is about the whole cluster.

#![allow(clippy::unwrap_used, reason = "a test says best where it stands by panicking there")]

mod buffers;
mod demand;
mod devices;
mod gangs;
mod groups;
mod interruption;
mod pools;
mod provider;
mod provisioning_requests;
mod survival;
mod world;

use std::process::ExitCode;

use anyhow::Result;
use harness::{Components, Options, network};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use crate::world::World;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    // Two control planes side by side would only take each other's processor.
    arguments.test_threads = Some(1);
    if !arguments.list {
        // Before the namespace is entered, since nothing can be fetched from within.
        Components::find_or_build()?;
        harness::components::prometheus()?;
        harness::moto::install()?;
        network::enter_namespace()?;
    }
    Ok(libtest_mimic::run(&arguments, scenarios()).exit_code())
}

fn scenarios() -> Vec<Trial> {
    vec![
        scenario("groups::walk_through", groups::walk_through),
        scenario("groups::a_pod_that_fits_no_group", groups::a_pod_that_fits_no_group),
        scenario("provider::is_told_at_the_end", provider::is_told_at_the_end),
        scenario("devices::walk_through", devices::walk_through),
        scenario("interruption::walk_through", interruption::walk_through),
        scenario("interruption::as_the_handler_is_set", interruption::as_the_handler_is_set),
        scenario("buffers::walk_through", buffers::walk_through),
        scenario("provisioning_requests::walk_through", provisioning_requests::walk_through),
        scenario("pools::walk_through", pools::walk_through),
        scenario_on(demand::options(), "demand::walk_through", demand::walk_through),
        scenario_on(gangs::options(), "gangs::walk_through", gangs::walk_through),
        scenario("pools::walk_through_aws_provisioner", pools::walk_through_aws_provisioner),
        scenario("pools::walk_through_aws", pools::walk_through_aws),
        scenario("pools::spot_is_taken_back", pools::spot_is_taken_back),
        scenario("survival::of_groups", survival::of_groups),
        scenario("survival::of_pools", survival::of_pools),
    ]
}

/// A scenario in a world of its own; if it fails, with the end of Tandem's log.
fn scenario<F>(name: &str, body: fn(std::sync::Arc<World>) -> F) -> Trial
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    scenario_on(world::options(), name, body)
}

/// [`scenario`] on another control plane.
fn scenario_on<F>(options: Options, name: &str, body: fn(std::sync::Arc<World>) -> F) -> Trial
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    Trial::test(name, move || {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let world = World::start(options).await.map_err(|error| format!("{error:#}"))?;
            let world = std::sync::Arc::new(world);
            let outcome = body(world.clone()).await;
            let log = world.log().await;
            outcome.map_err(|error| Failed::from(format!("{error:#}\n\n{log}")))
        })
    })
}
