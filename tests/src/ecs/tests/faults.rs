//! What goes wrong on purpose.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CREATE, ENI, Lab};
use crate::ecs::{Fault, FaultKind, LostEffect};

#[tokio::test]
async fn a_lost_answer_is_lost_and_its_effect_is_there_or_comes_or_never_does() {
    let lab = Lab::new().await;
    for (effect, at_once, later) in
        [(LostEffect::Done, 1, 1), (LostEffect::LateMs(1000), 1, 2), (LostEffect::Never, 2, 2)]
    {
        lab.fault("CreateNetworkInterface", FaultKind::LostAnswer { effect }).await;
        assert_eq!(lab.send("CreateNetworkInterface", &CREATE).await, None);
        assert_eq!(lab.secondaries(), at_once, "{effect:?}");
        for _attempt in 0..1000 {
            if lab.secondaries() == later {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(lab.secondaries(), later, "{effect:?}");
    }
    let calls = lab.control.calls().await.unwrap();
    assert_eq!(calls.iter().filter(|call| call.outcome == "lost" && call.fault).count(), 3);
}

#[tokio::test]
async fn a_client_token_finds_the_eni_whose_answer_was_lost() {
    let lab = Lab::new().await;
    let pairs = [&CREATE[..], &[("ClientToken", "3f0c")]].concat();
    let lost = FaultKind::LostAnswer { effect: LostEffect::Done };
    lab.fault("CreateNetworkInterface", lost).await;
    assert_eq!(lab.send("CreateNetworkInterface", &pairs).await, None);
    let body = lab.call("CreateNetworkInterface", &pairs).await;
    assert_eq!(lab.status(body[ENI].as_str().unwrap()), "Available");
    assert_eq!(lab.secondaries(), 1);
}

#[tokio::test]
async fn a_token_whose_call_is_still_served_is_refused() {
    let lab = Lab::new().await;
    lab.fault("CreateNetworkInterface", FaultKind::Latency { ms: 3000 }).await;
    let pairs = [&CREATE[..], &[("ClientToken", "3f0c")]].concat();
    let other = [&pairs[..], &[("Description", "other")]].concat();
    let first = lab.send("CreateNetworkInterface", &pairs);
    let meanwhile = async {
        for _attempt in 0..2000 {
            if lab.ecs.lock().cloud.tokens.serving() > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let again = lab.refused("CreateNetworkInterface", &pairs).await;
        (again, lab.refused("CreateNetworkInterface", &other).await)
    };
    let (first, (again, other)) = tokio::join!(first, meanwhile);
    assert_eq!(again, "IdempotentFailed");
    assert_eq!(other, "IdempotentParameterMismatch");
    assert_eq!((first.unwrap().0, lab.secondaries()), (200, 1));
    lab.call("CreateNetworkInterface", &pairs).await;
    assert_eq!(lab.secondaries(), 1, "it is answered as before");
}

#[tokio::test]
async fn faults_refuse_delay_spoil_and_count_down() {
    let lab = Lab::new().await;
    let error = |takes_effect| FaultKind::Error {
        status: 500,
        code: "InternalError".to_owned(),
        takes_effect,
    };
    for (takes_effect, there) in [(false, 0), (true, 1)] {
        lab.fault("CreateNetworkInterface", error(takes_effect)).await;
        assert_eq!(lab.refused("CreateNetworkInterface", &CREATE).await, "InternalError");
        assert_eq!(lab.secondaries(), there);
    }
    lab.fault("DescribeNetworkInterfaces", FaultKind::Throttle).await;
    assert_eq!(lab.refused("DescribeNetworkInterfaces", &[]).await, "Throttling.User");
    lab.fault("DescribeNetworkInterfaces", FaultKind::Garbage).await;
    let (status, body) = lab.send("DescribeNetworkInterfaces", &[]).await.unwrap();
    assert_eq!(status, 200);
    assert!(serde_json::from_str::<Value>(&body).is_err());
    lab.fault("DescribeNetworkInterfaces", FaultKind::StaleRead { ms: 600_000 }).await;
    let body = lab.call("DescribeNetworkInterfaces", &[]).await;
    assert_eq!(body["TotalCount"], 0);
    lab.fault("DescribeNetworkInterfaces", FaultKind::Latency { ms: 200 }).await;
    let before = tokio::time::Instant::now();
    let body = lab.call("DescribeNetworkInterfaces", &[]).await;
    assert!(before.elapsed() >= Duration::from_millis(200));
    assert_eq!(body["TotalCount"], 2);
    assert_eq!(lab.control.faults().await.unwrap(), []);
}

#[tokio::test]
async fn a_member_may_lack_its_vlan_and_a_detach_may_stick() {
    let lab = Lab::new().await;
    let trunk = lab.create(&[("InstanceType", "Trunk")]).await;
    lab.attach(&trunk, &[]).await;
    let member = lab.create(&[]).await;
    let on_trunk = ("TrunkNetworkInstanceId", trunk.as_str());
    lab.attach(&member, &[on_trunk]).await;
    lab.fault("DescribeNetworkInterfaces", FaultKind::HideVlan).await;
    let asked = [("NetworkInterfaceId.1", member.as_str())];
    for expected in [json!(null), json!(1)] {
        let body = lab.call("DescribeNetworkInterfaces", &asked).await;
        let shown = &body["NetworkInterfaceSets"]["NetworkInterfaceSet"][0];
        assert_eq!(shown["Attachment"]["DeviceIndex"], expected);
    }
    lab.fault("DetachNetworkInterface", FaultKind::StuckDetach).await;
    let pairs = [(ENI, member.as_str()), ("InstanceId", lab.instance.as_str()), on_trunk];
    lab.call("DetachNetworkInterface", &pairs).await;
    assert_eq!((lab.status(&member).as_str(), lab.ecs.dump().in_flight), ("Detaching", 0));
    lab.call("DetachNetworkInterface", &pairs).await;
    lab.until(&member, "Available").await;
}

#[tokio::test]
async fn all_calls_are_throttled_for_a_while_and_then_none() {
    let lab = Lab::new().await;
    let throttle = Fault { for_ms: Some(1500), ..Fault::new("*", FaultKind::Throttle) };
    let began = tokio::time::Instant::now();
    lab.control.add_fault(&throttle).await.unwrap();
    for action in ["DescribeNetworkInterfaces", "DescribeInstances"] {
        assert_eq!(lab.refused(action, &[]).await, "Throttling.User");
    }
    for _attempt in 0..1000 {
        if lab.control.faults().await.unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(1500));
    lab.call("DescribeNetworkInterfaces", &[]).await;
}
