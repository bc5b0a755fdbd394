//! Limits of a listener's connections, derived from the limit of open files.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Largest number of connections at a time that have shown neither ticket nor token.
const UNPROVEN: usize = 4_096;
/// Largest number of them from one address.
const PER_ADDRESS: usize = 1_024;
/// Largest number of descriptors that are left for the database, files and people.
const RESERVE: usize = 1_024;

/// Limits of a listener's connections.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections of all kinds; beyond it only people get in.
    pub all: usize,
    /// Places beyond `all` that devices cannot take.
    pub people: usize,
    /// Connections that have shown neither ticket nor token.
    pub unproven: usize,
    /// Limit of these from one address (IPv6: one /64, which is what one subscriber has).
    pub per_address: usize,
    /// Proxies: their address stands for many clients, so it has no limit of its own.
    pub proxies: Vec<Network>,
}

impl Limits {
    /// Derives limits from the number of files that the process may open. An eighth is left for
    /// the database, for files that are sent and for people; half of the rest for clients that
    /// have shown nothing.
    pub fn within(open_files: u64, proxies: Vec<Network>) -> Self {
        let files = usize::try_from(open_files).unwrap_or(usize::MAX);
        let reserve = (files / 8).clamp(16, RESERVE);
        let all = files.saturating_sub(reserve).max(16);
        let unproven = (all / 2).min(UNPROVEN);
        Self {
            all,
            people: reserve / 4,
            unproven,
            per_address: (unproven / 2).clamp(1, PER_ADDRESS),
            proxies,
        }
    }

    /// Network that an address is counted under; `None` for a proxy.
    pub fn network(&self, address: IpAddr) -> Option<Network> {
        (!self.is_proxy(address)).then(|| Network::of_one_client(address))
    }

    /// Returns whether an address is one of the proxies named in the settings.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|p| p.contains(address))
    }
}

/// A range of addresses: `10.1.0.0/16`, `2001:db8::/32`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Network that one client has: an IPv4 address, or an IPv6 /64.
    pub fn of_one_client(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::new(IpAddr::V4(v4), 32),
            IpAddr::V6(v6) => Self::new(IpAddr::V6(v6), 64),
        }
    }

    fn new(address: IpAddr, bits: u8) -> Self {
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        };
        Self { address, bits }
    }

    /// Returns whether an address is in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Self::new(address, self.bits) == *self
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not an address or a network such as 10.1.0.0/16");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| bad())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let address = address.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.unwrap_or(most);
        if bits > most {
            return Err(bad());
        }
        Ok(Self::new(address, bits))
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}
