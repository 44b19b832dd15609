//! The control API over its socket.

use super::{ENI, Lab};
use crate::ecs::{Control, Fault, FaultKind, InstanceState, Recorded, Settings};

#[tokio::test]
async fn a_released_instance_gives_its_enis_up_members_first() {
    let lab = Lab::new().await;
    let trunk = lab.create(&[("InstanceType", "Trunk")]).await;
    lab.attach(&trunk, &[]).await;
    let member = lab.create(&[]).await;
    lab.attach(&member, &[("TrunkNetworkInstanceId", &trunk)]).await;
    let kept = lab.create(&[("DeleteOnRelease", "false")]).await;
    lab.attach(&kept, &[]).await;
    lab.control.release(lab.instance.as_str()).await.unwrap();
    let dump = lab.ecs.dump();
    assert_eq!(dump.instances, []);
    assert_eq!(dump.enis.len(), 1);
    assert_eq!(
        (dump.enis[0].id.as_str(), dump.enis[0].status.as_str()),
        (kept.as_str(), "Available")
    );
    let unplugged: Vec<_> = lab
        .fabric
        .done()
        .into_iter()
        .filter_map(|done| match done {
            Recorded::Unplug(eni) => Some(eni.id.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(unplugged.len(), 4);
    assert_eq!(unplugged[0], member);
    assert!(lab.control.release("i-gone").await.is_err());
}

#[tokio::test]
async fn an_eni_can_vanish_and_an_instance_can_stop() {
    let lab = Lab::new().await;
    let eni = lab.create(&[]).await;
    lab.attach(&eni, &[]).await;
    lab.control.vanish(&eni).await.unwrap();
    assert_eq!(lab.status(&eni), "gone");
    let pairs = [(ENI, eni.as_str()), ("InstanceId", lab.instance.as_str())];
    assert_eq!(lab.refused("DetachNetworkInterface", &pairs).await, "InvalidEniId.NotFound");
    let stopped = InstanceState::Stopped;
    lab.control.set_instance_state(lab.instance.as_str(), stopped).await.unwrap();
    assert_eq!(lab.ecs.dump().instances[0].state, stopped);
    let released = InstanceState::Released;
    assert!(lab.control.set_instance_state(lab.instance.as_str(), released).await.is_err());
}

#[tokio::test]
async fn the_control_api_refuses_what_it_does_not_know_and_says_why() {
    let lab = Lab::new().await;
    let fault = Fault::new("CreateENI", FaultKind::Throttle);
    let error = lab.control.add_fault(&fault).await.unwrap_err().to_string();
    assert!(error.contains("CreateENI"), "{error}");
    let throttle = || Fault::new("*", FaultKind::Throttle);
    for never in [
        Fault { times: Some(0), ..throttle() },
        Fault { for_ms: Some(0), ..throttle() },
        Fault { per_mille: Some(1001), ..throttle() },
    ] {
        assert!(lab.control.add_fault(&never).await.is_err(), "{never:?}");
    }
    let settings = Settings { api_lag_ms: 600_001, ..lab.ecs.settings() };
    assert!(lab.control.set_settings(&settings).await.is_err());
    lab.control.seed(7).await.unwrap();
    lab.control.forget_calls().await.unwrap();
    assert!(lab.control.dump().await.unwrap().calls.is_empty());
    let nobody = Control::new("http://127.0.0.1:9");
    assert!(nobody.dump().await.unwrap_err().to_string().contains("is it up?"));
}

#[tokio::test]
async fn a_test_may_leave_a_vswitch_in_fragments() {
    let lab = Lab::new().await;
    let eni = lab.create(&[]).await;
    let fragments = (1..15).map(|number| [10, 0, 1, number * 16].into());
    lab.control.reserve("vsw-a", fragments.collect()).await.unwrap();
    let ask = [(ENI, eni.as_str()), ("Ipv4PrefixCount", "1")];
    let code = lab.refused("AssignPrivateIpAddresses", &ask).await;
    assert_eq!(code, "InvalidVSwitchId.IpNotEnough");
    let dump = lab.control.dump().await.unwrap();
    assert_eq!((dump.vswitches[0].reserved.len(), dump.vswitches[0].available), (14, 236));
    lab.control.reserve("vsw-a", [].into()).await.unwrap();
    lab.call("AssignPrivateIpAddresses", &ask).await;
    let dump = lab.control.dump().await.unwrap();
    assert_eq!(dump.vswitches[0].available, 234);
    assert_eq!(dump.enis.last().unwrap().v4_prefixes[0].to_string(), "10.0.1.16/28");
    assert!(lab.control.reserve("vsw-x", [].into()).await.is_err());
}
