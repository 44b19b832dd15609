//! Prefixes of the simulated cloud: never the same twice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cloud::{Action, AssignPrefixes, CloudError, Meaning, Thing};
use ipnetwork::{Ipv4Network, Ipv6Network};
use model::{EniId, VSwitchId};

use super::{Simulation, Written, missing, refused};

/// Addresses of an IPv4 prefix.
const V4_SIZE: u32 = 16;

impl Simulation {
    pub(super) fn assign_v4_prefixes(
        &mut self,
        request: &AssignPrefixes,
    ) -> Result<Written, CloudError> {
        let action = Action::AssignPrivateIpAddresses;
        if let Some((v4, _)) = self.prefixed.get(&request.token) {
            return Ok(Written::V4Prefixes(v4.clone()));
        }
        let eni = self.enis.get(&request.eni).ok_or_else(|| missing(action, Thing::Eni))?;
        let taken = eni.v4.len() + eni.v4_prefixes.len();
        if taken + usize::try_from(request.count).unwrap_or(0) > self.limits.addresses {
            return Err(refused(action, Meaning::V4Quota, "Ipv4CountExceeded"));
        }
        let vswitch = eni.vswitch.clone();
        let v4 = self.new_v4_prefixes(&vswitch, request.count, action)?;
        if let Some(eni) = self.enis.get_mut(&request.eni) {
            eni.v4_prefixes.extend(&v4);
        }
        self.prefixed.insert(request.token.clone(), (v4.clone(), Vec::new()));
        Ok(Written::V4Prefixes(v4))
    }

    pub(super) fn assign_v6_prefixes(
        &mut self,
        request: &AssignPrefixes,
    ) -> Result<Written, CloudError> {
        let action = Action::AssignIpv6Addresses;
        if let Some((_, v6)) = self.prefixed.get(&request.token) {
            return Ok(Written::V6Prefixes(v6.clone()));
        }
        let eni = self.enis.get(&request.eni).ok_or_else(|| missing(action, Thing::Eni))?;
        let taken = eni.v6.len() + eni.v6_prefixes.len();
        if taken + usize::try_from(request.count).unwrap_or(0) > self.limits.addresses {
            return Err(refused(action, Meaning::V6Quota, "Ipv6CountExceeded"));
        }
        let v6 = self.new_v6_prefixes(request.count);
        if let Some(eni) = self.enis.get_mut(&request.eni) {
            eni.v6_prefixes.extend(&v6);
        }
        self.prefixed.insert(request.token.clone(), (Vec::new(), v6.clone()));
        Ok(Written::V6Prefixes(v6))
    }

    /// Whole prefixes, from a vSwitch that has some.
    pub(super) fn new_v4_prefixes(
        &mut self,
        vswitch: &VSwitchId,
        count: u32,
        action: Action,
    ) -> Result<Vec<Ipv4Network>, CloudError> {
        if count > 0 && self.fragmented.contains(vswitch) {
            let exhausted = Meaning::VSwitchExhausted { vswitch: Some(vswitch.clone()) };
            return Err(refused(action, exhausted, "InvalidVSwitchId.IpNotEnough"));
        }
        self.take(vswitch, (count * V4_SIZE).into(), action)?;
        Ok((0..count).filter_map(|_| self.next_v4_prefix()).collect())
    }

    pub(super) fn next_v4_prefix(&mut self) -> Option<Ipv4Network> {
        self.made += 1;
        Ipv4Network::new(Ipv4Addr::from(0x0b00_0000 + self.made * V4_SIZE), 28).ok()
    }

    pub(super) fn new_v6_prefixes(&mut self, count: u32) -> Vec<Ipv6Network> {
        let base: u128 = 0x2408_0001_0002_0004_0000_0000_0000_0000;
        let prefix =
            |made: u32| Ipv6Network::new(Ipv6Addr::from(base + (u128::from(made) << 48)), 80);
        (0..count)
            .filter_map(|_| {
                self.made += 1;
                prefix(self.made).ok()
            })
            .collect()
    }

    pub(super) fn unassign_v4_prefixes(&mut self, id: &EniId, prefixes: &[Ipv4Network]) {
        let Some(eni) = self.enis.get_mut(id) else { return };
        let gone = eni.v4_prefixes.extract_if(.., |prefix| prefixes.contains(prefix)).count();
        let vswitch = eni.vswitch.clone();
        if let Some(vswitch) = self.vswitches.get_mut(&vswitch) {
            vswitch.available += u64::try_from(gone).unwrap_or(0) * u64::from(V4_SIZE);
        }
    }

    pub(super) fn unassign_v6_prefixes(&mut self, id: &EniId, prefixes: &[Ipv6Network]) {
        if let Some(eni) = self.enis.get_mut(id) {
            eni.v6_prefixes.retain(|prefix| !prefixes.contains(prefix));
        }
    }

    /// Whether an ENI has an address, by itself or in a prefix.
    pub fn has_address(&self, id: &EniId, address: IpAddr) -> bool {
        let Some(eni) = self.enis.get(id) else { return false };
        match address {
            IpAddr::V4(address) => {
                let prefixed = eni.v4_prefixes.iter().any(|prefix| prefix.contains(address));
                prefixed || eni.v4.contains(&address)
            }
            IpAddr::V6(address) => {
                let prefixed = eni.v6_prefixes.iter().any(|prefix| prefix.contains(address));
                prefixed || eni.v6.contains(&address)
            }
        }
    }
}
