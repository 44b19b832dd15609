//! Drops as they happen, rate-limited by the programs.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use ebpf_common::{self as layout, DropCause, map};
use model::{LinkIndex, VlanId};
use tokio::io::unix::AsyncFd;

use super::{BpfError, entries, pins};

/// A frame that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropEvent {
    /// Why.
    pub cause: DropCause,
    /// At which link.
    pub link: LinkIndex,
    /// Its VLAN, if it was tagged.
    pub vlan: Option<VlanId>,
    /// As in the frame.
    pub ether_type: u16,
    /// Its source; the sender of ARP.
    pub source: Option<IpAddr>,
    /// Its destination; the target of ARP.
    pub destination: Option<IpAddr>,
}

/// The buffer of events.
pub struct Events(AsyncFd<RingBuf<MapData>>);

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn open(pins: &Path) -> Result<Self, BpfError> {
        let map = Map::RingBuf(pins::map(pins, map::EVENTS)?);
        let buffer = RingBuf::try_from(map).map_err(BpfError::map(map::EVENTS))?;
        watch(buffer).map(Self).map_err(BpfError::Events)
    }

    /// The next event. May be dropped while it waits: no event is lost.
    pub async fn next(&mut self) -> Result<DropEvent, BpfError> {
        loop {
            if let Some(event) = self.ready() {
                return Ok(event);
            }
            let mut guard = self.0.readable_mut().await.map_err(BpfError::Events)?;
            // What came before this line is found by the look that follows it.
            guard.clear_ready();
        }
    }

    /// An event that is there already.
    pub fn ready(&mut self) -> Option<DropEvent> {
        let buffer = self.0.get_mut();
        while let Some(item) = buffer.next() {
            if let Some(event) = parse(&item) {
                return Some(event);
            }
        }
        None
    }
}

#[expect(unsafe_code, reason = "tokio has no safe way to wait for another file descriptor")]
fn watch(buffer: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: a `RingBuf` owns the descriptor of its map, never replaces it, and closes it when it
    // is dropped, which `AsyncFd` does after it has let go of it.
    unsafe { AsyncFd::register(buffer) }.map_err(io::Error::from)
}

/// `None` for what no program of this version writes.
fn parse(bytes: &[u8]) -> Option<DropEvent> {
    if bytes.len() != size_of::<layout::DropEvent>() {
        return None;
    }
    let mut words = bytes.chunks_exact(4).map(|word| {
        let mut array = [0; 4];
        array.copy_from_slice(word);
        u32::from_ne_bytes(array)
    });
    let mut word = || words.next();
    let cause = usize::try_from(word()?).ok()?;
    let link = LinkIndex::try_from(word()?).ok()?;
    let vlan = VlanId::try_from(word()?).ok();
    let ether_type = u16::try_from(word()?).ok()?;
    let source = [word()?, word()?, word()?, word()?];
    let destination = [word()?, word()?, word()?, word()?];
    Some(DropEvent {
        cause: *DropCause::ALL.get(cause)?,
        link,
        vlan,
        ether_type,
        source: address(source),
        destination: address(destination),
    })
}

fn address(entry: layout::Ip) -> Option<IpAddr> {
    (entry != [0; 4]).then(|| entries::ip(entry))
}

impl fmt::Display for DropEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at link {}", self.cause.name(), self.link)?;
        if let Some(vlan) = self.vlan {
            write!(f, ", vlan {vlan}")?;
        }
        match (self.source, self.destination) {
            (Some(source), Some(destination)) => write!(f, ", {source} to {destination}"),
            _ => write!(f, ", ethertype {:#06x}", self.ether_type),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_as_it_was_written() {
        let mut bytes = Vec::new();
        for word in [0_u32, 5, 101, 0x0800, 0, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend([0, 0, 0xff, 0xff, 10, 0, 0, 1]);
        bytes.extend("fd00::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        let event = parse(&bytes).unwrap();
        assert_eq!(event.to_string(), "unknown_vlan at link 5, vlan 101, 10.0.0.1 to fd00::2");
        assert_eq!(parse(&bytes[1..]), None);
    }
}
