//! The benchmarks run to their ends and have figures; none of these tests judges a time.

use std::net::SocketAddr;
use std::path::Path;

use model::Mac;
use terway_lab::bench::generator::Generator;
use terway_lab::bench::{BenchOptions, Effort, add, forward};
use terway_lab::driver::staged;
use terway_lab::lab::LabOptions;
use terway_lab::namespace::Namespace;
use terway_lab::traffic::Frame;

fn frame(payload: usize) -> Frame {
    let address: SocketAddr = "192.0.2.1:9".parse().unwrap();
    let end = (Mac::new([2, 0, 0, 0, 0, 1]), address);
    Frame::udp(end, end, &vec![0; payload])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_figure_is_of_frames_that_all_came_through() {
    let path = Path::new("/run/netns/benchgen-lo");
    let (place, _pin) = Namespace::create(path).await.unwrap();
    let generator = Generator::load(&staged("bench.bpf.o").unwrap()).unwrap();

    let lost = generator.run(&place, "lo", &frame(22), 100).await.unwrap_err();
    assert!(format!("{lost:#}").contains("of 100 frames 0 came through"), "{lost:#}");

    let sink = generator.take_away_at(&place, "lo").await.unwrap();
    assert!(generator.run(&place, "lo", &frame(22), 1000).await.unwrap() > 0.0);
    let other = generator.run(&place, "lo", &frame(30), 100).await.unwrap_err();
    assert!(format!("{other:#}").contains("not 72"), "{other:#}");

    drop(sink);
    let lost = generator.run(&place, "lo", &frame(22), 100).await;
    assert!(lost.is_err(), "the sink is gone with its guard");
}

fn quick(name: &str) -> BenchOptions {
    let lab = LabOptions::for_test(name, 1).unwrap();
    std::fs::create_dir_all(&lab.directory).unwrap();
    let json = Some(lab.directory.with_extension("json"));
    BenchOptions { lab, effort: Effort::Quick, json }
}

/// The file that was asked for, and takes it away.
fn written(options: &BenchOptions) -> serde_json::Value {
    let file = options.json.as_ref().unwrap();
    let value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    std::fs::remove_file(file).unwrap();
    value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn add_and_del_are_measured_beside_ptp() {
    let options = quick("benchadd");
    let report = add::run(options.clone()).await.unwrap();
    let calls: Vec<_> = report.calls.iter().map(|one| (one.verb, one.pods)).collect();
    assert_eq!(calls, [("ADD", 0), ("DEL", 0), ("ADD", 4), ("DEL", 4)]);
    for one in report.floor.iter().chain(&report.calls) {
        assert!(one.ours.p50 > 0.0 && one.ours.p99 >= one.ours.p50, "{one:?}");
        assert_eq!((one.ours.count, one.ptp.count), (6, 6), "{one:?}");
    }
    assert_eq!(report.parallel.len(), 2);
    assert!(report.parallel.iter().all(|one| one.rate.p50 > 0.0 && one.each.count == 5));
    let text = report.to_string();
    assert!(text.contains("terway") && text.contains("ptp + host-local"), "{text}");
    let json = written(&options);
    assert_eq!(json["calls"][0]["ours"]["count"], 6);
    assert_eq!(json["parallel"][1]["peer"], "ptp + host-local");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarding_is_measured_with_few_and_more_pods() {
    let options = quick("benchfwd");
    let report = forward::run(options.clone()).await.unwrap();
    let ways: Vec<_> = report.ways.iter().map(|way| (way.family, way.pods)).collect();
    assert_eq!(ways, [(4, 2), (4, 4), (4, 2), (4, 4), (6, 2), (6, 4), (6, 2), (6, 4)]);
    for way in &report.ways {
        assert!(way.cost.p50 > 0.0 && way.enis > 0 && way.rules > 3, "{way:?}");
        assert_eq!(way.ratio.is_some(), way.pods == 4, "{way:?}");
    }
    assert!(report.to_string().contains("VPC -> pod, IPv6"));
    assert_eq!(written(&options)["ways"][0]["direction"], "in");
}
