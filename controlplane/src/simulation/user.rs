//! What somebody else does in the console, beside those who call.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cloud::{Eni, EniKind, EniStatus};
use ipnetwork::Ipv4Network;
use model::{EniId, InstanceId, Mac, VSwitchId, VpcId, ZoneId};

use super::{Pending, Simulation, addresses};

impl Simulation {
    /// An ENI of the user's own is made and attached, if the instance has room for it.
    pub fn user_attaches(&mut self, instance: &InstanceId) -> Option<EniId> {
        let tags = BTreeMap::from([("owner".to_owned(), "somebody".to_owned())]);
        self.user_makes(VSwitchId::new("vsw-user"), tags, Some(instance))
    }

    /// An ENI with these tags is made, and attached to an instance if that has room for it.
    pub fn user_makes(
        &mut self,
        vswitch: VSwitchId,
        tags: BTreeMap<String, String>,
        instance: Option<&InstanceId>,
    ) -> Option<EniId> {
        let attached = |instance| self.on(instance).filter(|eni| eni.trunk.is_none()).count() + 1;
        if instance.is_some_and(|instance| attached(instance) >= self.limits.enis) {
            return None;
        }
        self.made += 1;
        let id = EniId::new(format!("eni-user-{}", self.made));
        let [_, b, c, d] = self.made.to_be_bytes();
        let v4 = vec![self.v4(0)];
        let eni = Eni {
            id: id.clone(),
            mac: Mac::new([0, 0x16, 0x3e, b, c, d]),
            kind: EniKind::Secondary,
            status: if instance.is_some() { EniStatus::InUse } else { EniStatus::Available },
            vswitch,
            zone: ZoneId::new("h"),
            vpc: VpcId::new("vpc"),
            security_groups: Vec::new(),
            instance: instance.cloned(),
            trunk: None,
            device_index: None,
            primary_v4: v4.first().copied(),
            v4,
            v6: Vec::new(),
            v4_prefixes: Vec::new(),
            v6_prefixes: Vec::new(),
            tags,
            created: None,
        };
        self.enis.insert(id.clone(), eni);
        self.remember();
        Some(id)
    }

    /// An IPv4 address is assigned to an ENI, if it has room.
    pub fn user_assigns(&mut self, id: &EniId) -> Option<IpAddr> {
        let places = |eni: &Eni| eni.v4.len() + eni.v4_prefixes.len();
        let room = self.enis.get(id).is_some_and(|eni| places(eni) < self.limits.addresses);
        if !room {
            return None;
        }
        let address = self.v4(0);
        self.enis.get_mut(id)?.v4.push(address);
        self.remember();
        Some(IpAddr::V4(address))
    }

    /// An address that is not the primary one is taken from an ENI.
    pub fn user_takes(&mut self, id: &EniId, choice: usize) -> Option<IpAddr> {
        let eni = self.enis.get_mut(id)?;
        let primary = eni.primary_v4.map(IpAddr::V4);
        let mut all = addresses(eni);
        all.retain(|address| Some(*address) != primary);
        let taken = *all.get(choice.checked_rem(all.len())?)?;
        eni.v4.retain(|address| IpAddr::V4(*address) != taken);
        eni.v6.retain(|address| IpAddr::V6(*address) != taken);
        let vswitch = eni.vswitch.clone();
        self.free(vec![taken], &vswitch);
        self.remember();
        Some(taken)
    }

    /// A tag is put on an ENI, or taken off again.
    pub fn user_tags(&mut self, id: &EniId, key: &str, value: Option<&str>) {
        let Some(eni) = self.enis.get_mut(id) else { return };
        match value {
            Some(value) => drop(eni.tags.insert(key.to_owned(), value.to_owned())),
            None => drop(eni.tags.remove(key)),
        }
        self.remember();
    }

    /// An IPv6 address is assigned to an ENI.
    pub fn user_assigns_v6(&mut self, id: &EniId) {
        let address = self.v6(0);
        if let Some(eni) = self.enis.get_mut(id) {
            eni.v6.push(address);
        }
        self.remember();
    }

    /// An IPv4 prefix is assigned to an ENI, if it has room.
    pub fn user_assigns_prefix(&mut self, id: &EniId) -> Option<Ipv4Network> {
        let eni = self.enis.get(id)?;
        if eni.v4.len() + eni.v4_prefixes.len() >= self.limits.addresses {
            return None;
        }
        let prefix = self.next_v4_prefix()?;
        self.enis.get_mut(id)?.v4_prefixes.push(prefix);
        self.remember();
        Some(prefix)
    }

    /// An IPv4 prefix is taken from an ENI.
    pub fn user_takes_prefix(&mut self, id: &EniId, choice: usize) -> Option<Ipv4Network> {
        let eni = self.enis.get(id)?;
        let taken = *eni.v4_prefixes.get(choice.checked_rem(eni.v4_prefixes.len())?)?;
        self.unassign_v4_prefixes(id, &[taken]);
        self.remember();
        Some(taken)
    }

    /// An ENI is detached.
    pub fn user_detaches(&mut self, id: &EniId) -> bool {
        let carries = self.carries(id);
        let Some(eni) = self.enis.get_mut(id).filter(|eni| eni.status == EniStatus::InUse) else {
            return false;
        };
        if carries {
            return false;
        }
        eni.status = EniStatus::Detaching;
        self.pending
            .push((self.now + self.delay, Pending::Status(id.clone(), EniStatus::Available)));
        self.remember();
        true
    }

    /// Whether it is a trunk with members: they have to go first.
    fn carries(&self, id: &EniId) -> bool {
        self.enis.values().any(|eni| eni.trunk.as_ref() == Some(id))
    }

    /// An ENI is detached and deleted.
    pub fn user_deletes(&mut self, id: &EniId) -> bool {
        if self.carries(id) {
            return false;
        }
        let Some(eni) = self.enis.remove(id) else { return false };
        self.free(addresses(&eni), &eni.vswitch);
        self.remember();
        true
    }
}
