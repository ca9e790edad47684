//! Messages of EventBridge, and those that Auto Scaling sends to a queue itself.

use jiff::{Timestamp, fmt::rfc2822};
use serde::Deserialize;
use thiserror::Error;

use super::{Hook, Kind, Notice, State};

/// The transition of machines that end.
const TERMINATING: &str = "autoscaling:EC2_INSTANCE_TERMINATING";

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A machine is about to be taken away.
    Notice(Notice),
    /// Something else, which is no affair of nodes.
    Other(String),
}

/// Why a message does not read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unread {
    /// It is no JSON, or no event.
    #[error("the message is no event of EventBridge or Auto Scaling: {0}")]
    Malformed(String),
    /// An event lacks what says which machine.
    #[error("the event {event:?} has no {field}")]
    Missing {
        /// The event's `detail-type`.
        event: String,
        /// The field.
        field: &'static str,
    },
}

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(default)]
    id: String,
    #[serde(rename = "detail-type")]
    kind: Option<String>,
    #[serde(default)]
    source: String,
    time: Option<Timestamp>,
    #[serde(default)]
    detail: Detail,
    /// Of Auto Scaling without EventBridge: the detail is the message.
    #[serde(flatten)]
    own: Detail,
    /// Of a topic: the message is in it.
    #[serde(rename = "Message")]
    inside: Option<String>,
    /// Of a message that says that messages come.
    #[serde(rename = "Event")]
    test: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    #[serde(rename = "instance-id")]
    machine: Option<String>,
    state: Option<String>,
    service: Option<String>,
    #[serde(rename = "eventTypeCategory")]
    category: Option<String>,
    #[serde(rename = "startTime")]
    begins: Option<String>,
    #[serde(rename = "affectedEntities")]
    affected: Vec<Affected>,
    #[serde(rename = "LifecycleTransition")]
    transition: Option<String>,
    #[serde(rename = "AutoScalingGroupName")]
    group: Option<String>,
    #[serde(rename = "LifecycleHookName")]
    hook: Option<String>,
    #[serde(rename = "LifecycleActionToken")]
    token: Option<String>,
    #[serde(rename = "EC2InstanceId")]
    held: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Affected {
    #[serde(rename = "entityValue", default)]
    value: String,
}

/// Reads a message.
pub fn parse(body: &str) -> Result<Message, Unread> {
    let event: Event = serde_json::from_str(body).map_err(|error| Unread::Malformed(error.to_string()))?;
    if let Some(inside) = event.inside.as_deref().filter(|_| event.kind.is_none()) {
        return parse(inside);
    }
    if event.test.is_some() {
        return Ok(Message::Other("test notification".to_owned()));
    }
    let Event { id, kind, source, time, detail, own, .. } = event;
    let Some(kind) = kind else {
        return match own.transition {
            Some(_) => hook(id, "lifecycle action", time, own),
            None => Err(Unread::Malformed("it has neither detail-type nor LifecycleTransition".to_owned())),
        };
    };
    let what = match (source.as_str(), kind.as_str()) {
        ("aws.ec2", "EC2 Spot Instance Interruption Warning") => Kind::SpotInterruption,
        ("aws.ec2", "EC2 Instance Rebalance Recommendation") => Kind::RebalanceRecommendation,
        ("aws.ec2", "EC2 Capacity Reservation Instance Interruption Warning") => {
            Kind::ReservationInterruption
        }
        ("aws.ec2", "EC2 Instance State-change Notification") => match detail.state.as_deref() {
            Some("stopping") => Kind::StateChange(State::Stopping),
            Some("stopped") => Kind::StateChange(State::Stopped),
            Some("shutting-down") => Kind::StateChange(State::ShuttingDown),
            Some("terminated") => Kind::StateChange(State::Terminated),
            state => return Ok(Message::Other(format!("{kind} ({})", state.unwrap_or("no state")))),
        },
        ("aws.health", "AWS Health Event") => {
            let is_change = detail.service.as_deref() == Some("EC2")
                && detail.category.as_deref() == Some("scheduledChange");
            if !is_change {
                return Ok(Message::Other(kind));
            }
            let machines: Vec<_> = detail
                .affected
                .into_iter()
                .map(|affected| affected.value)
                .filter(|value| value.starts_with("i-"))
                .collect();
            if machines.is_empty() {
                return Err(Unread::Missing { event: kind, field: "affectedEntities with an instance" });
            }
            let begins = detail.begins.as_deref().and_then(|text| {
                let zoned = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_zoned(text);
                zoned.ok().map(|zoned| zoned.timestamp())
            });
            return Ok(Message::Notice(Notice {
                id,
                kind: Kind::ScheduledChange,
                machines,
                sent: time,
                begins,
            }));
        }
        ("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action") => {
            return hook(id, &kind, time, detail);
        }
        _ => return Ok(Message::Other(kind)),
    };
    let Some(machine) = detail.machine.filter(|id| !id.is_empty()) else {
        return Err(Unread::Missing { event: kind, field: "instance-id" });
    };
    Ok(Message::Notice(Notice { id, kind: what, machines: vec![machine], sent: time, begins: None }))
}

fn hook(id: String, event: &str, sent: Option<Timestamp>, detail: Detail) -> Result<Message, Unread> {
    if detail.transition.as_deref().is_some_and(|transition| transition != TERMINATING) {
        return Ok(Message::Other(format!("{event} ({})", detail.transition.unwrap_or_default())));
    }
    let missing = |field| Unread::Missing { event: event.to_owned(), field };
    let some = |value: Option<String>, field| value.filter(|it| !it.is_empty()).ok_or_else(|| missing(field));
    let machine = some(detail.held, "EC2InstanceId")?;
    let hook = Hook {
        group: some(detail.group, "AutoScalingGroupName")?,
        name: some(detail.hook, "LifecycleHookName")?,
        token: detail.token.unwrap_or_default(),
    };
    let id = if id.is_empty() { format!("{}/{}/{machine}", hook.token, hook.name) } else { id };
    Ok(Message::Notice(Notice {
        id,
        kind: Kind::TerminateHook(hook),
        machines: vec![machine],
        sent,
        begins: None,
    }))
}
