//! Drops are told as they happen, and a flood of them is only counted.

use daemon::bpf::{Bpf, DropCause, DropEvent, Events, Program};
use model::LinkIndex;
use tokio::runtime::Builder;

use crate::frames::{ethernet, ipv4, ipv6, tagged, udp};
use crate::place;
use crate::run::{cost, lo, run};
use crate::tap::Tap;
use crate::world::{
    ENI_MAC, FIRST, GATEWAY_MAC, HOST_MAC, LINK_LOCAL, PEER, PEER6, POD_MAC, POD6, set_eni,
    set_pod, vlan,
};

fn with_events<T>(bpf: &Bpf, job: impl AsyncFnOnce(Events) -> T) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { job(bpf.events().unwrap()).await })
}

fn spoofed() -> Vec<u8> {
    ethernet(HOST_MAC, POD_MAC, 0x86dd, &ipv6(PEER6, POD6, 17, &udp(b"hello")))
}

#[test]
fn a_drop_is_told_with_link_vlan_and_addresses() {
    place::run(|| {
        let mut bpf = place::load();
        let mut trunk = Tap::new("eth1", "00:16:3e:00:00:01");
        set_pod(&mut bpf, lo());
        set_eni(&mut bpf, trunk.link, lo());
        bpf.attach(trunk.link, &[Program::VlanUntag]).unwrap();
        with_events(&bpf, async |mut events| {
            // The consumer waits already when the frame comes.
            let waiting = events.next();
            let sending = async { run(&bpf, Program::FromPod, &spoofed()) };
            let (event, _outcome) = tokio::join!(waiting, sending);
            let expected = DropEvent {
                cause: DropCause::SpoofedSource,
                link: lo(),
                vlan: None,
                ether_type: 0x86dd,
                source: Some(PEER6.into()),
                destination: Some(POD6.into()),
            };
            assert_eq!(event.unwrap(), expected);

            let frame = ethernet(ENI_MAC, GATEWAY_MAC, 0x0800, &ipv4(PEER, FIRST, &udp(b"x")));
            trunk.write(&tagged(&frame, 0x8100, 103));
            let expected = DropEvent {
                cause: DropCause::UnknownVlan,
                link: trunk.link,
                vlan: Some(vlan(103)),
                ether_type: 0x0800,
                source: Some(PEER.into()),
                destination: Some(FIRST.into()),
            };
            assert_eq!(events.next().await.unwrap(), expected);
        });
    });
}

#[test]
fn a_flood_is_told_at_most_a_thousand_times_per_cpu_and_second_and_counted_whole() {
    place::run(|| {
        let mut bpf = place::load();
        set_pod(&mut bpf, lo());
        let before = bpf.drops().unwrap();
        cost(Program::FromPod, &spoofed());
        let reader = bpf.reader().unwrap();
        let drops: u64 = reader.drops().unwrap().iter().map(|(_, drops)| drops).sum();
        assert_eq!(drops - before.iter().map(|(_, drops)| drops).sum::<u64>(), 1_000_000);
        let told =
            with_events(&bpf, async |mut events| std::iter::from_fn(|| events.ready()).count());
        let counts = reader.counts().unwrap();
        let count = |name| counts.iter().find(|(count, _)| *count == name).unwrap().1;
        let told = u64::try_from(told).unwrap();
        // The buffer has room for more than both CPUs may tell within the time that this takes.
        assert!(told >= 1000, "{told}");
        assert_eq!(count("event_lost"), 0);
        assert_eq!(told + count("event_limited"), 1_000_000);
    });
}

#[test]
fn expected_drops_are_counted_but_not_told() {
    place::run(|| {
        let mut bpf = place::load();
        set_pod(&mut bpf, lo());
        let control = ethernet(HOST_MAC, POD_MAC, 0x86dd, &ipv6(LINK_LOCAL, PEER6, 17, &udp(b"")));
        assert_eq!(run(&bpf, Program::FromPod, &control).drops, ["pod_control"]);
        run(&bpf, Program::FromPod, &spoofed());
        with_events(&bpf, async |mut events| {
            let told: Vec<_> = std::iter::from_fn(|| events.ready()).collect();
            let causes: Vec<_> = told.iter().map(|event| event.cause).collect();
            assert_eq!(causes, [DropCause::SpoofedSource]);
            let links: Vec<LinkIndex> = told.iter().map(|event| event.link).collect();
            assert_eq!(links, [lo()]);
        });
    });
}
