//! An address is on one ENI: where the cloud has moved one behind our back, the newer word counts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use cloud::ClientToken;

use super::Pool;
use super::shelf::SlotState;
use crate::checkpoint::{Change, RestKind};
use crate::ipam::event::Outcome;

impl Pool {
    /// Drops what two ENIs have from the one that has had it for longer. It rests where it is now, for
    /// who knows who had it in between. What a pod has stays, and is withheld from all others.
    pub(crate) fn one_home(&mut self, now: Duration, out: &mut Outcome) {
        for (address, homes) in self.shared_addresses() {
            let owned = |token: &ClientToken| {
                let slot = self.ports.get(token).and_then(|port| port.shelf.get(address));
                slot.is_some_and(|slot| slot.state.owner().is_some())
            };
            if homes.iter().any(owned) {
                continue;
            }
            let since = |token: &&ClientToken| {
                let slot = self.ports.get(*token).and_then(|port| port.shelf.get(address));
                slot.map(|slot| slot.since)
            };
            let Some(newest) = homes.iter().max_by_key(since).cloned() else { continue };
            for token in homes {
                let Some(port) = self.ports.get_mut(&token) else { continue };
                let eni = port.id.clone();
                if token == newest {
                    port.shelf.set(address, SlotState::Resting, now);
                    let rest = self.rest(eni, address, RestKind::Cooling, now);
                    out.notes.push(Change::PutRest(rest));
                } else {
                    tracing::warn!(%eni, %address, "the cloud has moved an address to another ENI");
                    port.shelf.remove(address);
                    // The newer of our words may be the older of the cloud's: it is to say.
                    port.doubt = true;
                    out.notes.push(Change::RemoveRest(eni, address));
                }
            }
        }
    }

    /// Addresses that more than one ENI has.
    fn shared_addresses(&self) -> Vec<(IpAddr, Vec<ClientToken>)> {
        let mut homes: BTreeMap<IpAddr, Vec<ClientToken>> = BTreeMap::new();
        for (token, port) in &self.ports {
            for (address, _) in port.shelf.iter() {
                homes.entry(address).or_default().push(token.clone());
            }
        }
        homes.into_iter().filter(|(_, homes)| homes.len() > 1).collect()
    }
}
