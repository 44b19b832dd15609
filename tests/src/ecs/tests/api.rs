//! The API over its socket.

use std::time::Duration;

use serde_json::Value;

use super::{ENI, Lab};
use crate::ecs::{FlowQuery, PluggedKind, Recorded, Settings};

#[tokio::test]
async fn a_trunk_and_a_member_are_plugged_and_taken_out_through_the_socket() {
    let lab = Lab::new().await;
    let trunk = lab.create(&[("InstanceType", "Trunk")]).await;
    lab.attach(&trunk, &[]).await;
    let member = lab.create(&[]).await;
    let on_trunk = ("TrunkNetworkInstanceId", trunk.as_str());
    lab.attach(&member, &[on_trunk]).await;
    let plugged: Vec<_> = lab
        .fabric
        .done()
        .into_iter()
        .filter_map(|done| match done {
            Recorded::Plug(eni) => Some((eni.kind, eni.instance)),
            _ => None,
        })
        .collect();
    assert_eq!(plugged[0], (PluggedKind::Primary, "node1".to_owned()));
    assert_eq!(plugged[1].0, PluggedKind::Trunk);
    assert!(matches!(&plugged[2].0, PluggedKind::Member { trunk: on, vlan }
        if on.as_str() == trunk && vlan.get() == 1));

    let shown = lab.call("DescribeNetworkInterfaces", &[("NetworkInterfaceId.1", &member)]).await;
    let shown = &shown["NetworkInterfaceSets"]["NetworkInterfaceSet"][0];
    assert_eq!(shown["Attachment"]["DeviceIndex"], 1);
    let pairs = [(ENI, member.as_str()), ("InstanceId", lab.instance.as_str()), on_trunk];
    lab.call("DetachNetworkInterface", &pairs).await;
    lab.until(&member, "Available").await;
    lab.call("DeleteNetworkInterface", &[(ENI, &member)]).await;
    assert_eq!(lab.status(&member), "gone");
    let unplugged =
        lab.fabric.done().into_iter().filter(|done| matches!(done, Recorded::Unplug(_)));
    assert_eq!(unplugged.count(), 1);
    lab.ecs.stop().await;
}

#[tokio::test]
async fn an_error_has_the_body_that_clients_expect() {
    let lab = Lab::new().await;
    let (status, body) = lab.send("DeleteNetworkInterface", &[(ENI, "eni-x")]).await.unwrap();
    assert_eq!(status, 404);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["Code"], "InvalidEniId.NotFound");
    assert_eq!(body["HostId"], lab.api.to_string());
    assert_eq!(body["RequestId"].as_str().unwrap().len(), 36);
    assert!(body["Message"].as_str().unwrap().contains("eni-x"));
    assert!(body["Recommend"].is_string());
    let counts = lab.control.dump().await.unwrap().calls;
    assert_eq!(counts["DeleteNetworkInterface"].outcomes["InvalidEniId.NotFound"], 1);
}

#[tokio::test]
async fn what_the_wires_refuse_is_an_internal_error_and_not_true() {
    let lab = Lab::new().await;
    let eni = lab.create(&[]).await;
    lab.attach(&eni, &[]).await;
    lab.fabric.refuse(Some("no route"));
    let pairs = [(ENI, eni.as_str()), ("SecondaryPrivateIpAddressCount", "2")];
    assert_eq!(lab.refused("AssignPrivateIpAddresses", &pairs).await, "InternalError");
    lab.fabric.refuse(None);
    let dump = lab.ecs.dump();
    assert_eq!(dump.failures, [format!("{eni}: no route")]);
    assert_eq!(dump.enis.last().unwrap().v4.len(), 1);
    assert_eq!(dump.in_flight, 0);
    lab.call("AssignPrivateIpAddresses", &pairs).await;
    assert_eq!(lab.ecs.dump().enis.last().unwrap().v4.len(), 3);
}

#[tokio::test]
async fn what_a_client_began_and_gave_up_is_done_to_the_end() {
    let lab = Lab::new().await;
    let eni = lab.create(&[]).await;
    lab.attach(&eni, &[]).await;
    let settings = Settings { write_ms: 1000, ..lab.control.settings().await.unwrap() };
    lab.control.set_settings(&settings).await.unwrap();
    let pairs = [(ENI, eni.as_str()), ("SecondaryPrivateIpAddressCount", "1")];
    let gave_up = tokio::time::timeout(
        Duration::from_millis(100),
        lab.send("AssignPrivateIpAddresses", &pairs),
    );
    assert!(gave_up.await.is_err());
    assert_eq!(lab.refused("AssignPrivateIpAddresses", &pairs).await, "Operation.Conflict");
    for _attempt in 0..200 {
        if lab.ecs.dump().in_flight == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(lab.ecs.dump().enis.last().unwrap().v4.len(), 2);
}

#[tokio::test]
async fn rules_reach_the_wires_before_the_answer_and_decide_the_verdict() {
    let lab = Lab::new().await;
    let eni = lab.create(&[]).await;
    let address = lab.ecs.dump().enis.last().unwrap().v4[0];
    let flow = FlowQuery {
        from: "192.0.2.1".parse().unwrap(),
        to: address.into(),
        protocol: "tcp".to_owned(),
        port: 80,
    };
    let before = lab.control.verdict(&flow).await.unwrap();
    assert_eq!((before.accepted, before.group.as_deref()), (false, Some("sg-a")), "{eni}");
    lab.call(
        "AuthorizeSecurityGroup",
        &[
            ("SecurityGroupId", "sg-a"),
            ("IpProtocol", "tcp"),
            ("PortRange", "80/80"),
            ("SourceCidrIp", "192.0.2.0/24"),
        ],
    )
    .await;
    assert!(matches!(lab.fabric.done().last(), Some(Recorded::SetRules(group))
        if group.rules.len() == 1));
    assert!(lab.control.verdict(&flow).await.unwrap().accepted);
    let own = FlowQuery { from: lab.ecs.dump().enis[0].v4[0].into(), port: 81, ..flow };
    assert!(lab.control.verdict(&own).await.unwrap().accepted, "of one group");
}

#[tokio::test]
async fn a_clock_that_is_ahead_refuses_and_tells_its_time() {
    let lab = Lab::new().await;
    let settings = Settings { clock_ahead_s: 1200, ..lab.ecs.settings() };
    lab.ecs.set_settings(settings).unwrap();
    assert_eq!(lab.refused("DescribeNetworkInterfaces", &[]).await, "InvalidTimeStamp.Expired");
    let response = lab.http.get(format!("http://{}/", lab.api)).send().await.unwrap();
    let date = response.headers()["date"].to_str().unwrap();
    let date = jiff::fmt::rfc2822::parse(date).unwrap().timestamp();
    let ahead = date.duration_since(crate::ecs::service::now()).as_secs();
    assert!((1190..=1210).contains(&ahead), "{ahead}");
}
