//! What a sandbox has, as a CNI result; and how another result differs from it.

use std::net::IpAddr;

use model::host_prefix;
use proto::agent::{AddReply, CheckRequest, Interface, Ip, Route};

use crate::pods::Attachment;

/// The pod's next hop for IPv4: the same in every pod.
const GATEWAY_V4: &str = "169.254.1.1";
/// The pod's next hop for IPv6.
const GATEWAY_V6: &str = "fe80::1";

/// Interfaces: the pod's end, the node's end, the ENI. Addresses are the pod's end's. A further
/// interface of a pod claims no default route.
pub fn of(attachment: &Attachment) -> AddReply {
    let pod = &attachment.record.pod;
    let mut interfaces = vec![
        Interface {
            name: pod.spec.ifname.to_string(),
            mac: pod.link.pod_mac.to_string(),
            sandbox: pod.spec.netns.display().to_string(),
            mtu: pod.link.mtu,
        },
        Interface {
            name: pod.link.host.to_string(),
            mac: pod.link.host_mac.to_string(),
            sandbox: String::new(),
            mtu: pod.link.mtu,
        },
    ];
    interfaces.extend(attachment.carrier.as_ref().map(|eni| Interface {
        name: eni.name.clone(),
        mac: eni.mac.to_string(),
        sandbox: String::new(),
        mtu: eni.mtu,
    }));
    let addresses = pod.spec.addresses;
    AddReply {
        interfaces,
        ips: addresses.iter().map(ip).collect(),
        routes: if pod.spec.is_first() { addresses.iter().map(route).collect() } else { vec![] },
    }
}

fn ip(address: IpAddr) -> Ip {
    let gateway = gateway(address).to_owned();
    Ip { address: host_prefix(address).to_string(), gateway, interface: 0 }
}

fn route(address: IpAddr) -> Route {
    let dst = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    Route { dst: dst.to_owned(), gw: gateway(address).to_owned() }
}

fn gateway(address: IpAddr) -> &'static str {
    if address.is_ipv4() { GATEWAY_V4 } else { GATEWAY_V6 }
}

/// What of ours `found` (a `prevResult`) does not say as it is, one sentence each. What is there
/// besides was added by other plugins. Only the pod's end, its addresses and routes are compared:
/// a version of CNI may leave out the rest.
pub fn differences(expected: &AddReply, found: &CheckRequest) -> Vec<String> {
    let mut differences = Vec::new();
    for own in expected.interfaces.iter().filter(|own| !own.sandbox.is_empty()) {
        differences.extend(interface(own, &found.interfaces));
    }
    for own in &expected.ips {
        if !found.ips.iter().any(|ip| ip.address == own.address) {
            differences.push(format!("prevResult lacks the address {}", own.address));
        }
    }
    for own in &expected.routes {
        if !found.routes.iter().any(|route| route.dst == own.dst) {
            differences.push(format!("prevResult lacks the route to {}", own.dst));
        }
    }
    differences
}

fn interface(own: &Interface, found: &[Interface]) -> Option<String> {
    let same = |other: &&Interface| other.name == own.name && other.sandbox == own.sandbox;
    let Some(other) = found.iter().find(same) else {
        return Some(format!("prevResult lacks interface {} in {}", own.name, own.sandbox));
    };
    let mac_differs = !other.mac.is_empty() && !other.mac.eq_ignore_ascii_case(&own.mac);
    mac_differs.then(|| {
        format!("prevResult gives {} the MAC {}, and it is {}", own.name, other.mac, own.mac)
    })
}
