//! A client that is not in the VPC and reaches it by routing, as through an SLB or a VPN.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use aya::programs::TcAttachType;
use ipnetwork::IpNetwork;
use model::Mac;
use terway_lab_ebpf_common::{NOBODY, OUTSIDE, Owner, program};

use crate::netlink::{End, Netlink, Route, everything};

use super::Fabric;

/// The client's address.
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The client's address.
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10);

const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 64;
const ROUTER_MAC: Mac = Mac::new([0x02, 0x0f, 0, 0, 0, 1]);
const CLIENT_MAC: Mac = Mac::new([0x02, 0x0f, 0, 0, 0, 2]);
const MTU: u32 = 1500;

impl Fabric {
    /// The link between both, addresses, and the client's default routes.
    pub(super) async fn connect_outside(&self) -> Result<()> {
        let vpc = &self.0.netlink;
        let client = Netlink::open(self.outside()).await?;
        client.set_up(client.index_of("lo").await?).await?;
        let near = End { name: "outside", index: 0, mac: ROUTER_MAC, mtu: MTU, alias: "outside" };
        let far = End { name: "eth0", index: 0, mac: CLIENT_MAC, mtu: MTU, alias: "" };
        vpc.add_veth(&near, &far, Some(self.outside())).await?;
        self.programs().count(OUTSIDE)?;
        let attach = |programs: &mut super::Programs| {
            programs.attach("outside", TcAttachType::Ingress, program::FROM_OUTSIDE)
        };
        self.with_programs(attach).await??;
        let (router, eth0) = (vpc.index_of("outside").await?, client.index_of("eth0").await?);
        vpc.set_up(router).await?;
        client.set_up(eth0).await?;
        for (ours, theirs, prefix) in [
            (IpAddr::V4(ROUTER_V4), IpAddr::V4(OUTSIDE_V4), PREFIX_V4),
            (IpAddr::V6(ROUTER_V6), IpAddr::V6(OUTSIDE_V6), PREFIX_V6),
        ] {
            vpc.add_address(router, IpNetwork::new(ours, prefix)?).await?;
            vpc.replace_neighbour(router, theirs, CLIENT_MAC).await?;
            client.add_address(eth0, IpNetwork::new(theirs, prefix)?).await?;
            client.replace_neighbour(eth0, ours, ROUTER_MAC).await?;
            let route = Route { to: everything(ours), link: eth0, via: Some(ours), mtu: None };
            client.replace_route(route).await?;
            let owner = Owner { eni: OUTSIDE, trunk: NOBODY, vswitch: NOBODY };
            self.programs().set_owner(IpNetwork::new(ours, prefix)?, owner)?;
        }
        Ok(())
    }
}
