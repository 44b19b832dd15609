//! Makes the kernel forget addresses whose pods are gone, so that nothing of a last owner meets the
//! next: no connection, no neighbour. It runs on a thread of its own; on the way of no ADD.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::RouteProtocol;

use super::super::DatapathError;
use super::super::types::PROTOCOL;
use super::conntrack::{self, ConntrackError};
use super::socket::{Request, Socket};
use super::{gone_is_fine, read, survey};

/// Deletes connections and neighbours of these addresses in the caller's namespace.
pub(crate) fn forget(addresses: &BTreeSet<IpAddr>) -> Result<(), DatapathError> {
    let connections = conntrack::flush(addresses).map_err(refused)?;
    let neighbours = neighbours(addresses).map_err(|source| DatapathError::Refused {
        what: "neighbours of addresses that rest to be deleted".to_owned(),
        source,
    })?;
    if connections + neighbours > 0 {
        tracing::debug!(?addresses, connections, neighbours, "forgotten");
    }
    Ok(())
}

fn refused(error: ConntrackError) -> DatapathError {
    let what = "connections of addresses that rest to be deleted (conntrack)".to_owned();
    match error {
        ConntrackError::Unseen(source) => {
            let feature = "ctnetlink (CONFIG_NF_CT_NETLINK, module nf_conntrack_netlink)";
            DatapathError::Unsupported { what, feature, source }
        }
        ConntrackError::Read(source) => DatapathError::Read { what: "connections", source },
        ConntrackError::Delete(source) => DatapathError::Refused { what, source },
        ConntrackError::Stuck => DatapathError::Refused { what, source: io::Error::other(error) },
    }
}

fn neighbours(addresses: &BTreeSet<IpAddr>) -> io::Result<usize> {
    let mut socket = Socket::open()?;
    let known = survey::neighbours(&mut socket)?;
    let old = known.into_iter().filter(|known| is_of(known, addresses) && !is_others(known));
    let deletions: Vec<_> = old
        .map(|mut old| {
            old.attributes.retain(|one| matches!(one, NeighbourAttribute::Destination(_)));
            Request::new(Message::DelNeighbour(old), 0)
        })
        .collect();
    let count = deletions.len();
    socket.run(deletions)?.into_iter().try_for_each(gone_is_fine)?;
    Ok(count)
}

fn is_of(neighbour: &NeighbourMessage, addresses: &BTreeSet<IpAddr>) -> bool {
    read::destination(neighbour).is_some_and(|address| addresses.contains(&address))
}

/// What somebody else wrote down for good is not the kernel's memory of a pod.
fn is_others(neighbour: &NeighbourMessage) -> bool {
    let ours = NeighbourAttribute::Protocol(RouteProtocol::from(PROTOCOL));
    neighbour.header.state == NeighbourState::Permanent && !neighbour.attributes.contains(&ours)
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn a_kernel_that_does_not_show_its_connections_is_told_of_by_the_missing_feature() {
        let error = refused(ConntrackError::Unseen(Errno::EPROTONOSUPPORT.into()));
        assert!(matches!(error, DatapathError::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains("CONFIG_NF_CT_NETLINK"), "{error}");
        let error = refused(ConntrackError::Delete(Errno::EPERM.into()));
        assert!(matches!(error, DatapathError::Refused { .. }), "{error:?}");
    }
}
