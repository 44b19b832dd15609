//! Many pods at once, from an empty pool, by a slow cloud: what it is asked. How long it takes is
//! measured by `cargo xtask bench burst`.

use terway_lab::bench::burst::{Demand, once};
use terway_lab::lab::LabOptions;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_pods_at_once_cost_the_cloud_no_more_calls_than_their_batches() {
    // All 60 have asked before the first ENI is there, however slow this machine is.
    let demand = Demand { create_ms: 5000, ..Demand::ISSUE };
    let options = LabOptions::for_test("burst", 1).unwrap();
    let burst = once(options, demand).await.unwrap();
    let (bound, calls) = (burst.bound, &burst.calls);
    assert_eq!((bound.bringing, bound.enis_least, bound.enis), (6, 2, 6));
    // The first that come do not wait until a batch is full: what they leave of it is one call more.
    let bringing = u64::from(bound.bringing);
    assert!((bringing..=bringing + 1).contains(&burst.bringing()), "{calls:?}");
    assert!((u64::from(bound.enis_least)..=bringing).contains(&burst.making()), "{calls:?}");
    assert_eq!(burst.attaching(), burst.making(), "{calls:?}");
    // Nothing else is changed, and nothing is given back meanwhile.
    let reads = ["DescribeNetworkInterfaces", "DescribeVSwitches"];
    let changes = calls.iter().filter(|(action, _)| !reads.contains(&action.as_str()));
    let changes: u64 = changes.map(|(_, count)| *count).sum();
    assert_eq!(changes, burst.bringing() + burst.attaching(), "{calls:?}");
}
