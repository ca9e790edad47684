//! End to end: Tandem as users install it, on a real control plane with a real Prometheus.
//!
//! `cargo test --test e2e [FILTER]` finds or builds the control plane, moves into a network namespace of its own,
//! starts everything once, runs the scenarios, each in its own Kubernetes namespace, and stops everything. Those that
//! stop a part which others need run last, one at a time.

#![allow(clippy::unwrap_used, reason = "a test says best where it stands by panicking there")]

mod activation;
mod admission;
mod authentication;
mod case;
mod demo;
mod disruption;
mod drift;
mod dry_run;
mod fallback;
mod metrics_api;
mod pause;
mod providers;
mod providers_cluster_api;
mod providers_external_grpc;
mod scaled_job;
mod simulation;
mod sources;
mod targets;
mod telemetry;
mod triggers;
mod walk_through;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use harness::{Components, components, network};
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use tokio::runtime::Runtime;

use crate::case::Case;
use crate::world::World;

/// Scenarios at a time: they wait most of the time, and each costs the control plane little.
const THREADS: usize = 6;

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
    let mut bed = Bed { runtime: Runtime::new()?, world: None };
    if !arguments.list {
        // Before the namespace is entered, since nothing can be fetched from within.
        let components = Components::find_or_build()?;
        components::prometheus()?;
        network::enter_namespace()?;
        bed.world = Some(bed.runtime.block_on(World::start(components))?);
    }
    let bed = Arc::new(bed);
    arguments.test_threads.get_or_insert(THREADS);
    let together = libtest_mimic::run(&arguments, side_by_side(&bed));
    arguments.test_threads = Some(1);
    let alone = libtest_mimic::run(&arguments, one_at_a_time(&bed));
    Ok(verdict(&together, &alone))
}

/// The scenarios that leave each other alone.
fn side_by_side(bed: &Arc<Bed>) -> Vec<Trial> {
    vec![
        bed.scenario_in("web", "walk_through", walk_through::manifest_as_users_have_it),
        bed.scenario("activation::from_zero_to_n_and_back", activation::from_zero_to_n_and_back),
        bed.scenario("activation::cooldown", activation::cooldown),
        bed.scenario("activation::cron", activation::cron),
        bed.scenario("activation::idle_replicas", activation::idle_replicas),
        bed.scenario("activation::forced", activation::forced),
        bed.scenario("triggers::the_highest_of_two_wins", triggers::the_highest_of_two_wins),
        bed.scenario("triggers::scaling_modifiers", triggers::scaling_modifiers),
        bed.scenario("triggers::a_broken_one_leaves_the_other", triggers::a_broken_one_leaves_the_other),
        bed.scenario("triggers::kubernetes_workload", triggers::kubernetes_workload),
        bed.scenario("fallback::every_behaviour", fallback::every_behaviour),
        bed.scenario("pause::paused", pause::paused),
        bed.scenario("pause::paused_replicas", pause::paused_replicas),
        bed.scenario("pause::paused_scale_in", pause::paused_scale_in),
        bed.scenario("drift::query_edited", drift::query_edited),
        bed.scenario("drift::hpa_edited", drift::hpa_edited),
        bed.scenario("drift::hpa_deleted", drift::hpa_deleted),
        bed.scenario("drift::target_deleted", drift::target_deleted),
        bed.scenario("drift::scaled_object_deleted", drift::scaled_object_deleted),
        bed.scenario("authentication::secret_rotated", authentication::secret_rotated),
        bed.scenario("authentication::secret_missing", authentication::secret_missing),
        bed.scenario(
            "authentication::secret_missing_with_fallback",
            authentication::secret_missing_with_fallback,
        ),
        bed.scenario("targets::stateful_set", targets::stateful_set),
        bed.scenario("targets::custom_resource", targets::custom_resource),
        bed.scenario("sources::slow", sources::slow),
        bed.scenario("sources::wrong", sources::wrong),
        bed.scenario("sources::out_of_reach", sources::out_of_reach),
        bed.scenario("sources::service_endpoints", sources::service_endpoints),
        bed.scenario("metrics_api::strangers_are_refused", metrics_api::strangers_are_refused),
        bed.scenario("metrics_api::discovery", metrics_api::discovery),
        bed.scenario("telemetry::series_of_keda", telemetry::series_of_keda),
        bed.scenario("admission::refusals", admission::refusals),
        bed.scenario("admission::targets_taken", admission::targets_taken),
        bed.scenario("admission::warnings", admission::warnings),
        bed.scenario("scaled_job", scaled_job::is_not_ready),
        bed.scenario("demo::sources", demo::sources),
        bed.scenario("simulation::replica_by_replica", simulation::replica_by_replica),
        bed.scenario("simulation::from_prometheus", simulation::from_prometheus),
        bed.scenario("providers::kwok", providers::kwok),
        bed.scenario("providers::cluster_api", providers_cluster_api::cluster_api),
        bed.scenario("providers::node_bytes", providers_external_grpc::node_bytes),
    ]
}

/// The scenarios that stop what others need.
fn one_at_a_time(bed: &Arc<Bed>) -> Vec<Trial> {
    vec![
        bed.scenario("disruption::leader_killed", disruption::leader_killed),
        bed.scenario("disruption::api_server_restarted", disruption::api_server_restarted),
        bed.scenario(
            "disruption::namespace_deleted_while_stopped",
            disruption::namespace_deleted_while_stopped,
        ),
        bed.scenario("admission::nobody_checked", admission::nobody_checked),
        bed.scenario("dry_run::beside_another", dry_run::beside_another),
        bed.scenario("dry_run::nodes_of_others", dry_run::nodes_of_others),
    ]
}

/// What every scenario runs in.
struct Bed {
    // Dropped before the runtime, which its tasks run on.
    world: Option<World>,
    runtime: Runtime,
}

impl Bed {
    /// A scenario in a namespace named after it.
    fn scenario<F>(self: &Arc<Self>, name: &str, scenario: F) -> Trial
    where
        F: AsyncFnOnce(&Case<'_>) -> Result<()> + Send + 'static,
    {
        self.scenario_in(&name.replace("::", "-").replace('_', "-"), name, scenario)
    }

    fn scenario_in<F>(self: &Arc<Self>, namespace: &str, name: &str, scenario: F) -> Trial
    where
        F: AsyncFnOnce(&Case<'_>) -> Result<()> + Send + 'static,
    {
        let (bed, namespace) = (Arc::clone(self), namespace.to_owned());
        Trial::test(name, move || bed.run(namespace, scenario))
    }

    /// Runs one scenario and deletes its namespace afterwards; a failure comes with the state of its objects.
    fn run<F>(&self, namespace: String, scenario: F) -> Result<(), Failed>
    where
        F: AsyncFnOnce(&Case<'_>) -> Result<()>,
    {
        let world = self.world.as_ref().ok_or("the test bed is not running")?;
        self.runtime.block_on(async {
            let case = Case::new(world, namespace).await.map_err(|error| format!("{error:#}"))?;
            let result = scenario(&case).await;
            let report = if result.is_err() { case.report().await } else { String::new() };
            case.delete().await.map_err(|error| format!("{error:#}"))?;
            result.map_err(|error| Failed::from(format!("{error:#}\n{report}")))
        })
    }
}

fn verdict(together: &Conclusion, alone: &Conclusion) -> ExitCode {
    if together.has_failed() || alone.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
