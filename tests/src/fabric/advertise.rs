//! Router advertisements on a port, by which some nodes learn their default route of IPv6.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use anyhow::{Context as _, Result};
use model::Mac;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::task::JoinHandle;
use tokio::time;

use super::{Fabric, GATEWAY};

/// A router says it a few times at once, then now and then (RFC 4861, section 6.2.4).
const FIRST: Duration = Duration::from_millis(50);
const FIRST_TIMES: u32 = 10;
const LATER: Duration = Duration::from_secs(3);
/// In seconds, as long as real routers say.
const LIFETIME: u16 = 1800;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const HOP_LIMIT: u32 = 255;

impl Fabric {
    /// Advertises the gateway on the port until the task is aborted.
    pub(super) async fn advertise(&self, port: u32) -> Result<JoinHandle<()>> {
        let socket = self.vpc().run(move || open(port)).await?;
        let socket = socket.context("cannot open a socket for router advertisements")?;
        let target = SocketAddr::V6(SocketAddrV6::new(ALL_NODES, 0, 0, port));
        Ok(tokio::spawn(async move {
            let mut sent: u32 = 0;
            loop {
                // A port that is going away takes no packets; its task is aborted then.
                let _unplugged = socket.send_to(&advertisement(), &SockAddr::from(target));
                sent = sent.saturating_add(1);
                time::sleep(if sent < FIRST_TIMES { FIRST } else { LATER }).await;
            }
        }))
    }
}

fn open(port: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_multicast_if_v6(port)?;
    socket.set_multicast_hops_v6(HOP_LIMIT)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// RFC 4861, section 4.2: addresses are managed (`DHCPv6`), no prefix is on the link. The kernel
/// fills in the checksum.
fn advertisement() -> Vec<u8> {
    const KIND: u8 = 134;
    const MANAGED: u8 = 0x80;
    const SOURCE_LINK_LAYER: u8 = 1;
    let mac: Mac = GATEWAY;
    let [high, low] = LIFETIME.to_be_bytes();
    let mut bytes = vec![KIND, 0, 0, 0, 64, MANAGED, high, low];
    // Reachable time and retransmission timer: unspecified.
    bytes.extend([0; 8]);
    bytes.extend([SOURCE_LINK_LAYER, 1]);
    bytes.extend(mac.bytes());
    bytes
}
