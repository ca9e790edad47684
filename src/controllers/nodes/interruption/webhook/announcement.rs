//! What a webhook may be told of a notice, under aws-node-termination-handler's names.

use jiff::Timestamp;
use tandem_core::{
    nodes::interruption::{Kind, Notice, State},
    scheduling::Node,
};

use super::template::{Value, ZERO_TIME};

/// A notice that is acted on.
#[derive(Debug, Clone, Copy)]
pub struct Announcement<'a> {
    /// What it says.
    pub notice: &'a Notice,
    /// Of this machine, `i-…`.
    pub machine: &'a str,
    /// Its node, if there still is one.
    pub node: Option<&'a Node>,
    /// What runs there, by name.
    pub pods: &'a [String],
    /// Now.
    pub now: Timestamp,
}

/// How a field is read.
pub(super) type Read = fn(&Announcement<'_>) -> Value;

/// Fields of templates (aws-node-termination-handler, `pkg/webhook`, `pkg/monitor/types.go`, `pkg/ec2metadata`). What only
/// the metadata of a machine tells is empty, as it is for its queue processor outside of EC2.
pub(super) const FIELDS: &[(&str, Read)] = &[
    ("EventID", |it| event_id(it.notice).into()),
    ("Kind", |it| it.kind().into()),
    ("Monitor", |_| "SQS_MONITOR".into()),
    ("Description", |it| it.description().into()),
    ("State", |_| "".into()),
    ("AutoScalingGroupName", |it| it.group().into()),
    ("NodeName", |it| it.node.map_or_else(String::new, |node| node.name.to_string()).into()),
    ("NodeLabels", |it| it.labels()),
    ("Pods", |it| Value::List(it.pods.iter().cloned().map(Value::from).collect())),
    ("InstanceID", |it| it.machine.into()),
    ("ProviderID", |it| it.node.map_or_else(String::new, |node| node.provider_id.to_string()).into()),
    ("InstanceType", |it| it.label("node.kubernetes.io/instance-type").into()),
    ("IsManaged", |_| Value::Bool(true)),
    ("StartTime", |it| it.starts().into()),
    ("EndTime", |_| ZERO_TIME.into()),
    ("NodeProcessed", |_| Value::Bool(false)),
    ("InProgress", |_| Value::Bool(true)),
    ("AvailabilityZone", |it| it.label("topology.kubernetes.io/zone").into()),
    ("Region", |it| it.label("topology.kubernetes.io/region").into()),
    ("AccountId", |_| "".into()),
    ("InstanceLifeCycle", |_| "".into()),
    ("PublicHostname", |_| "".into()),
    ("PublicIP", |_| "".into()),
    ("LocalHostname", |_| "".into()),
    ("LocalIP", |_| "".into()),
];

/// The handler writes the id of the event in hexadecimal digits, behind what it is of.
pub(crate) fn event_id(notice: &Notice) -> String {
    let of = match notice.kind {
        Kind::SpotInterruption => "spot-itn-event",
        Kind::RebalanceRecommendation => "rebalance-recommendation-event",
        Kind::ScheduledChange => "aws-health-scheduled-change-event",
        Kind::StateChange(_) => "ec2-state-change-event",
        Kind::TerminateHook(_) => "asg-lifecycle-term",
        Kind::ReservationInterruption => "capacity-reservation-interruption-event",
    };
    let digits: Vec<_> = notice.id.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{of}-{}", digits.concat())
}

impl Announcement<'_> {
    fn kind(&self) -> &'static str {
        match self.notice.kind {
            Kind::SpotInterruption => "SPOT_ITN",
            Kind::RebalanceRecommendation => "REBALANCE_RECOMMENDATION",
            Kind::ScheduledChange => "SCHEDULED_EVENT",
            Kind::StateChange(_) => "STATE_CHANGE",
            Kind::TerminateHook(_) => "ASG_LIFECYCLE",
            // The handler does not know it.
            Kind::ReservationInterruption => "CAPACITY_RESERVATION_INTERRUPTION",
        }
    }

    /// The handler's words without the line feed at their end, with which its own default template is no JSON.
    pub(crate) fn description(&self) -> String {
        let (machine, time) = (self.machine, Value::from(self.sent()).printed());
        match &self.notice.kind {
            Kind::SpotInterruption => {
                format!("Spot Interruption event received. Instance {machine} will be interrupted at {time}")
            }
            Kind::RebalanceRecommendation => {
                format!(
                    "Rebalance recommendation event received. Instance {machine} will be cordoned at {time}"
                )
            }
            Kind::ScheduledChange => format!(
                "AWS Health scheduled change event received. Instance {machine} will be interrupted at {time}"
            ),
            Kind::StateChange(state) => {
                let state = state_name(*state);
                format!("EC2 State Change event received. Instance {machine} went into {state} at {time}")
            }
            Kind::TerminateHook(_) => {
                format!("ASG Lifecycle Termination event received. Instance will be interrupted at {time}")
            }
            Kind::ReservationInterruption => format!(
                "Capacity Reservation Interruption event received. Instance {machine} will be interrupted at {time}"
            ),
        }
    }

    fn sent(&self) -> Timestamp {
        self.notice.sent.unwrap_or(self.now)
    }

    /// Nodes under maintenance are emptied at once, whenever it begins.
    fn starts(&self) -> Timestamp {
        if self.notice.kind == Kind::ScheduledChange { self.now } else { self.sent() }
    }

    /// Only a hook says of which group its machine is.
    fn group(&self) -> String {
        match &self.notice.kind {
            Kind::TerminateHook(hook) => hook.group.clone(),
            _ => String::new(),
        }
    }

    fn labels(&self) -> Value {
        let labels = self.node.map(|node| &node.labels).into_iter().flatten();
        Value::Map(labels.map(|(key, value)| (key.clone(), value.as_str().into())).collect())
    }

    fn label(&self, key: &str) -> String {
        self.node.and_then(|node| node.labels.get(key)).cloned().unwrap_or_default()
    }
}

