//! What the operator decides: `relay.toml` in the data directory.

use std::net::{Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::core::quotas::Quotas;

/// Where a relay listens when nothing else is said: every address, IPv6 and IPv4.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 4433);

/// `relay.toml`. Unknown keys are refused: a misspelt limit must not be a limit that silently is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// UDP address to listen on.
    pub listen: SocketAddr,
    /// `host:port` that devices use, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_address: Option<String>,
    /// `postgres://…` of the database that all nodes of the relay share; without it, the database is a file here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// `nats://…` of the server over which nodes wake each other; without it they look by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<String>,
    /// Connections at once; more are refused.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
    /// How much a device may submit and ask, and a group grow, in a time; what is left out is as usual (REQ-320).
    #[serde(default)]
    pub quotas: Quotas,
}

fn default_max_connections() -> usize {
    10_000
}

impl ConfigFile {
    /// The configuration that `init` writes.
    #[must_use]
    pub fn new(listen: SocketAddr, public_address: Option<String>) -> Self {
        Self {
            listen,
            public_address,
            storage: None,
            wake: None,
            max_connections: default_max_connections(),
            quotas: Quotas::default(),
        }
    }

    /// What devices connect to when the relay listens on `bound`: the public address, or the loopback of this
    /// machine where only a wildcard is known.
    #[must_use]
    pub fn address(&self, bound: SocketAddr) -> String {
        if let Some(public) = &self.public_address {
            return public.clone();
        }
        let mut bound = bound;
        if bound.ip().is_unspecified() {
            // The wildcard of IPv6 takes IPv4 too.
            bound.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        bound.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_writes_reads_back_and_misspelt_keys_do_not() {
        let config = ConfigFile::new(DEFAULT_LISTEN, Some("relay.example.org:4433".into()));
        let text = toml::to_string(&config).expect("toml");
        assert_eq!(toml::from_str(&text), Ok(config));
        assert!(toml::from_str::<ConfigFile>("listen = \"[::]:1\"\nmax_conections = 1").is_err());
    }

    #[test]
    fn a_quota_that_is_left_out_is_as_usual_and_none_is_empty() {
        let read =
            |text: &str| toml::from_str::<ConfigFile>(&format!("listen = \"[::]:1\"\n{text}"));
        let usual = Quotas::default();
        assert_eq!(read("").expect("toml").quotas, usual);
        let some = read("[quotas]\ndevice_records = { per_s = 0, burst = 7 }").expect("toml");
        assert_eq!(some.quotas.device_records.per_s, 0);
        assert_eq!(some.quotas.group_records, usual.group_records);
        assert!(read("[quotas]\ndevice_records = { per_s = 1, burst = 0 }").is_err());
        assert!(read("[quotas]\ndevice_record = { per_s = 1, burst = 1 }").is_err());
    }

    #[test]
    fn a_wildcard_is_reached_over_loopback() {
        let config = ConfigFile::new(DEFAULT_LISTEN, None);
        assert_eq!(config.address(DEFAULT_LISTEN), "127.0.0.1:4433");
    }
}
