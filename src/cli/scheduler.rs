//! What the flags say of kube-scheduler: how it is configured, as far as it changes where a pod may run.

use std::{path::Path, sync::Arc};

use anyhow::bail;
use tandem_core::scheduling::profile::{Configuration, Invalid, Profile};

use super::{nodes::NodeArgs, pools::PoolArgs};

/// Both flags together: the profile that all decisions on nodes go by, if there is any, and what cannot be simulated.
///
/// # Errors
/// A file cannot be read, or what is written is not what kube-scheduler would take. Everything that is wrong is said at once.
pub fn configuration(nodes: &NodeArgs, pools: &PoolArgs) -> anyhow::Result<Option<Configuration>> {
    let file = nodes.scheduler_config_file.as_deref().filter(|path| !path.as_os_str().is_empty());
    let text = Some(pools.scheduler_config.as_str()).filter(|text| !text.trim().is_empty());
    let mut problems = Vec::new();
    let file = file.map(|path| (path, of_file(path)));
    let text = text.map(|text| {
        Configuration::read_constraints(text).map_err(|invalid| lines("scheduler-config", &invalid))
    });
    let both = match (file, text) {
        (None, None) => return Ok(None),
        (Some((_, Ok(file))), None) => Some(file),
        (None, Some(Ok(text))) => Some(text),
        (Some((_, Ok(file))), Some(Ok(text))) => match file.with_constraints(text) {
            Ok(both) => Some(both),
            Err(invalid) => {
                problems.extend(lines("scheduler-config", &invalid));
                None
            }
        },
        (file, text) => {
            problems.extend(file.and_then(|(_, file)| file.err()).into_iter().flatten());
            problems.extend(text.and_then(Result::err).into_iter().flatten());
            None
        }
    };
    match both {
        Some(both) => Ok(Some(both)),
        None => bail!("{}", problems.join("\n")),
    }
}

/// As [`configuration`], and says in the log what cannot be simulated.
///
/// # Errors
/// See [`configuration`].
pub fn profile(nodes: &NodeArgs, pools: &PoolArgs) -> anyhow::Result<Option<Arc<Profile>>> {
    let Some(Configuration { profile, unknown }) = configuration(nodes, pools)? else { return Ok(None) };
    for name in unknown {
        tracing::warn!(
            "the scheduler's {name} cannot be simulated: it may refuse pods the nodes that are made for them"
        );
    }
    Ok(Some(Arc::new(profile)))
}

fn of_file(path: &Path) -> Result<Configuration, Vec<String>> {
    const FLAG: &str = "scheduler-config-file";
    let text = std::fs::read_to_string(path).map_err(|error| {
        vec![format!(
            "--{FLAG}: {} cannot be read: {error}; name the file that kube-scheduler has as --config",
            path.display()
        )]
    })?;
    Configuration::read(&text).map_err(|invalid| lines(FLAG, &invalid))
}

fn lines(flag: &str, Invalid(problems): &Invalid) -> Vec<String> {
    problems.iter().map(|problem| format!("--{flag}: {problem}")).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        nodes: NodeArgs,
        #[command(flatten)]
        pools: PoolArgs,
    }

    const HEAD: &str = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
    const RULE: &str = "{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}";

    /// What comes of a file with this text and of constraints.
    fn of(file: Option<&str>, constraints: &str) -> Result<Option<Configuration>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scheduler.yaml");
        let mut arguments = vec!["tandem".to_owned(), format!("--scheduler-config={constraints}")];
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
            arguments.push(format!("--scheduler-config-file={}", path.display()));
        }
        let flags = Flags::parse_from(arguments);
        configuration(&flags.nodes, &flags.pools).map_err(|error| error.to_string())
    }

    #[test]
    fn both_flags_make_one_profile() {
        let rules = format!("podTopologySpread: {{defaultConstraints: [{RULE}]}}");
        assert_eq!(of(None, ""), Ok(None));
        let alone = of(None, &rules).unwrap().unwrap();
        assert!(alone.profile.reads_workloads());
        let file = of(Some(HEAD), "").unwrap().unwrap();
        assert!(!file.profile.reads_workloads());
        let both = of(Some(HEAD), &rules).unwrap().unwrap();
        assert!(both.profile.reads_workloads() && both != alone, "the file's profile is of one scheduler");
    }

    #[test]
    fn all_that_is_wrong_with_both_is_said() {
        let flags =
            Flags::parse_from(["tandem", "--scheduler-config-file=/nowhere", "--scheduler-config=[]"]);
        let said = configuration(&flags.nodes, &flags.pools).unwrap_err().to_string();
        let lines: Vec<_> = said.lines().collect();
        assert!(lines[0].starts_with("--scheduler-config-file: /nowhere cannot be read: "), "{said}");
        assert!(lines[1].starts_with("--scheduler-config: document: it is [], no mapping"), "{said}");
        let own = format!(
            "{HEAD}profiles: [{{pluginConfig: [{{name: PodTopologySpread, args: {{defaultingType: List, \
             defaultConstraints: [{RULE}]}}}}]}}]"
        );
        let other = format!("podTopologySpread: {{defaultConstraints: [{}]}}", RULE.replace('1', "2"));
        let said = of(Some(&own), &other).unwrap_err();
        assert!(said.contains("they are not those of --scheduler-config-file"), "{said}");
    }
}