/// As EC2 has it.
fn state_name(state: State) -> &'static str {
    match state {
        State::Stopping => "stopping",
        State::Stopped => "stopped",
        State::ShuttingDown => "shutting-down",
        State::Terminated => "terminated",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tandem_core::nodes::interruption::Hook;

    use super::*;

    /// A notice, and what it is about.
    pub(crate) struct Case {
        notice: Notice,
        node: Node,
        pods: Vec<String>,
    }

    impl Case {
        pub(crate) fn announcement(&self) -> Announcement<'_> {
            let Self { notice, node, pods } = self;
            Announcement { notice, machine: "i-1", node: Some(node), pods, now: at("2026-11-22T04:00:00Z") }
        }

        fn field(&self, name: &str) -> String {
            let field = FIELDS.iter().find(|(known, _)| *known == name);
            field.map_or_else(|| panic!("{name}"), |(_, read)| read(&self.announcement()).printed())
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn case(kind: Kind) -> Case {
        let labels = [
            ("node.kubernetes.io/instance-type", "m5.large"),
            ("topology.kubernetes.io/region", "eu-central-1"),
            ("topology.kubernetes.io/zone", "eu-central-1a"),
        ];
        let sent = Some(at("2020-07-01T22:19:58Z"));
        Case {
            notice: Notice {
                id: "a-1".to_owned(),
                kind,
                machines: vec!["i-1".to_owned()],
                sent,
                begins: None,
            },
            node: Node {
                name: "web-1".into(),
                provider_id: "aws:///eu-central-1a/i-1".into(),
                labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
                ..Node::default()
            },
            pods: vec!["web-a".to_owned(), "web-b".to_owned()],
        }
    }

    /// A spot machine that is taken back.
    pub(crate) fn spot() -> Case {
        case(Kind::SpotInterruption)
    }

    #[test]
    fn fields_are_what_the_handler_says() {
        let hook = Hook { group: "web".to_owned(), name: "end".to_owned(), token: String::new() };
        let table = [
            (Kind::SpotInterruption, "EventID", "spot-itn-event-612d31"),
            (Kind::SpotInterruption, "Kind", "SPOT_ITN"),
            (Kind::SpotInterruption, "StartTime", "2020-07-01 22:19:58 +0000 UTC"),
            (
                Kind::SpotInterruption,
                "Description",
                "Spot Interruption event received. Instance i-1 will be interrupted at 2020-07-01 22:19:58 +0000 UTC",
            ),
            (Kind::SpotInterruption, "InstanceID", "i-1"),
            (Kind::SpotInterruption, "InstanceType", "m5.large"),
            (Kind::SpotInterruption, "AvailabilityZone", "eu-central-1a"),
            (Kind::SpotInterruption, "Region", "eu-central-1"),
            (Kind::SpotInterruption, "ProviderID", "aws:///eu-central-1a/i-1"),
            (Kind::SpotInterruption, "Pods", "[web-a web-b]"),
            (
                Kind::SpotInterruption,
                "NodeLabels",
                "map[node.kubernetes.io/instance-type:m5.large topology.kubernetes.io/region:eu-central-1 \
                 topology.kubernetes.io/zone:eu-central-1a]",
            ),
            (Kind::SpotInterruption, "AutoScalingGroupName", ""),
            (Kind::ScheduledChange, "Kind", "SCHEDULED_EVENT"),
            (Kind::ScheduledChange, "StartTime", "2026-11-22 04:00:00 +0000 UTC"),
            (
                Kind::StateChange(State::ShuttingDown),
                "Description",
                "EC2 State Change event received. Instance i-1 went into shutting-down at 2020-07-01 22:19:58 +0000 UTC",
            ),
            (Kind::TerminateHook(hook.clone()), "EventID", "asg-lifecycle-term-612d31"),
            (Kind::TerminateHook(hook), "AutoScalingGroupName", "web"),
            (Kind::RebalanceRecommendation, "Kind", "REBALANCE_RECOMMENDATION"),
        ];
        for (kind, field, value) in table {
            assert_eq!(case(kind.clone()).field(field), value, "{field} of {kind:?}");
        }
    }

    #[test]
    fn a_machine_without_a_node_has_empty_fields() {
        let case = spot();
        let announcement = Announcement { node: None, ..case.announcement() };
        for name in ["NodeName", "ProviderID", "InstanceType", "Region"] {
            let read = FIELDS.iter().find(|(known, _)| *known == name).map(|(_, read)| read(&announcement));
            assert_eq!(read, Some("".into()), "{name}");
        }
    }
}
