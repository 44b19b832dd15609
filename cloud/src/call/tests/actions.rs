//! What each action says and understands.

use super::*;

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let page = r#"{"NetworkInterfaceSets": {"NetworkInterfaceSet": [ENI]}, "NextToken": "NEXT"}"#;
    let page = |id: &str, next: &str| -> &'static str {
        let page = page.replace("ENI", &ENI.replace("eni-1", id)).replace("NEXT", next);
        page.leak()
    };
    let script = [page("eni-3", "a+/="), page("eni-2", "b"), page("eni-3", "")].map(Turn::Answer);
    let server = cloud(&script).await;
    let instance = InstanceId::new("i-1");
    let filter = EniFilter::instance(instance);
    let enis = client(&server.uri()).describe_enis(&filter, within(5_000)).await.unwrap();
    let ids: Vec<_> = enis.iter().map(|eni| eni.id.as_str()).collect();
    assert_eq!(ids, ["eni-2", "eni-3"], "each once, in the order of the ids");
    let asked: Vec<_> = requests(&server).await.iter().map(query_of).collect();
    let tokens: Vec<_> = asked.iter().map(|query| query.get("NextToken").cloned()).collect();
    assert_eq!(tokens, [None, Some("a+/=".to_owned()), Some("b".to_owned())]);
    assert!(asked.iter().all(|query| query["InstanceId"] == "i-1" && query["MaxResults"] == "500"));
    assert!(asked.iter().all(|query| query["RegionId"] == "cn-hangzhou"));

    let endless = cloud(&[Turn::Answer(page("eni-3", "same"))]).await;
    let error = client(&endless.uri()).describe_enis(&filter, within(5_000)).await.unwrap_err();
    assert!(error.to_string().contains("NextToken is the same as before"), "{error}");
}

#[tokio::test]
async fn the_release_of_what_is_gone_is_done() {
    let deadline = || within(5_000);
    let (eni, one) = (EniId::new("eni-1"), "10.0.1.5".parse::<Ipv4Addr>().unwrap());
    let two = [one, "10.0.1.6".parse().unwrap()];
    let detach = DetachEni { eni: eni.clone(), instance: InstanceId::new("i-1"), trunk: None };

    let no_eni = cloud(&[Turn::Refuse(404, "InvalidEniId.NotFound")]).await;
    let client_of = |server: &MockServer| client(&server.uri());
    let client = client_of(&no_eni);
    client.delete_eni(&eni, deadline()).await.unwrap();
    client.detach_eni(&detach, deadline()).await.unwrap();
    client.unassign_v4(&eni, &two, deadline()).await.unwrap();
    client.unassign_v6(&eni, &["2408::5".parse().unwrap()], deadline()).await.unwrap();
    let error = client.attach_eni(&attach(), deadline()).await.unwrap_err();
    assert_eq!(error.meaning(), Some(&Meaning::NotFound(Thing::Eni)));

    let no_instance = cloud(&[Turn::Refuse(404, "InvalidEcsId.NotFound")]).await;
    let client = client_of(&no_instance);
    client.detach_eni(&detach, deadline()).await.unwrap();
    client.delete_eni(&eni, deadline()).await.unwrap_err();

    let no_address = cloud(&[Turn::Refuse(403, "InvalidIp.IpUnassigned")]).await;
    let client = client_of(&no_address);
    client.unassign_v4(&eni, &[one], deadline()).await.unwrap();
    let error = client.unassign_v4(&eni, &two, deadline()).await.unwrap_err();
    assert_eq!(error.meaning(), Some(&Meaning::NotFound(Thing::Address)));
}

