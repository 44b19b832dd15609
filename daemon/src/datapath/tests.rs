//! What the plans look like, and the laws they keep.

use std::path::PathBuf;

use model::{EniId, IpPair, LinkIndex, Mac, SandboxKey};

use super::{Pod, PodLink, PodSpec};

fn index(number: u32) -> LinkIndex {
    LinkIndex::try_from(number).unwrap()
}

/// The pod of number `n`: 10.0.1.n, fd00:1::n, on `eni-1`.
pub(super) fn pod(n: u8) -> Pod {
    let key = SandboxKey {
        network: "terway".to_owned(),
        container_id: format!("c{n}"),
        ifname: "eth0".to_owned(),
    };
    let v6 = format!("fd00:1::{n:x}").parse().unwrap();
    let spec = PodSpec {
        key,
        pod: None,
        netns: PathBuf::from(format!("/run/netns/c{n}")),
        ifname: "eth0".parse().unwrap(),
        addresses: IpPair::Dual([10, 0, 1, n].into(), v6),
        eni: EniId::new("eni-1"),
        member: None,
        mtu: None,
        mac: None,
    };
    let link = PodLink {
        host: format!("cali{n}").parse().unwrap(),
        host_index: index(100_000 + u32::from(n)),
        host_mac: Mac::new([2, 0, 0, 0, 1, n]),
        pod_index: index(200_000 + u32::from(n)),
        pod_mac: Mac::new([2, 0, 0, 0, 2, n]),
        mtu: 1500,
    };
    Pod { spec, link }
}
