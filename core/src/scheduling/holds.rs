//! What pods have of their node for themselves: ports, and disks that their specification names.

use std::net::IpAddr;

use super::{
    ids::{Strings, Symbol},
    pod::{Disk, HostPort, Traits},
};

/// A port or a disk as it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Hold {
    /// A port.
    Port {
        /// Its number.
        number: i32,
        /// Its protocol.
        protocol: Symbol,
        /// `None` stands for every address.
        address: Option<Symbol>,
    },
    /// A disk.
    Disk {
        /// Which.
        disk: Symbol,
        /// Whether other pods may read it as well.
        is_shared: bool,
    },
}

impl Hold {
    /// Of pods with these traits, ports first.
    pub(super) fn of(strings: &mut Strings, traits: &Traits) -> Box<[Self]> {
        let mut holds: Vec<_> = traits.ports.iter().map(|port| Self::port(strings, port)).collect();
        holds.extend(traits.disks.iter().map(|disk| Self::disk(strings, disk)));
        holds.into()
    }

    fn port(strings: &mut Strings, port: &HostPort) -> Self {
        // One address may be written in several ways.
        let ip = port.ip.parse::<IpAddr>().map(|address| address.to_canonical());
        let every = port.ip.is_empty() || ip.as_ref().is_ok_and(IpAddr::is_unspecified);
        let address = || ip.map_or_else(|_| port.ip.to_string(), |address| address.to_string());
        let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
        Self::Port {
            number: port.port,
            protocol: strings.intern(protocol),
            address: (!every).then(|| strings.intern(&address())),
        }
    }

    fn disk(strings: &mut Strings, disk: &Disk) -> Self {
        Self::Disk { disk: strings.intern(&disk.id), is_shared: disk.is_shared }
    }

    /// Whether two pods cannot have these on one node; a port on every address collides with it on any, and a disk that one
    /// of them may write with the disk.
    pub(super) fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Port { number, protocol, address },
                Self::Port { number: other_number, protocol: other_protocol, address: other },
            ) => {
                number == other_number
                    && protocol == other_protocol
                    && (address.is_none() || other.is_none() || address == other)
            }
            (Self::Disk { disk, is_shared }, Self::Disk { disk: other, is_shared: other_is_shared }) => {
                disk == other && !(*is_shared && *other_is_shared)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use crate::scheduling::{Node, Pod, Reason, Resources, Snapshot, Surroundings, pod::Shape};

    fn pod(volume: &Value) -> Pod {
        let spec = json!({"spec": {"containers": [], "volumes": [volume]}});
        Pod::read(&serde_json::from_value(spec).unwrap(), Arc::<Shape>::new)
    }

    /// Whether a node that runs a pod with the one volume takes another with the other.
    fn shared(one: &Value, other: &Value) -> bool {
        let mut snapshot = Snapshot::new(Arc::new(Surroundings::default()));
        let allocatable = Resources { pods: 9, ..Resources::default() };
        let node = snapshot.add_node(&Node { allocatable, ready: true, ..Node::default() });
        let (one, other) = (snapshot.class(&pod(one)), snapshot.class(&pod(other)));
        assert_eq!(snapshot.check(other, node), Ok(()), "nobody has it yet");
        snapshot.bind(one, node);
        match snapshot.check(other, node) {
            Ok(()) => true,
            Err(reason) => {
                assert_eq!(reason, Reason::Disk);
                snapshot.unbind(one, node);
                assert_eq!(snapshot.check(other, node), Ok(()), "it is free again");
                false
            }
        }
    }

    #[test]
    fn a_disk_is_shared_by_those_who_only_read_it() {
        let gce = |name: &str, read_only: bool| json!({"name": "v", "gcePersistentDisk": {"pdName": name, "readOnly": read_only}});
        let ebs = |name: &str, read_only: bool| json!({"name": "v", "awsElasticBlockStore": {"volumeID": name, "readOnly": read_only}});
        let iscsi = |name: &str, lun: i32, read_only: bool| json!({"name": "v", "iscsi": {"targetPortal": "p", "iqn": name, "lun": lun, "readOnly": read_only}});
        let rbd = |monitors: &[&str], pool: Option<&str>, read_only: bool| json!({"name": "v", "rbd": {"monitors": monitors, "image": "i", "pool": pool, "readOnly": read_only}});
        for (one, other, is_shared) in [
            (gce("a", false), gce("a", false), false),
            (gce("a", true), gce("a", false), false),
            (gce("a", true), gce("a", true), true),
            (gce("a", false), gce("b", false), true),
            (gce("a", false), ebs("a", false), true),
            (ebs("a", true), ebs("a", true), false),
            (iscsi("a", 0, false), iscsi("a", 1, false), false),
            (iscsi("a", 0, true), iscsi("a", 0, true), true),
            (rbd(&["m", "n"], None, false), rbd(&["n", "o"], Some("rbd"), false), false),
            (rbd(&["m", "n"], None, false), rbd(&["n", "o"], Some("other"), false), true),
            (rbd(&["m"], None, false), rbd(&["n"], None, false), true),
            (rbd(&["m"], None, true), rbd(&["m"], None, true), true),
        ] {
            assert_eq!(shared(&one, &other), is_shared, "{one} {other}");
            assert_eq!(shared(&other, &one), is_shared, "{other} {one}");
        }
    }
}
