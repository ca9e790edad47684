//! What users install: read as the API server reads it, and checked against the flags, the README and itself.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::{collections::BTreeSet, fs, path::Path, sync::LazyLock};

use clap::{Args, Command, FromArgMatches};
use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingWebhookConfiguration,
        apps::v1::Deployment,
        core::v1::{Container, PodSpec, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::util::intstr::IntOrString,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tandem::cli::run::RunArgs;

const NAMESPACE: &str = "tandem";

const INSTALL_FILE: &str = "manifests/install.yaml";

/// Grants that stand beside install.yaml.
const OPTIONS: [&str; 10] = [
    "secrets-all-namespaces.yaml",
    "secrets-namespace.yaml",
    "secrets-names.yaml",
    "custom-target.yaml",
    "node-groups.yaml",
    "node-pools.yaml",
    "provider-cluster-api.yaml",
    "provider-kwok.yaml",
    "external-metrics-upstream.yaml",
    "dry-run.yaml",
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documents(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(path)).unwrap()
}

/// The objects of one kind in a file.
fn of<K: k8s_openapi::Resource + DeserializeOwned>(path: &str) -> Vec<K> {
    // The CRDs make it large: read once, for all tests.
    static INSTALL: LazyLock<Vec<Value>> = LazyLock::new(|| documents(INSTALL_FILE));
    let all = if path == INSTALL_FILE { INSTALL.clone() } else { documents(path) };
    let ours =
        all.into_iter().filter(|object| object["kind"] == K::KIND && object["apiVersion"] == K::API_VERSION);
    ours.map(|object| serde_json::from_value(object).unwrap()).collect()
}

fn installed<K: k8s_openapi::Resource + DeserializeOwned>() -> Vec<K> {
    of(INSTALL_FILE)
}

fn only<K: k8s_openapi::Resource + DeserializeOwned>() -> K {
    let mut objects = installed();
    assert_eq!(objects.len(), 1, "{}", K::KIND);
    objects.remove(0)
}

fn pod() -> PodSpec {
    only::<Deployment>().spec.template.spec.unwrap()
}

fn container() -> Container {
    let mut containers = pod().containers;
    assert_eq!(containers.len(), 1);
    containers.remove(0)
}

/// The container's arguments as the binary reads them.
fn flags() -> RunArgs {
    let arguments = container().args.unwrap();
    assert_eq!(arguments[0], "run");
    let command = RunArgs::augment_args(Command::new("run"));
    RunArgs::from_arg_matches(&command.try_get_matches_from(arguments).unwrap()).unwrap()
}

/// Every rule that the install and its options hold, with the role's name.
fn rules() -> Vec<(String, PolicyRule)> {
    let files = OPTIONS.iter().map(|name| format!("manifests/{name}")).chain([INSTALL_FILE.to_owned()]);
    files.flat_map(|path| roles(&path)).collect()
}

fn roles(path: &str) -> Vec<(String, PolicyRule)> {
    let cluster = of::<ClusterRole>(path).into_iter().map(|role| (role.metadata.name, role.rules));
    let namespaced = of::<Role>(path).into_iter().map(|role| (role.metadata.name, role.rules));
    cluster
        .chain(namespaced)
        .flat_map(|(name, rules)| {
            rules.unwrap_or_default().into_iter().map(move |rule| (name.clone().unwrap(), rule))
        })
        .collect()
}

#[test]
fn nothing_is_granted_by_wildcard() {
    for (role, rule) in rules() {
        let groups = rule.api_groups.clone().unwrap_or_default();
        let resources = rule.resources.clone().unwrap_or_default();
        assert!(rule.non_resource_urls.is_none(), "{role}");
        assert!(!groups.contains(&"*".to_owned()), "{role}: {rule:?}");
        // The resources of external metrics are the metrics' names, which nobody knows beforehand.
        let all_resources = resources.iter().any(|resource| resource.contains('*'));
        assert!(!all_resources || groups == ["external.metrics.k8s.io"], "{role}: {rule:?}");
        for verb in &rule.verbs {
            let harmless =
                !["*", "escalate", "bind", "impersonate", "deletecollection"].contains(&verb.as_str());
            assert!(harmless, "{role}: {rule:?}");
        }
    }
}

/// Secrets of all namespaces are one file away, and never part of the install.
#[test]
fn the_install_reads_secrets_of_its_own_namespace_only() {
    let granting: BTreeSet<String> = roles(INSTALL_FILE)
        .into_iter()
        .filter(|(_, rule)| rule.resources.iter().flatten().any(|resource| resource == "secrets"))
        .map(|(role, _)| role)
        .collect();
    assert_eq!(granting, BTreeSet::from(["tandem".to_owned(), "tandem-secrets-reader".to_owned()]));
    let cluster =
        installed::<ClusterRole>().into_iter().find(|role| role.metadata.name.as_deref() == Some("tandem"));
    let resources = cluster.unwrap().rules.unwrap().into_iter().flat_map(|rule| rule.resources.unwrap());
    assert!(resources.into_iter().all(|resource| resource != "secrets"));
    for binding in installed::<ClusterRoleBinding>() {
        assert_ne!(binding.role_ref.name, "tandem-secrets-reader");
    }
    for binding in installed::<RoleBinding>() {
        let elsewhere = binding.metadata.namespace.as_deref() != Some(NAMESPACE);
        assert!(!elsewhere || binding.role_ref.name == "extension-apiserver-authentication-reader");
    }
    let wide = of::<ClusterRoleBinding>("manifests/secrets-all-namespaces.yaml");
    assert_eq!(wide.len(), 1);
    assert_eq!(wide[0].role_ref.name, "tandem-secrets-reader");
}

/// A binding names a role that is there, and nobody but Tandem and the HPA controller.
#[test]
fn bindings_name_what_exists() {
    let mut known: BTreeSet<String> =
        ["system:auth-delegator", "extension-apiserver-authentication-reader"].map(str::to_owned).into();
    known.extend(installed::<ClusterRole>().into_iter().filter_map(|role| role.metadata.name));
    for path in OPTIONS.iter().map(|name| format!("manifests/{name}")).chain([INSTALL_FILE.to_owned()]) {
        known.extend(of::<Role>(&path).into_iter().filter_map(|role| role.metadata.name));
        known.extend(of::<ClusterRole>(&path).into_iter().filter_map(|role| role.metadata.name));
        let cluster =
            of::<ClusterRoleBinding>(&path).into_iter().map(|binding| (binding.role_ref, binding.subjects));
        let namespaced =
            of::<RoleBinding>(&path).into_iter().map(|binding| (binding.role_ref, binding.subjects));
        cluster
            .chain(namespaced)
            .for_each(|(role, subjects)| check_binding(&known, &role, &subjects.unwrap()));
    }
}

fn check_binding(known: &BTreeSet<String>, role: &RoleRef, subjects: &[Subject]) {
    assert!(known.contains(&role.name), "{}", role.name);
    let account: ServiceAccount = only();
    for subject in subjects {
        assert_eq!(subject.kind, "ServiceAccount");
        let name = (subject.namespace.as_deref(), Some(subject.name.as_str()));
        let ours = name == (account.metadata.namespace.as_deref(), account.metadata.name.as_deref());
        let reader = role.name == "tandem-external-metrics-reader";
        let dry_run = role.name == "tandem-dry-run" && name == (Some(NAMESPACE), Some("tandem-dry-run"));
        assert!(
            ours || dry_run || (reader && name == (Some("kube-system"), Some("horizontal-pod-autoscaler"))),
            "{subject:?}"
        );
    }
}

/// Who runs a dry run may read, and is nobody who may more.
#[test]
fn a_dry_run_may_only_read() {
    const FILE: &str = "manifests/dry-run.yaml";
    for (role, rule) in roles(FILE) {
        let reads = rule.verbs.iter().all(|verb| ["get", "list", "watch"].contains(&verb.as_str()));
        assert!(reads, "{role}: {rule:?}");
        let secrets = rule.resources.iter().flatten().any(|resource| resource == "secrets");
        assert_eq!(secrets, role == "tandem-dry-run-secrets", "Secrets are read where that role is bound");
    }
    let [account] = <[ServiceAccount; 1]>::try_from(of(FILE)).unwrap();
    assert_ne!(account.metadata.name, only::<ServiceAccount>().metadata.name);
    let [binding] = <[ClusterRoleBinding; 1]>::try_from(of(FILE)).unwrap();
    assert_eq!(binding.role_ref.name, "tandem-dry-run");
    assert_eq!(Some(&binding.subjects.unwrap()[0].name), account.metadata.name.as_ref());
    assert!(of::<RoleBinding>(FILE).is_empty());

    let [deployment] = <[Deployment; 1]>::try_from(of(FILE)).unwrap();
    let pod = deployment.spec.template.spec.unwrap();
    assert_eq!(pod.service_account_name, account.metadata.name);
    let container = &pod.containers[0];
    assert_eq!(container.image, self::container().image);
    let command = RunArgs::augment_args(Command::new("run"));
    let matches = command.try_get_matches_from(container.args.as_ref().unwrap()).unwrap();
    let flags = RunArgs::from_arg_matches(&matches).unwrap();
    assert!(flags.dry_run);
    let mounted = Path::new(&container.volume_mounts.as_ref().unwrap()[0].mount_path);
    assert_eq!(flags.dry_run_record.parent(), Some(mounted), "the root is read-only");
}

/// Whatever the install and its options let Tandem read, a dry run may read too: it looks at the same.
#[test]
fn a_dry_run_may_read_what_the_others_may() {
    let read = |path: &str| -> BTreeSet<(String, String)> {
        let reads = |rule: &PolicyRule| rule.verbs.iter().any(|verb| verb == "list" || verb == "watch");
        let rules = roles(path).into_iter().map(|(_, rule)| rule).filter(reads);
        let pairs = rules.flat_map(|rule| {
            let resources = rule.resources.unwrap_or_default();
            let groups = rule.api_groups.unwrap_or_default();
            groups.into_iter().flat_map(move |group| {
                resources.clone().into_iter().map(move |resource| (group.clone(), resource))
            })
        });
        pairs.collect()
    };
    let mine = read("manifests/dry-run.yaml");
    // What it serves nobody, registers nowhere, and no machine of its own ends.
    let not_needed = ["apiservices", "validatingwebhookconfigurations", "secrets", "*", "volumeattachments"];
    for file in [INSTALL_FILE, "manifests/node-groups.yaml", "manifests/node-pools.yaml"] {
        for (group, resource) in read(file) {
            let is_there = mine.contains(&(group.clone(), resource.clone()));
            assert!(is_there || not_needed.contains(&resource.as_str()), "{file}: {resource}.{group}");
        }
    }
}

/// Each rule of the install has its row in the README, each row its rule.
#[test]
fn the_readme_says_why_of_each_rule() {
    let wanted: BTreeSet<String> = roles(INSTALL_FILE).into_iter().map(|(_, rule)| row(&rule)).collect();
    let readme = read("manifests/README.md");
    let found: BTreeSet<String> = readme.lines().filter_map(documented).collect();
    assert_eq!(found, wanted);
}

/// `group | resources (names) | verbs`.
fn row(rule: &PolicyRule) -> String {
    let groups = rule.api_groups.iter().flatten().map(|group| if group.is_empty() { "core" } else { group });
    let mut resources = rule.resources.clone().unwrap().join(", ");
    if let Some(names) = &rule.resource_names {
        resources = format!("{resources} ({})", names.join(", "));
    }
    format!("{} | {resources} | {}", groups.collect::<Vec<_>>().join(", "), rule.verbs.join(", "))
}

/// The same three cells of a table's line that has verbs in it and a reason after them.
fn documented(line: &str) -> Option<String> {
    const VERBS: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    let verbs = cells.iter().position(|cell| cell.split(", ").all(|verb| VERBS.contains(&verb)))?;
    assert!(cells.last().is_some_and(|why| why.len() > 10), "no reason: {line}");
    Some(cells[verbs.checked_sub(2)?..=verbs].join(" | "))
}

#[test]
fn the_readme_names_every_file() {
    let readme = read("manifests/README.md");
    for name in OPTIONS {
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
        assert!(!documents(&format!("manifests/{name}")).is_empty());
    }
}

/// What the flags name is what the rights name.
#[test]
fn names_are_those_of_the_flags() {
    let flags = flags();
    let named = |resource: &str| -> BTreeSet<String> {
        let rules = roles(INSTALL_FILE).into_iter().map(|(_, rule)| rule);
        let rules = rules.filter(|rule| rule.resources.iter().flatten().any(|found| found == resource));
        rules.flat_map(|rule| rule.resource_names.unwrap_or_default()).collect()
    };
    assert_eq!(named("leases"), BTreeSet::from([flags.election.terms().unwrap().lease]));
    assert_eq!(named("secrets"), BTreeSet::from([flags.cert_secret_name]));
    assert_eq!(named("validatingwebhookconfigurations"), BTreeSet::from([flags.validating_webhook_name]));
    let api_service: APIService = only();
    assert_eq!(named("apiservices"), BTreeSet::from([api_service.metadata.name.unwrap()]));
}

#[test]
fn the_pod_can_do_nothing_but_run() {
    let pod = pod();
    assert_eq!(pod.service_account_name.as_deref(), Some(NAMESPACE));
    assert!(pod.host_network.is_none() && pod.host_pid.is_none() && pod.volumes.is_none());
    let security = pod.security_context.unwrap();
    assert_eq!(security.run_as_non_root, Some(true));
    assert_eq!(security.run_as_user, Some(65532));
    assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
    assert!(read("Dockerfile").contains("\nUSER 65532:65532\n"));

    let container = container();
    let security = container.security_context.unwrap();
    assert_eq!(security.read_only_root_filesystem, Some(true));
    assert_eq!(security.allow_privilege_escalation, Some(false));
    assert_eq!(security.capabilities.as_ref().unwrap().drop, Some(vec!["ALL".to_owned()]));
    assert!(security.capabilities.unwrap().add.is_none());
    let resources = container.resources.unwrap();
    assert!(resources.requests.unwrap().contains_key("memory"));
    assert!(resources.limits.unwrap().contains_key("memory"));
    let image = container.image.unwrap();
    assert_eq!(image.rsplit_once(':').unwrap().1, env!("CARGO_PKG_VERSION"), "{image}");
}

/// The image is built of what `.dockerignore` lets in: all that the build reads, by the toolchain of the checkout.
#[test]
fn the_image_is_built_of_all_it_takes() {
    let ignored = read(".dockerignore");
    assert!(ignored.starts_with("*\n"), "whatever is not named stays out");
    let named: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let workspace: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
    for wanted in members.chain(["Cargo.toml", "Cargo.lock", ".cargo", "src"]) {
        assert!(named.iter().any(|name| Path::new(wanted).starts_with(name)), "{wanted} is not let in");
    }
    let toolchain: toml::Table = toml::from_str(&read("rust-toolchain.toml")).unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    assert!(read("Dockerfile").contains(&format!("FROM rust:{channel}-alpine ")), "{channel}");
}

/// Two replicas, of which one stays through a drain, and one may write.
#[test]
fn a_replica_is_always_there() {
    let deployment = only::<Deployment>().spec;
    assert_eq!(deployment.replicas, Some(2));
    assert!(flags().leader_elect);
    let budget = only::<PodDisruptionBudget>().spec.unwrap();
    assert_eq!(budget.min_available, Some(IntOrString::Int(1)));
    assert_eq!(budget.selector.unwrap().match_labels, deployment.selector.match_labels);
}

#[test]
fn environment_is_what_the_binary_reads() {
    let command = RunArgs::augment_args(Command::new("run"));
    let known: BTreeSet<_> =
        command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    for variable in container().env.unwrap() {
        assert!(known.contains(variable.name.as_str()), "{}", variable.name);
    }
}

fn port(name: &str) -> i32 {
    let ports = container().ports.unwrap();
    ports.into_iter().find(|port| port.name.as_deref() == Some(name)).unwrap().container_port
}

#[test]
fn ports_are_those_of_the_flags() {
    let flags = flags();
    let of = |address: tandem::cli::address::BindAddress| i32::from(address.0.unwrap().port());
    assert_eq!(port("metrics-api"), i32::from(flags.secure_port));
    assert_eq!(port("webhooks"), of(flags.webhook_bind_address));
    assert_eq!(port("metrics"), of(flags.metrics_bind_address));
    assert_eq!(port("probes"), of(flags.health_probe_bind_address));
    let container = container();
    for (probe, path) in [(container.readiness_probe, "/readyz"), (container.liveness_probe, "/healthz")] {
        let request = probe.unwrap().http_get.unwrap();
        assert_eq!(request.path.as_deref(), Some(path));
        assert_eq!(request.port, IntOrString::String("probes".into()));
    }
}

/// The Service behind `name` leads from its port 443 to this port of the pod.
fn check_service(name: &str, target: &str) {
    let services = installed::<Service>();
    let service =
        services.into_iter().find(|service| service.metadata.name.as_deref() == Some(name)).unwrap();
    assert_eq!(service.metadata.namespace.as_deref(), Some(NAMESPACE));
    let spec = service.spec.unwrap();
    let labels = only::<Deployment>().spec.template.metadata.unwrap().labels.unwrap();
    assert!(spec.selector.unwrap().iter().all(|(key, value)| labels.get(key) == Some(value)));
    // The first port is the one that kube-apiserver asks.
    let first = spec.ports.unwrap().remove(0);
    assert_eq!((first.name.as_deref(), first.port), (Some("https"), 443));
    assert_eq!(first.target_port, Some(IntOrString::String(target.into())));
}

#[test]
fn the_metrics_api_is_registered() {
    let spec = only::<APIService>().spec.unwrap();
    assert_eq!(
        (spec.group.as_deref(), spec.version.as_deref()),
        (Some("external.metrics.k8s.io"), Some("v1beta1"))
    );
    // Tandem writes the CA.
    assert!(spec.ca_bundle.is_none() && spec.insecure_skip_tls_verify.is_none());
    let service = spec.service.unwrap();
    assert_eq!((service.namespace.as_deref(), service.port), (Some(NAMESPACE), Some(443)));
    assert_eq!(service.name, Some(flags().metrics_server_service_name));
    check_service(&service.name.unwrap(), "metrics-api");
}

#[test]
fn the_webhooks_are_registered() {
    let configuration: ValidatingWebhookConfiguration = only();
    let flags = flags();
    assert_eq!(configuration.metadata.name, Some(flags.validating_webhook_name));
    check_service(&flags.webhooks_service_name, "webhooks");
    let mut kinds = BTreeSet::new();
    for webhook in configuration.webhooks.unwrap() {
        assert_eq!(webhook.failure_policy.as_deref(), Some("Ignore"), "a dead webhook holds up nobody");
        assert_eq!(webhook.timeout_seconds, Some(10));
        assert_eq!(webhook.side_effects, "None");
        assert_eq!(webhook.admission_review_versions, ["v1"]);
        assert!(webhook.client_config.ca_bundle.is_none() && webhook.client_config.url.is_none());
        let service = webhook.client_config.service.unwrap();
        assert_eq!((service.namespace.as_str(), service.port), (NAMESPACE, Some(443)));
        assert_eq!(service.name, flags.webhooks_service_name);
        let [rule] = <[_; 1]>::try_from(webhook.rules.unwrap()).unwrap();
        assert_eq!(rule.operations.unwrap(), ["CREATE", "UPDATE"]);
        assert_eq!(
            (rule.api_groups.unwrap(), rule.api_versions.unwrap()),
            (vec!["keda.sh".into()], vec!["v1alpha1".into()])
        );
        let [resource] = <[_; 1]>::try_from(rule.resources.unwrap()).unwrap();
        let kind = resource.strip_suffix('s').unwrap();
        assert_eq!(service.path.as_deref(), Some(format!("/validate-keda-sh-v1alpha1-{kind}").as_str()));
        kinds.insert(kind.to_owned());
    }
    let wanted = ["scaledobject", "scaledjob", "triggerauthentication", "clustertriggerauthentication"];
    assert_eq!(kinds, wanted.map(str::to_owned).into());
}

/// Applied from top to bottom, nothing names what comes later, and the group is registered when all else is there.
#[test]
fn the_order_is_that_of_need() {
    let kinds: Vec<String> =
        documents(INSTALL_FILE).iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect();
    let first = |kind: &str| kinds.iter().position(|found| found == kind).unwrap();
    let order = ["Namespace", "CustomResourceDefinition", "ClusterRole", "Deployment", "APIService"];
    assert!(order.is_sorted_by_key(|kind| first(kind)), "{kinds:?}");
    assert_eq!(kinds.last().unwrap(), "APIService");
    assert_eq!(kinds.iter().filter(|kind| *kind == "CustomResourceDefinition").count(), 4);
}
