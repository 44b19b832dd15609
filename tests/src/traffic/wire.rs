//! Raw frames on one link: what no stack would send, and what it would not show.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result};
use model::{Mac, VlanId};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use socket2::{SockFilter, Socket};
use tokio::net::UdpSocket;
use tokio::time;

use crate::namespace::Namespace;

use super::Frame;

/// Larger than any frame that is looked at.
const FRAME: usize = 65_536;

/// Which frames a wire shows. The kernel takes a tag off before it shows a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Those without a tag.
    None,
    /// Those with this one.
    Vlan(VlanId),
    /// All of them.
    Any,
}

/// A packet socket on one link.
#[derive(Debug)]
pub struct Wire {
    /// tokio's type for datagrams does no more with it than to send and to receive.
    socket: UdpSocket,
    mac: Mac,
}

impl Wire {
    /// Opens a link of a namespace; shows what arrives there, not what leaves.
    pub async fn open(place: &Namespace, link: &str, tag: Tag) -> Result<Self> {
        let name = link.to_owned();
        let opened = place.run(move || open(&name, tag)).await?;
        opened.with_context(|| format!("cannot open the link {link} of {}", place.name()))
    }

    /// MAC of the link.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Sends a frame as it is.
    pub async fn send(&self, frame: &Frame) -> Result<()> {
        let bytes = frame.bytes();
        let sent = self.socket.send(&bytes).await.context("cannot send a frame")?;
        anyhow::ensure!(sent == bytes.len(), "only {sent} of {} bytes were sent", bytes.len());
        Ok(())
    }

    /// The first frame that `wanted` makes something of.
    pub async fn receive<T>(
        &self,
        limit: Duration,
        mut wanted: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<T> {
        let found = async {
            let mut buffer = vec![0; FRAME];
            loop {
                let length = self.socket.recv(&mut buffer).await?;
                if let Some(found) = buffer.get(..length).and_then(&mut wanted) {
                    return io::Result::Ok(found);
                }
            }
        };
        Ok(time::timeout(limit, found).await.context("no such frame arrived")??)
    }
}

fn open(link: &str, tag: Tag) -> Result<Wire> {
    let address = link_address(link)?;
    let mac = Mac::new(address.addr().context("the link has no MAC")?);
    let all = SockProtocol::EthAll;
    let socket: OwnedFd =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all)?;
    let socket = Socket::from(socket);
    socket.attach_filter(&filter(tag))?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address)?;
    socket.set_nonblocking(true)?;
    Ok(Wire { socket: UdpSocket::from_std(socket.into())?, mac })
}

/// The kernel lists it with its index, in the form in which a packet socket is bound.
fn link_address(link: &str) -> Result<LinkAddr> {
    let mut addresses = getifaddrs()?.filter(|address| address.interface_name == link);
    let found = addresses.find_map(|address| address.address?.as_link_addr().copied());
    found.with_context(|| format!("there is no link {link}"))
}

/// Classic BPF: frames that arrive, with the wanted tag.
fn filter(tag: Tag) -> Vec<SockFilter> {
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const AND: u16 = 0x54;
    const RETURN: u16 = 0x06;
    // Ancillary data (linux/filter.h): SKF_AD_OFF and so on.
    const PACKET_TYPE: u32 = 0xffff_f000 + 4;
    const VLAN_TAG: u32 = 0xffff_f000 + 44;
    const VLAN_TAG_PRESENT: u32 = 0xffff_f000 + 48;
    const OUTGOING: u32 = 4;
    let ends = [SockFilter::new(RETURN, 0, 0, u32::MAX), SockFilter::new(RETURN, 0, 0, 0)];
    let vlan = match tag {
        Tag::Any => Vec::new(),
        Tag::None => vec![
            SockFilter::new(LOAD, 0, 0, VLAN_TAG_PRESENT),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0),
        ],
        Tag::Vlan(id) => vec![
            SockFilter::new(LOAD, 0, 0, VLAN_TAG_PRESENT),
            SockFilter::new(JUMP_IF_EQUAL, 4, 0, 0),
            SockFilter::new(LOAD, 0, 0, VLAN_TAG),
            SockFilter::new(AND, 0, 0, 0xfff),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, id.get().into()),
        ],
    };
    let to_the_end = u8::try_from(vlan.len()).unwrap_or(u8::MAX).saturating_add(1);
    let start = [
        SockFilter::new(LOAD, 0, 0, PACKET_TYPE),
        SockFilter::new(JUMP_IF_EQUAL, to_the_end, 0, OUTGOING),
    ];
    start.into_iter().chain(vlan).chain(ends).collect()
}
