//! The two networks that a control plane can live in.

use std::env;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, bail};

use crate::components;

/// Set inside the network namespace, so that [`enter_namespace`] enters only once.
const INSIDE: &str = "TANDEM_NETWORK_NAMESPACE";

/// Where Service and pod addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A network namespace of our own in which all of 10.0.0.0/8 is local: every Service and pod address is real, a
    /// process can listen on it, and no packet can leave.
    Namespace,
    /// The machine's loopback, so that the user's own kubectl reaches the cluster: a `ClusterIP` is a 127.96.0.0/16
    /// address on which a process can listen; pod addresses are fiction, nothing may connect to one.
    Loopback,
}

impl Network {
    /// The kube-apiserver's `--service-cluster-ip-range`.
    pub fn service_range(self) -> &'static str {
        match self {
            Self::Namespace => "10.96.0.0/16",
            Self::Loopback => "127.96.0.0/16",
        }
    }
}

/// Replaces this process by itself, run again with the same arguments in a fresh network namespace; returns when it
/// is already inside. The namespace has no name and ends with its last process, so it cannot be left behind.
///
/// Root needs no user namespace; others get one, where the machine allows it.
pub fn enter_namespace() -> Result<()> {
    if env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    components::require("ip", "iproute2")?;
    let unshare = components::require("unshare", "util-linux")?;
    let root = Command::new("id").arg("-u").output()?.stdout == b"0\n";
    let user_namespace: &[&str] = if root { &[] } else { &["--user", "--map-root-user"] };
    let set_up = "ip link set lo up && ip route add local 10.0.0.0/8 dev lo && exec \"$0\" \"$@\"";
    let path = env::var("PATH").unwrap_or_default();
    let error = Command::new(unshare)
        .args(user_namespace)
        .args(["--net", "--", "sh", "-c", set_up])
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .exec();
    bail!("cannot enter a network namespace (needs root, or user namespaces allowed): {error}")
}

/// An address on 127.0.0.1 with a port that was free a moment ago.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
