//! The statuses of pools: whether they can be used, and what they have.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tandem_core::{
    api::karpenter::{
        NodeClaim, NodePool, NodePoolSpec, NodePoolStatus, Provisioner, ProvisionerStatus,
        RequirementWithMinValues,
    },
    nodes::pools::{
        budgets,
        requirements::{Operator, Requirement, labels::HOSTNAME},
    },
    scheduling::Resources,
};

use super::{
    Pools,
    claims::StepError,
    conditions::{self, Status},
    names::{HASH, HASH_VERSION},
    view::{self, Pool},
    write,
};
use crate::cloud::{
    CloudError,
    pools::{Class, ClassState, quantities},
};

/// What comes within this time is written together.
const CALM: Duration = Duration::from_millis(500);
/// Node classes whose state no event tells are looked at this often.
const PERIOD: Duration = Duration::from_mins(1);

const VALIDATION_SUCCEEDED: &str = "ValidationSucceeded";
const NODE_CLASS_READY: &str = "NodeClassReady";
const ACTIVE: &str = "Active";

/// Keeps the statuses of pools right, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    let mut changes = pools.world.changes.subscribe();
    loop {
        if pools.leads() {
            let node_pools = pools.node_pools.all();
            pools.registrations.retain(&node_pools);
            for pool in node_pools {
                say(&*pool, node_pool(&pools, &pool).await);
            }
            for provisioner in pools.provisioners.all() {
                say(&*provisioner, self::provisioner(&pools, &provisioner).await);
            }
        }
        pools.changed(&mut changes, CALM, PERIOD).await;
    }
}

fn say<K: Resource<DynamicType = ()>>(object: &K, result: Result<(), StepError>) {
    match result {
        Err(StepError::Api(error)) if write::is_outdated(&error) || write::is_gone(&error) => {}
        Err(error) => {
            tracing::warn!(pool = object.name_any(), %error, "the pool's status could not be written");
        }
        Ok(()) => {}
    }
}

async fn node_pool(pools: &Pools, object: &NodePool) -> Result<(), StepError> {
    let pool = Pool::of_node_pool(object);
    if !pools.serves(&pool) {
        return Ok(());
    }
    let now = Timestamp::now();
    let api: Api<NodePool> = Api::all(pools.client.clone());
    let annotations = object.annotations();
    if annotations.get(HASH) != Some(&pool.hash)
        || annotations.get(HASH_VERSION).map(String::as_str) != Some(view::HASH_VERSION)
    {
        let annotations = json!({ "annotations": { HASH: pool.hash, HASH_VERSION: view::HASH_VERSION } });
        write::metadata(&api, object, annotations).await?;
        return Ok(());
    }
    let state = class_state(pools, &pool.class).await;
    let mut status = object.status.clone().unwrap_or_default();
    judge(&mut status.conditions, validate(&pool.spec), &state, now);
    // What cannot be read now has not changed.
    let generation = state.map_or(status.node_class_observed_generation, |state| state.generation);
    pools.registrations.judge(object, &mut status, generation, now);
    let claims = pools.claims_of(Some(&pool.name));
    (status.nodes, status.resources) = tally(&claims);
    if object.status.as_ref() != Some(&status) {
        let old = object.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let wrong = newly_wrong(&old, &status.conditions);
        write::status(&api, object, &cleared(object.status.as_ref(), status)).await?;
        for (reason, message) in wrong {
            tracing::warn!(pool = pool.name, reason, "{message}; no node is made of this pool");
            pools.tell(object, "Warning", reason, message).await;
        }
    }
    Ok(())
}

/// What of a pool is wrong now and was not before, or not so: the reason of an event and what is wrong.
fn newly_wrong(old: &[Condition], new: &[Condition]) -> Vec<(&'static str, String)> {
    let reasons =
        [(VALIDATION_SUCCEEDED, "NodePoolValidationFailed"), (NODE_CLASS_READY, "NodeClassNotReady")];
    let wrong = |(kind, reason): (&str, &'static str)| {
        let is = conditions::find(new, kind).filter(|condition| condition.status != "True")?;
        let was = conditions::find(old, kind);
        let same = was.is_some_and(|was| was.status == is.status && was.message == is.message);
        (!same).then(|| (reason, is.message.clone()))
    };
    reasons.into_iter().filter_map(wrong).collect()
}

/// A merge leaves what it does not name: resources that are gone are zero, as Karpenter writes them.
fn cleared(old: Option<&NodePoolStatus>, mut new: NodePoolStatus) -> NodePoolStatus {
    let resources = new.resources.get_or_insert_default();
    for name in old.iter().filter_map(|old| old.resources.as_ref()).flat_map(BTreeMap::keys) {
        resources.entry(name.clone()).or_insert_with(|| Quantity("0".to_owned()));
    }
    new
}

