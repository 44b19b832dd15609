//! At start: which addresses may have a tombstone in the programs' map. One of any other a crash left
//! standing; nobody else would bury it, and the next pod of the address could not send.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::checkpoint::{Contents, RestKind};

/// Those that rest, are still a sandbox's, or go with a member that is on its way out (the pool
/// buries those when it is gone).
pub fn expected(contents: &Contents) -> BTreeSet<IpAddr> {
    let sandboxes = contents.sandboxes.iter();
    let held = sandboxes.flat_map(|record| record.allocation.addresses.iter());
    let members = contents.members.iter().filter_map(|member| member.binding());
    let leaving = members.flat_map(|binding| binding.addresses.iter());
    // What leaves was idle, and buried before.
    let rests = contents.rests.iter().filter(|rest| rest.kind == RestKind::Cooling);
    let rests = rests.map(|rest| rest.address);
    held.chain(leaving).chain(rests).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::EniId;

    use super::*;
    use crate::checkpoint::RestRecord;

    #[test]
    fn what_rests_keeps_its_tombstone_and_what_leaves_has_none() {
        let address = "10.0.1.1".parse().unwrap();
        let rest = RestRecord {
            eni: EniId::new("eni-1"),
            kind: RestKind::Cooling,
            address,
            since: Duration::ZERO,
            boot_id: String::new(),
        };
        let leaves = RestRecord {
            address: "10.0.1.2".parse().unwrap(),
            kind: RestKind::Leaving,
            ..rest.clone()
        };
        let contents = Contents { rests: vec![rest, leaves], ..Contents::default() };
        assert_eq!(expected(&contents), BTreeSet::from([address]));
    }
}
