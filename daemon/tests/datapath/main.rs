//! The datapath against the real kernel, in namespaces of its own; the second witness is `ip -j`
//! and `tc -j`, and packets of real sockets. Needs root and the staged eBPF object.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod node;

use daemon::datapath::EniKind;
use model::IpStack;

use node::{add, ip, on_a_node};

#[test]
fn smoke() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        let link = node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let one = add(&datapath, &node.pod(1, 5)).await;
        println!("{link:?} {one:?}");
        for command in [
            "rule",
            "-6 rule",
            "route show table all",
            "-6 route show table all",
            "addr",
            "neigh",
            "-n p1-5 addr",
            "-n p1-5 route",
            "-n p1-5 -6 route",
            "-n p1-5 neigh",
        ] {
            println!("# ip {command}\n{}", ip(command));
        }
        println!("{:?}", datapath.check_pod(&one.spec.key).await.unwrap());
        println!("{:#?}", datapath.repair().await.unwrap());
        println!("{}", node::run("ip netns exec p1-5 ping -c 1 -W 1 10.9.9.9"));
        println!("{}", node::run("ip netns exec p1-5 ping -c 1 -W 1 fd09::9"));
        datapath.del_pod(&one).await.unwrap();
        println!("{:?} {:#?}", datapath.changes().borrow().clone(), datapath.drops().await);
        println!("{:#?}", datapath.repair().await.unwrap());
    });
}
