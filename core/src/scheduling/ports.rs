//! Ports of the node that pods take.

use std::net::IpAddr;

use super::{
    ids::{Strings, Symbol},
    pod::HostPort,
};

/// A port as it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Port {
    number: i32,
    protocol: Symbol,
    /// `None` stands for every address.
    address: Option<Symbol>,
}

impl Port {
    pub(super) fn read(strings: &mut Strings, port: &HostPort) -> Self {
        let every =
            port.ip.is_empty() || port.ip.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
        let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
        Self {
            number: port.port,
            protocol: strings.intern(protocol),
            address: (!every).then(|| strings.intern(&port.ip)),
        }
    }

    /// Whether two pods cannot have these on one node; a port on every address collides with it on any.
    pub(super) fn conflicts(&self, other: &Self) -> bool {
        self.number == other.number
            && self.protocol == other.protocol
            && (self.address.is_none() || other.address.is_none() || self.address == other.address)
    }
}
