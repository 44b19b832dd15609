//! At start: addresses whose rest is over, but whose tombstone in the programs' map a crash left
//! standing. Nobody else would bury them, and the next pod of the address could not send.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::IpPair;

use crate::api::failure::chain;
use crate::checkpoint::Contents;
use crate::datapath::Datapath;

/// Before anything new comes to rest.
pub async fn bury_forgotten(datapath: &Datapath, contents: &Contents) {
    let standing = match datapath.tombstones().await {
        Ok(standing) => standing,
        Err(error) => {
            tracing::warn!(error = chain(&error), "tombstones cannot be read");
            return;
        }
    };
    for address in forgotten(&standing, contents) {
        let pair = match address {
            IpAddr::V4(v4) => IpPair::V4(v4),
            IpAddr::V6(v6) => IpPair::V6(v6),
        };
        match datapath.bury(pair).await {
            Ok(()) => tracing::info!(%address, "a tombstone without a rest is buried"),
            Err(error) => {
                tracing::warn!(%address, error = chain(&error), "a tombstone is not buried");
            }
        }
    }
}

/// Those that neither rest, nor are still a sandbox's, nor go with a member that is on its way out
/// (the pool buries those when it is gone).
fn forgotten(standing: &[IpAddr], contents: &Contents) -> Vec<IpAddr> {
    let sandboxes = contents.sandboxes.iter();
    let held = sandboxes.flat_map(|record| record.allocation.addresses.iter());
    let members = contents.members.iter().filter_map(|member| member.binding());
    let leaving = members.flat_map(|binding| binding.addresses.iter());
    let rests = contents.rests.iter().map(|rest| rest.address);
    let known: BTreeSet<_> = held.chain(leaving).chain(rests).collect();
    standing.iter().copied().filter(|address| !known.contains(address)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::EniId;

    use super::*;
    use crate::checkpoint::{RestKind, RestRecord};

    #[test]
    fn what_rests_keeps_its_tombstone() {
        let standing = ["10.0.1.1", "10.0.1.2"].map(|text| text.parse().unwrap());
        let rest = RestRecord {
            eni: EniId::new("eni-1"),
            kind: RestKind::Cooling,
            address: standing[0],
            since: Duration::ZERO,
            boot_id: String::new(),
        };
        let contents = Contents { rests: vec![rest], ..Contents::default() };
        assert_eq!(forgotten(&standing, &contents), [standing[1]]);
    }
}