#[tokio::test]
async fn addresses_are_assigned_and_said() {
    let v4 = Turn::Answer(
        r#"{"AssignedPrivateIpAddressesSet": {"NetworkInterfaceId": "eni-1",
        "PrivateIpSet": {"PrivateIpAddress": ["10.0.1.7", "10.0.1.8"]}}, "RequestId": "r"}"#,
    );
    let v6 = Turn::Answer(r#"{"Ipv6Sets": {"Ipv6Address": ["2408::7"]}, "RequestId": "r"}"#);
    let server = cloud(&[v4, v6]).await;
    let client = client(&server.uri());
    let token = ClientToken::from(Uuid::nil());
    let eni = EniId::new("eni-1");
    let request = AssignAddresses {
        token: token.clone(),
        eni: eni.clone(),
        addresses: AddressRequest::Any(2),
    };
    let found = client.assign_v4(&request, within(5_000)).await.unwrap();
    assert_eq!(found, ["10.0.1.7", "10.0.1.8"].map(|text| text.parse::<Ipv4Addr>().unwrap()));
    let request = AssignAddresses { token, eni, addresses: AddressRequest::Any(1) };
    let found = client.assign_v6(&request, within(5_000)).await.unwrap();
    assert_eq!(found, ["2408::7".parse::<Ipv6Addr>().unwrap()]);
}

#[tokio::test]
async fn prefixes_are_assigned_and_said_and_taken_away() {
    let v4 = Turn::Answer(
        r#"{"AssignedPrivateIpAddressesSet": {"NetworkInterfaceId": "eni-1",
        "Ipv4PrefixSet": {"Ipv4Prefixes": ["10.0.1.16/28", "10.0.1.32/28"]}}, "RequestId": "r"}"#,
    );
    let v6 = Turn::Answer(
        r#"{"Ipv6PrefixSets": {"Ipv6Prefix": ["2408:0:0:0:1::/80"]}, "RequestId": "r"}"#,
    );
    let server = cloud(&[v4, DONE, v6, DONE]).await;
    let client = client(&server.uri());
    let eni = EniId::new("eni-1");
    let some = |count| {
        let (token, eni) = (ClientToken::from(Uuid::nil()), EniId::new("eni-1"));
        AssignPrefixes { token, eni, count }
    };
    let found = client.assign_v4_prefixes(&some(2), within(5_000)).await.unwrap();
    assert_eq!(found, ["10.0.1.16/28", "10.0.1.32/28"].map(|text| text.parse().unwrap()));
    client.unassign_v4_prefixes(&eni, &found, within(5_000)).await.unwrap();
    let found = client.assign_v6_prefixes(&some(1), within(5_000)).await.unwrap();
    assert_eq!(found, ["2408:0:0:0:1::/80".parse().unwrap()]);
    client.unassign_v6_prefixes(&eni, &found, within(5_000)).await.unwrap();

    let sent = requests(&server).await;
    let asked: Vec<_> = sent.iter().map(query_of).collect();
    assert_eq!(asked[0]["Ipv4PrefixCount"], "2");
    assert_eq!(asked[1]["Ipv4Prefix.2"], "10.0.1.32/28");
    assert_eq!(asked[2]["Ipv6PrefixCount"], "1");
    assert_eq!(asked[3]["Ipv6Prefix.1"], "2408::1:0:0:0/80");
    let actions: Vec<_> = sent.iter().map(|request| header(request, "x-acs-action")).collect();
    let expected = ["AssignPrivateIpAddresses", "UnassignPrivateIpAddresses"];
    assert_eq!(actions[..2], expected);
    assert_eq!(actions[2..], ["AssignIpv6Addresses", "UnassignIpv6Addresses"]);
}

#[tokio::test]
async fn what_the_cloud_does_not_know_is_none() {
    let empty = Turn::Answer(r#"{"InstanceTypes": {"InstanceType": []}, "VSwitches": {}}"#);
    let server = cloud(&[empty, empty, Turn::Refuse(400, "InvalidVSwitchId.NotFound")]).await;
    let client = client(&server.uri());
    let kind = InstanceTypeId::new("ecs.odd");
    assert_eq!(client.instance_type(&kind, within(5_000)).await, Ok(None));
    let vswitch = VSwitchId::new("vsw-1");
    assert_eq!(client.vswitch(&vswitch, within(5_000)).await, Ok(None));
    assert_eq!(client.vswitch(&vswitch, within(5_000)).await, Ok(None));
    let last = &requests(&server).await[2];
    assert_eq!(header(last, "x-acs-version"), "2016-04-28", "vSwitches are the VPC's");
}
