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

    let around = [page("eni-3", "a"), page("eni-2", "b"), page("eni-3", "a")].map(Turn::Answer);
    let endless = cloud(&around).await;
    let error = client(&endless.uri()).describe_enis(&filter, within(5_000)).await.unwrap_err();
    assert!(error.to_string().contains("NextToken is one of before"), "{error}");
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

fn some(addresses: AddressRequest<Ipv4Addr>) -> AssignAddresses<Ipv4Addr> {
    AssignAddresses { token: ClientToken::from(Uuid::nil()), eni: EniId::new("eni-1"), addresses }
}

#[tokio::test]
async fn what_breaks_a_limit_of_one_call_is_not_sent_and_names_it() {
    let server = cloud(&[DONE]).await;
    let client = client(&server.uri());
    let eni = EniId::new("eni-1");
    let v4: Vec<Ipv4Addr> = (0..33).map(|last| Ipv4Addr::new(10, 0, 1, last)).collect();
    let v6: Vec<Ipv6Addr> = v4.iter().map(Ipv4Addr::to_ipv6_mapped).collect();
    let v4_prefixes = vec!["10.0.1.16/28".parse().unwrap(); 11];
    let v6_prefixes = vec!["2408::/80".parse().unwrap(); 11];
    let prefixes = |count| {
        let (token, eni) = (ClientToken::from(Uuid::nil()), EniId::new("eni-1"));
        AssignPrefixes { token, eni, count }
    };
    let v6_of = |addresses| {
        let (token, eni) = (ClientToken::from(Uuid::nil()), EniId::new("eni-1"));
        AssignAddresses { token, eni, addresses }
    };
    let tags: BTreeMap<_, _> = (0..21).map(|n| (n.to_string(), String::new())).collect();
    let ids = vec![eni.clone(); 101];
    let within = within(5_000);
    let errors = [
        client.create_eni(&CreateEni { secondary_v4: 50, ..create() }, within).await.err(),
        client.create_eni(&CreateEni { v6: 11, ..create() }, within).await.err(),
        client.create_eni(&CreateEni { v6_prefixes: 11, ..create() }, within).await.err(),
        client.create_eni(&CreateEni { v4_prefixes: 1, ..create() }, within).await.err(),
        client.create_eni(&CreateEni { security_groups: vec![], ..create() }, within).await.err(),
        client.create_eni(&CreateEni { tags, ..create() }, within).await.err(),
        client.describe_enis(&EniFilter { ids, ..EniFilter::default() }, within).await.err(),
        client.assign_v4(&some(AddressRequest::Any(50)), within).await.err(),
        client.assign_v4(&some(AddressRequest::These(vec![])), within).await.err(),
        client.assign_v6(&v6_of(AddressRequest::These(v6.clone())), within).await.err(),
        client.assign_v4_prefixes(&prefixes(0), within).await.err(),
        client.assign_v6_prefixes(&prefixes(11), within).await.err(),
        client.unassign_v4(&eni, &v4, within).await.err(),
        client.unassign_v6(&eni, &v6[..11], within).await.err(),
        client.unassign_v4_prefixes(&eni, &v4_prefixes, within).await.err(),
        client.unassign_v6_prefixes(&eni, &v6_prefixes, within).await.err(),
    ];
    let errors: Vec<_> = errors.into_iter().map(Option::unwrap).collect();
    let said: Vec<_> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    CreateNetworkInterface: not sent, for it has 50 as SecondaryPrivateIpAddressCount, and the API takes 0 to 49 in a call
    CreateNetworkInterface: not sent, for it has 11 as Ipv6AddressCount, and the API takes 0 to 10 in a call
    CreateNetworkInterface: not sent, for it has 11 as Ipv6PrefixCount, and the API takes 0 to 10 in a call
    CreateNetworkInterface: not sent, for it has SecondaryPrivateIpAddressCount and Ipv4PrefixCount, and the API takes one of them in a call
    CreateNetworkInterface: not sent, for it has 0 as SecurityGroupIds, and the API takes 1 to 10 in a call
    CreateNetworkInterface: not sent, for it has 21 as Tag, and the API takes 0 to 20 in a call
    DescribeNetworkInterfaces: not sent, for it has 101 as NetworkInterfaceId, and the API takes 0 to 100 in a call
    AssignPrivateIpAddresses: not sent, for it has 50 as SecondaryPrivateIpAddressCount, and the API takes 1 to 49 in a call
    AssignPrivateIpAddresses: not sent, for it has 0 as PrivateIpAddress, and the API takes 1 to 49 in a call
    AssignIpv6Addresses: not sent, for it has 33 as Ipv6Address, and the API takes 1 to 10 in a call
    AssignPrivateIpAddresses: not sent, for it has 0 as Ipv4PrefixCount, and the API takes 1 to 10 in a call
    AssignIpv6Addresses: not sent, for it has 11 as Ipv6PrefixCount, and the API takes 1 to 10 in a call
    UnassignPrivateIpAddresses: not sent, for it has 33 as PrivateIpAddress, and the API takes 1 to 32 in a call
    UnassignIpv6Addresses: not sent, for it has 11 as Ipv6Address, and the API takes 1 to 10 in a call
    UnassignPrivateIpAddresses: not sent, for it has 11 as Ipv4Prefix, and the API takes 1 to 10 in a call
    UnassignIpv6Addresses: not sent, for it has 11 as Ipv6Prefix, and the API takes 1 to 10 in a call
    ");
    assert!(errors.iter().all(|error| error.outcome() == Outcome::None && error.api().is_none()));
    assert!(requests(&server).await.is_empty());
}

