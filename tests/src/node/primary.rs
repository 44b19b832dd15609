//! `eth0` as an operating system sets it up: the vSwitch's prefix, a default route, up.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use tokio::time;

use crate::netlink::{Route, everything};

use super::{Node, V6Default};

/// How long a router advertisement may take.
const ADVERTISEMENT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// The primary ENI's configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Primary {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v4_block: Ipv4Network,
    pub(crate) v6: Option<(Ipv6Addr, Ipv6Network)>,
}

impl Node {
    /// Sets `link` up as the node's primary NIC.
    pub(crate) async fn configure_primary(&self, link: &str, primary: Primary) -> Result<()> {
        let netlink = self.netlink();
        let index = netlink.index_of(link).await?;
        self.accept_advertisements(link, self.v6_default() == V6Default::Advertised).await?;
        let v4 = IpNetwork::new(primary.v4.into(), primary.v4_block.prefix())?;
        netlink.add_address(index, v4).await?;
        netlink.set_up(index).await?;
        self.add_default(index, primary.v4_block.into()).await?;
        if let Some((address, block)) = primary.v6 {
            self.configure_v6(index, address, block).await?;
        }
        Ok(())
    }

    async fn configure_v6(&self, index: u32, address: Ipv6Addr, block: Ipv6Network) -> Result<()> {
        match self.v6_default() {
            V6Default::Static => {
                let address = IpNetwork::new(address.into(), block.prefix())?;
                self.netlink().add_address(index, address).await?;
                self.add_default(index, block.into()).await
            }
            // As DHCPv6 does: no prefix on the link.
            V6Default::Advertised => {
                self.netlink().add_address(index, IpNetwork::from(IpAddr::V6(address))).await
            }
        }
    }

    async fn add_default(&self, index: u32, block: IpNetwork) -> Result<()> {
        let gateway = model::gateway(block).with_context(|| format!("{block} has no gateway"))?;
        let route = Route { to: everything(gateway), link: index, via: Some(gateway), mtu: None };
        self.netlink().replace_route(route).await
    }

    async fn accept_advertisements(&self, link: &str, accept: bool) -> Result<()> {
        let path = Path::new("/proc/sys/net/ipv6/conf").join(link).join("accept_ra");
        let value = if accept { "1" } else { "0" };
        let written = self.run(move || fs::write(&path, value)).await?;
        written.with_context(|| format!("cannot set accept_ra of {link} on {}", self.name()))
    }

    /// Waits for the default route of IPv6 that comes by advertisement.
    pub(crate) async fn wait_for_v6_default(&self) -> Result<()> {
        let found = async {
            while !self.netlink().has_v6_default().await? {
                time::sleep(LOOK).await;
            }
            Ok(())
        };
        let found = time::timeout(ADVERTISEMENT, found).await;
        found.with_context(|| format!("{} got no router advertisement", self.name()))?
    }
}