async fn class_state(pools: &Pools, class: &Class) -> Result<ClassState, CloudError> {
    pools.provider.class_state(class).await
}

fn judge(
    conditions: &mut Vec<Condition>,
    valid: Result<(), String>,
    state: &Result<ClassState, CloudError>,
    now: Timestamp,
) {
    match valid {
        Ok(()) => conditions::set(conditions, VALIDATION_SUCCEEDED, Status::True, ("", ""), now),
        Err(why) => {
            let said = ("NodePoolValidationFailed", why.as_str());
            conditions::set(conditions, VALIDATION_SUCCEEDED, Status::False, said, now);
        }
    }
    let (status, reason, message) = class_says(state);
    conditions::set(conditions, NODE_CLASS_READY, status, (reason, &message), now);
    conditions::set_ready(conditions, &[VALIDATION_SUCCEEDED, NODE_CLASS_READY], now);
}

fn class_says(state: &Result<ClassState, CloudError>) -> (Status, &'static str, String) {
    match state {
        Ok(ClassState { not_ready: None, .. }) => (Status::True, "", String::new()),
        Ok(ClassState { not_ready: Some((reason, message)), .. }) => (Status::False, reason, message.clone()),
        Err(CloudError::NotFound(what)) => {
            (Status::False, "NodeClassNotFound", format!("{what} does not exist"))
        }
        Err(error) => (Status::Unknown, "NodeClassNotRead", error.to_string()),
    }
}

/// What the schema of a pool cannot say.
fn validate(spec: &NodePoolSpec) -> Result<(), String> {
    let template = &spec.template.spec;
    template.expire_after().map_err(|error| error.to_string())?;
    template.termination_grace_period().map_err(|error| error.to_string())?;
    spec.disruption.consolidate_after().map_err(|error| error.to_string())?;
    for budget in spec.disruption.budgets().iter() {
        budgets::allowed(budget, 0, Timestamp::UNIX_EPOCH).map_err(|error| error.to_string())?;
    }
    for requirement in &template.requirements {
        if requirement.key == HOSTNAME {
            return Err(format!(
                "requirement {HOSTNAME:?}: nobody knows the names of nodes before they are there"
            ));
        }
        if Operator::parse(&requirement.operator).is_none() {
            return Err(format!(
                "requirement {:?}: {:?} is no operator; write In, NotIn, Exists, DoesNotExist, Gt, Lt, Gte or Lte",
                requirement.key, requirement.operator
            ));
        }
    }
    contradiction(&template.requirements).map_or(Ok(()), Err)
}

/// Why requirements of one label hold for no machine, as far as it is not said that the label is to be absent.
fn contradiction(requirements: &[RequirementWithMinValues]) -> Option<String> {
    let mut by_key: BTreeMap<&str, Vec<Requirement>> = BTreeMap::new();
    for requirement in requirements {
        let operator = Operator::parse(&requirement.operator)?;
        let one = Requirement::new(&requirement.key, operator, &requirement.values);
        by_key.entry(&requirement.key).or_default().push(one);
    }
    let contradicts = |all: &Vec<Requirement>| {
        let together = all.iter().cloned().reduce(|one, other| one.intersection(&other));
        together.is_some_and(|it| it.is_empty()) && all.iter().all(|one| !one.is_empty())
    };
    let (key, _) = by_key.iter().find(|(_, all)| contradicts(all))?;
    Some(format!(
        "requirements of {key:?} contradict each other: no value satisfies all of them; leave one out"
    ))
}

/// How many nodes claims stand for, and what those that have a machine have together.
fn tally(claims: &[Arc<NodeClaim>]) -> (i64, Option<BTreeMap<String, Quantity>>) {
    let mut total = Resources::default();
    for status in claims.iter().filter_map(|claim| claim.status.as_ref()) {
        total.add(&Resources::from_optional(status.capacity.as_ref()));
    }
    let nodes = i64::try_from(claims.len()).unwrap_or(i64::MAX);
    let mut resources = quantities(&total);
    resources.insert("nodes".to_owned(), Quantity(nodes.to_string()));
    (nodes, Some(resources))
}