#[tokio::test]
async fn what_just_holds_a_limit_is_sent() {
    let server = cloud(&[DONE]).await;
    let client = client(&server.uri());
    let eni = EniId::new("eni-1");
    let v4: Vec<Ipv4Addr> = (0..32).map(|last| Ipv4Addr::new(10, 0, 1, last)).collect();
    let v6: Vec<Ipv6Addr> = v4.iter().map(Ipv4Addr::to_ipv6_mapped).collect();
    client.unassign_v4(&eni, &v4, within(5_000)).await.unwrap();
    client.unassign_v6(&eni, &v6[..10], within(5_000)).await.unwrap();
    let prefixes = vec!["10.0.1.16/28".parse().unwrap(); 10];
    client.unassign_v4_prefixes(&eni, &prefixes, within(5_000)).await.unwrap();
    assert_eq!(requests(&server).await.len(), 3);
}

#[tokio::test]
async fn every_call_but_that_for_instance_types_names_the_region() {
    let server = cloud(&[Turn::Refuse(400, "InvalidParameter")]).await;
    let client = client(&server.uri());
    let (eni, within) = (EniId::new("eni-1"), within(5_000));
    let detach = DetachEni { eni: eni.clone(), instance: InstanceId::new("i-1"), trunk: None };
    client.create_eni(&create(), within).await.unwrap_err();
    client.describe_enis(&EniFilter::default(), within).await.unwrap_err();
    client.attach_eni(&attach(), within).await.unwrap_err();
    client.detach_eni(&detach, within).await.unwrap_err();
    client.delete_eni(&eni, within).await.unwrap_err();
    client.assign_v4(&some(AddressRequest::Any(1)), within).await.unwrap_err();
    client.unassign_v4(&eni, &[Ipv4Addr::LOCALHOST], within).await.unwrap_err();
    client.unassign_v6(&eni, &[Ipv6Addr::LOCALHOST], within).await.unwrap_err();
    client.vswitch(&VSwitchId::new("vsw-1"), within).await.unwrap_err();
    client.instance_type(&InstanceTypeId::new("ecs.g7.large"), within).await.unwrap_err();
    let asked = requests(&server).await;
    let (last, others) = asked.split_last().unwrap();
    for request in others {
        assert_eq!(query_of(request)["RegionId"], "cn-hangzhou", "{}", request.url);
    }
    assert!(!query_of(last).contains_key("RegionId"), "its grammar has none");
}
