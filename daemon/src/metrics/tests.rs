//! Names, labels, and what is counted.

use std::collections::BTreeMap;
use std::net::TcpListener;

use cloud::{
    AccessKey, AddressRequest, AssignAddresses, AssignPrefixes, AttachEni, CallOptions, Client,
    ClientOptions, ClientToken, CloudError, CreateEni, Credentials, DetachEni, EndpointOptions,
    Endpoints, EniFilter, NewEni, Priority, RateLimits,
};
use model::{EniId, InstanceId, InstanceTypeId, RegionId, VSwitchId};
use tokio::time::Instant;

use super::*;

#[test]
fn names_and_labels_are_these() {
    let metrics = Metrics::default();
    metrics.pool(&Pool::default());
    let waits = Box::new(BudgetWaits(Arc::new(client())));
    metrics.register(|registry| registry.register_collector(waits));
    let took = Duration::from_millis(250);
    for result in CallResult::ALL {
        metrics.cloud_call(cloud::Action::AttachNetworkInterface, result, took);
    }
    for action in cloud::Action::ALL {
        metrics.cloud_call(action, CallResult::Ok, took);
    }
    let mut lines: Vec<String> = metrics.text().lines().map(name_and_labels).collect();
    // One action's buckets are all actions'.
    lines.retain(|line| !line.contains("_bucket") || line.contains("AttachNetwork"));
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"));
}

/// A line without its value; what help says is not a promise.
fn name_and_labels(line: &str) -> String {
    match line.strip_prefix("# ") {
        Some(line) => line
            .split(' ')
            .take(if line.starts_with("HELP") { 2 } else { 3 })
            .collect::<Vec<_>>()
            .join(" "),
        None => line.rsplit_once(' ').map_or(line, |(name, _)| name).to_owned(),
    }
}

/// Nobody listens there.
fn client() -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    let region = RegionId::new("cn-hangzhou");
    let options = EndpointOptions {
        ecs: Some(nobody.clone()),
        vpc: Some(nobody),
        ..EndpointOptions::default()
    };
    let key = AccessKey { id: "AK".to_owned(), secret: "sesame".into() };
    let client = Client::new(ClientOptions {
        endpoints: Endpoints::new(&region, &options).unwrap(),
        region,
        credentials: Credentials::AccessKey(key),
        rate_limits: RateLimits::default(),
        attempt_timeout: Duration::from_secs(1),
        repeat_for: Duration::ZERO,
    });
    drop(listener);
    client.unwrap()
}

fn soon() -> CallOptions {
    CallOptions::new(Priority::Pod, Instant::now() + Duration::from_secs(5))
}

/// One call of each kind, all of which fail.
async fn all_calls(ecs: &impl cloud::Ecs) -> Vec<CloudError> {
    let (eni, instance) = (EniId::new("eni-1"), InstanceId::new("i-1"));
    let token = || ClientToken::from(uuid::Uuid::nil());
    let create = CreateEni {
        token: token(),
        kind: NewEni::Secondary,
        vswitch: VSwitchId::new("vsw-1"),
        security_groups: Vec::new(),
        secondary_v4: 1,
        v6: 0,
        v4_prefixes: 0,
        v6_prefixes: 0,
        tags: BTreeMap::new(),
        resource_group: None,
        delete_on_release: true,
        source_dest_check: true,
        description: None,
    };
    let attach =
        AttachEni { eni: eni.clone(), instance: instance.clone(), trunk: None, network_card: None };
    let detach = DetachEni { eni: eni.clone(), instance, trunk: None };
    let v4 =
        AssignAddresses { token: token(), eni: eni.clone(), addresses: AddressRequest::Any(1) };
    let v6 =
        AssignAddresses { token: token(), eni: eni.clone(), addresses: AddressRequest::Any(1) };
    let prefixes = AssignPrefixes { token: token(), eni: eni.clone(), count: 1 };
    let (one_v4, one_v6) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
    let (some_v4, some_v6) = ("10.0.0.0/28".parse().unwrap(), "fd00::/80".parse().unwrap());
    vec![
        ecs.create_eni(&create, soon()).await.unwrap_err(),
        ecs.describe_enis(&EniFilter::id(eni.clone()), soon()).await.unwrap_err(),
        ecs.attach_eni(&attach, soon()).await.unwrap_err(),
        ecs.detach_eni(&detach, soon()).await.unwrap_err(),
        ecs.delete_eni(&eni, soon()).await.unwrap_err(),
        ecs.assign_v4(&v4, soon()).await.unwrap_err(),
        ecs.unassign_v4(&eni, &[one_v4], soon()).await.unwrap_err(),
        ecs.assign_v6(&v6, soon()).await.unwrap_err(),
        ecs.unassign_v6(&eni, &[one_v6], soon()).await.unwrap_err(),
        ecs.assign_v4_prefixes(&prefixes, soon()).await.unwrap_err(),
        ecs.unassign_v4_prefixes(&eni, &[some_v4], soon()).await.unwrap_err(),
        ecs.assign_v6_prefixes(&prefixes, soon()).await.unwrap_err(),
        ecs.unassign_v6_prefixes(&eni, &[some_v6], soon()).await.unwrap_err(),
        ecs.instance_type(&InstanceTypeId::new("ecs.g7.large"), soon()).await.unwrap_err(),
        ecs.vswitch(&VSwitchId::new("vsw-1"), soon()).await.unwrap_err(),
    ]
}

#[tokio::test]
async fn each_call_to_the_cloud_is_counted_under_its_action_and_timed() {
    let (client, metrics) = (Arc::new(client()), Metrics::default());
    let measured = Measured::new(Arc::clone(&client), metrics.clone());
    metrics.register(|registry| registry.register_collector(Box::new(BudgetWaits(client))));
    let mut expected: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for error in all_calls(&measured).await {
        let action = error.action().name();
        let result = CallResult::from(&Err::<(), _>(error)).name();
        *expected.entry((action, result)).or_default() += 1;
    }
    let text = metrics.text();
    for ((action, result), count) in &expected {
        let line =
            format!(r#"terway_cloud_calls_total{{action="{action}",result="{result}"}} {count}"#);
        assert!(text.contains(&line), "{line}: {text}");
    }
    for action in cloud::Action::ALL {
        let timed = format!(r#"terway_cloud_call_duration_seconds_count{{action="{action}"}} "#);
        let waited = format!(r#"terway_cloud_budget_wait_seconds_total{{action="{action}"}} 0"#);
        assert!(text.contains(&timed) && text.contains(&waited), "{action}: {text}");
    }
}