async fn provisioner(pools: &Pools, object: &Provisioner) -> Result<(), StepError> {
    let now = Timestamp::now();
    let mut status = object.status.clone().unwrap_or_default();
    let name = object.name_any();
    let said = if pools.node_pools.get("", &name).is_some() {
        Some((Status::False, "NodePoolExists", format!("the NodePool {name} stands for it")))
    } else {
        match pools.translate(object) {
            Err(error) => Some((Status::False, "Invalid", error.to_string())),
            Ok(translation) => {
                for lost in &translation.lost {
                    tracing::debug!(provisioner = name, %lost, "a part of the Provisioner means nothing");
                }
                let pool = Pool::of_provisioner(object, translation);
                if pools.serves(&pool) {
                    Some(class_says(&class_state(pools, &pool.class).await))
                } else {
                    None
                }
            }
        }
    };
    let Some((state, reason, message)) = said else { return Ok(()) };
    conditions::set(&mut status.conditions, ACTIVE, state, (reason, &message), now);
    let claims = pools.claims_of(Some(&name));
    status.resources = tally(&claims).1;
    let newest = claims.iter().filter_map(|claim| claim.metadata.creation_timestamp.clone()).max();
    status.last_scale_time = newest.max(status.last_scale_time.take());
    if object.status.as_ref() != Some(&status) {
        write_provisioner(pools, object, &status).await?;
    }
    Ok(())
}

async fn write_provisioner(
    pools: &Pools,
    object: &Provisioner,
    status: &ProvisionerStatus,
) -> Result<(), StepError> {
    let api: Api<Provisioner> = Api::all(pools.client.clone());
    write::status(&api, object, status).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tandem_core::api::karpenter::{Budget, RequirementWithMinValues};

    use super::*;

    #[test]
    fn what_the_schema_lets_through_is_said() {
        assert_eq!(validate(&NodePoolSpec::default()), Ok(()));
        let mut spec = NodePoolSpec::default();
        spec.disruption.budgets = Some(vec![Budget::of("many")]);
        assert!(validate(&spec).unwrap_err().contains("many"));
        let mut spec = NodePoolSpec::default();
        let hostname = RequirementWithMinValues::new(HOSTNAME, Operator::In, &["a"]);
        spec.template.spec.requirements = vec![hostname];
        assert!(validate(&spec).unwrap_err().contains(HOSTNAME));
        let mut unknown = RequirementWithMinValues::new("a", Operator::In, &["b"]);
        unknown.operator = "Around".to_owned();
        spec.template.spec.requirements = vec![unknown];
        let why = validate(&spec).unwrap_err();
        assert!(why.starts_with("requirement \"a\": \"Around\" is no operator; write In,"), "{why}");
    }

    #[test]
    fn requirements_that_contradict_each_other_are_named() {
        type Asked = (Operator, &'static [&'static str]);
        use Operator::{DoesNotExist, Exists, Gt, In, Lt, NotIn};
        let cases: [(&[Asked], bool); 7] = [
            (&[(In, &["a"]), (In, &["a", "b"])], false),
            (&[(In, &["a"]), (In, &["b"])], true),
            (&[(In, &["a"]), (NotIn, &["a"])], true),
            (&[(Gt, &["5"]), (Lt, &["3"])], true),
            (&[(Gt, &["5"]), (Lt, &["9"])], false),
            (&[(DoesNotExist, &[])], false),
            (&[(Exists, &[]), (NotIn, &["a"])], false),
        ];
        for (requirements, wrong) in cases {
            let all = requirements
                .iter()
                .map(|(operator, values)| RequirementWithMinValues::new("size", *operator, values));
            let mut spec = NodePoolSpec::default();
            spec.template.spec.requirements = all.collect();
            let why = validate(&spec).err();
            assert_eq!(why.is_some(), wrong, "{requirements:?}");
            assert!(why.is_none_or(|why| why.starts_with("requirements of \"size\" contradict")));
        }
    }

    #[test]
    fn what_became_wrong_is_told_once() {
        let mut conditions = Vec::new();
        let fine = Ok(ClassState { generation: Some(1), ..ClassState::default() });
        judge(&mut conditions, Err("why".to_owned()), &fine, Timestamp::UNIX_EPOCH);
        let before = newly_wrong(&[], &conditions);
        assert_eq!(before, [("NodePoolValidationFailed", "why".to_owned())]);
        assert_eq!(newly_wrong(&conditions, &conditions), []);
        let mut other = conditions.clone();
        judge(&mut other, Err("another".to_owned()), &fine, Timestamp::UNIX_EPOCH);
        assert_eq!(newly_wrong(&conditions, &other).len(), 1);
    }

    #[test]
    fn a_pool_is_ready_when_its_class_is() {
        let now = Timestamp::UNIX_EPOCH;
        let mut conditions = Vec::new();
        let missing = Err(CloudError::NotFound("KWOKNodeClass default".to_owned()));
        judge(&mut conditions, Ok(()), &missing, now);
        let ready = conditions::find(&conditions, "Ready").unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.message.as_str()),
            ("False", "NodeClassReady: KWOKNodeClass default does not exist")
        );
        judge(&mut conditions, Ok(()), &Ok(ClassState { generation: Some(1), ..ClassState::default() }), now);
        assert!(conditions::holds(&conditions, "Ready"));
    }
}
