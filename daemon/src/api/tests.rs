//! The agent socket as the plugin sees it: real gRPC over a real socket, a node in memory behind it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::agent::agent_client::AgentClient;
use proto::agent::{
    AddRequest, Attachment, CheckRequest, DelRequest, Failure, GcRequest, Pod, Reason, Sandbox,
    StatusRequest,
};
use proto::failure::from_status;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tower::service_fn;

use super::access::Only;
use super::agent::AgentService;
use super::gate::{Gate, Health, NotReady, Serving, State};
use super::{server, socket};
use crate::pods::Pods;
use crate::pods::tests::world::World;
use crate::tasks::{End, Tasks};

const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Doctor(Mutex<Option<NotReady>>);

impl Health for Doctor {
    fn now(&self) -> Result<(), NotReady> {
        self.0.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

struct Daemon {
    dir: TempDir,
    world: World,
    pods: Arc<Pods>,
    gate: Gate,
    health: Arc<Doctor>,
    tasks: Tasks,
}

impl Daemon {
    fn start() -> Self {
        Self::start_for(nix::unistd::geteuid().as_raw())
    }

    fn start_for(uid: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let queue = dir.path().join("del-queue");
        let world = World::new(&queue);
        let tasks = Tasks::default();
        let pods = world.start_with(tasks.clone());
        let gate = Gate::new("waiting for the metadata service");
        let (listener, file) = socket::listen(&dir.path().join("run/agent.sock")).unwrap();
        let service = AgentService::server(gate.clone(), queue);
        let serve =
            server::serve(listener, service, Only { uid }, gate.clone(), tasks.stop().clone());
        tasks.part("agent", async move {
            let _file = file;
            serve.await
        });
        Self { dir, world, pods, gate, health: Arc::default(), tasks }
    }

    fn serve(&self) {
        let health = Arc::clone(&self.health);
        self.gate.set(State::Serving(Serving { pods: Arc::clone(&self.pods), health }));
    }

    async fn channel(&self) -> Channel {
        let path = self.dir.path().join("run/agent.sock");
        let connector = service_fn(move |_uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://terwayd").connect_with_connector(connector).await.unwrap()
    }

    async fn client(&self) -> AgentClient<Channel> {
        AgentClient::new(self.channel().await)
    }
}

fn sandbox(id: &str) -> Sandbox {
    let [network, ifname] = ["terway", "eth0"].map(str::to_owned);
    Sandbox { network, container_id: id.to_owned(), ifname }
}

fn pod() -> Pod {
    let [namespace, name, uid] = ["default", "web-0", ""].map(str::to_owned);
    Pod { namespace, name, uid }
}

fn add(id: &str) -> AddRequest {
    let netns = format!("/run/netns/{id}");
    AddRequest { sandbox: Some(sandbox(id)), netns, pod: Some(pod()), ..AddRequest::default() }
}

fn del(id: &str) -> DelRequest {
    DelRequest { sandbox: Some(sandbox(id)), netns: String::new(), pod: Some(pod()) }
}

fn failure(status: &Status) -> Failure {
    from_status(status).unwrap_or_else(|| panic!("no failure in {status:?}"))
}

#[tokio::test]
async fn a_pod_comes_is_checked_and_goes_over_the_wire() {
    let daemon = Daemon::start();
    daemon.serve();
    let mut client = daemon.client().await;
    let reply = client.add(add("a")).await.unwrap().into_inner();
    insta::assert_debug_snapshot!(reply, @r#"
    AddReply {
        interfaces: [
            Interface {
                name: "eth0",
                mac: "06:06:06:06:06:06",
                sandbox: "/run/netns/a",
                mtu: 1500,
            },
            Interface {
                name: "calia",
                mac: "04:04:04:04:04:04",
                sandbox: "",
                mtu: 1500,
            },
            Interface {
                name: "eth1",
                mac: "02:02:02:02:02:02",
                sandbox: "",
                mtu: 1500,
            },
        ],
        ips: [
            Ip {
                address: "10.0.1.1/32",
                gateway: "169.254.1.1",
                interface: 0,
            },
        ],
        routes: [
            Route {
                dst: "0.0.0.0/0",
                gw: "169.254.1.1",
            },
        ],
    }
    "#);
    let again = client.add(add("a")).await.unwrap().into_inner();
    assert_eq!(again, reply);

    let mut check = CheckRequest {
        sandbox: Some(sandbox("a")),
        netns: "/run/netns/a".to_owned(),
        pod: Some(pod()),
        interfaces: reply.interfaces,
        ips: reply.ips,
        routes: reply.routes,
    };
    client.check(check.clone()).await.unwrap();
    // What another plugin of the chain added is not ours to judge.
    check.routes.push(proto::agent::Route { dst: "10.9.0.0/16".to_owned(), gw: String::new() });
    client.check(check.clone()).await.unwrap();
    check.interfaces[0].mac = "00:00:00:00:00:09".to_owned();
    check.ips.clear();
    check.routes.clear();
    daemon.world.state().kernel.clear();
    let status = client.check(check).await.unwrap_err();
    let Failure { message, details, .. } = failure(&status);
    insta::assert_snapshot!(format!("{message}\n{details}"), @r#"
    CHECK of pod default/web-0 (container a, eth0): 4 differences to what the pod should have
    no link of terway/a/eth0
    prevResult gives eth0 the MAC 00:00:00:00:00:09, and it is 06:06:06:06:06:06
    prevResult lacks the address 10.0.1.1/32
    prevResult lacks the route to 0.0.0.0/0
    "#);

    client.del(del("a")).await.unwrap();
    client.del(del("a")).await.unwrap();
    daemon.world.agree(&daemon.pods);
    assert!(daemon.pods.list().is_empty());
}

#[tokio::test]
async fn gc_over_the_wire_keeps_what_is_valid() {
    let daemon = Daemon::start();
    daemon.serve();
    let mut client = daemon.client().await;
    client.add(add("a")).await.unwrap();
    client.add(add("b")).await.unwrap();
    let valid = Attachment { container_id: "b".to_owned(), ifname: "eth0".to_owned() };
    let request = GcRequest { network: "terway".to_owned(), valid: vec![valid] };
    assert_eq!(client.gc(request).await.unwrap().into_inner().removed, 1);
    daemon.world.agree(&daemon.pods);
    let error = client.gc(GcRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn before_it_serves_an_add_is_put_off_and_a_del_is_kept() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let status = client.status(StatusRequest {}).await.unwrap_err();
    let said = failure(&status);
    assert_eq!(said.reason(), Reason::NotAvailable);
    insta::assert_snapshot!(said.message, @"STATUS: terwayd is starting: waiting for the metadata service");
    let status = client.add(add("a")).await.unwrap_err();
    assert_eq!(failure(&status).reason(), Reason::TryAgainLater);
    client.del(del("a")).await.unwrap();
    assert_eq!(daemon.pods.queue_len().await.unwrap(), 1);

    daemon.serve();
    client.status(StatusRequest {}).await.unwrap();
    *daemon.health.0.lock().unwrap() = Some(NotReady::New("vSwitch vsw-1 is full".to_owned()));
    let said = failure(&client.status(StatusRequest {}).await.unwrap_err());
    assert_eq!(
        (said.reason(), said.message.as_str()),
        (Reason::NotAvailable, "STATUS: vSwitch vsw-1 is full")
    );
    let cut_off = NotReady::AndRunning("no program on eth1".to_owned());
    *daemon.health.0.lock().unwrap() = Some(cut_off);
    let said = failure(&client.status(StatusRequest {}).await.unwrap_err());
    assert_eq!(said.reason(), Reason::NotAvailableAndLimited);
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_named() {
    let daemon = Daemon::start();
    daemon.serve();
    let mut client = daemon.client().await;
    let mut request = add("a");
    request.netns.clear();
    let said = failure(&client.add(request).await.unwrap_err());
    assert_eq!(said.reason(), Reason::BadEnvironment);
    insta::assert_snapshot!(said.message, @"ADD of pod default/web-0 (container a, eth0): CNI_NETNS is missing");
    let error = client.del(DelRequest::default()).await.unwrap_err();
    assert_eq!(failure(&error).reason(), Reason::BadEnvironment);
    let error = client.check(CheckRequest::default()).await.unwrap_err();
    assert_eq!(failure(&error).reason(), Reason::BadEnvironment);
    assert!(daemon.world.state().log.is_empty());
}

#[tokio::test]
async fn another_user_gets_in_nowhere() {
    let daemon = Daemon::start_for(nix::unistd::geteuid().as_raw() + 1);
    daemon.serve();
    let status = daemon.client().await.status(StatusRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = daemon.client().await.add(add("a")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let mut health = HealthClient::new(daemon.channel().await);
    let status = health.check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(daemon.world.state().log.is_empty());
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_nothing() {
    let daemon = Daemon::start();
    daemon.serve();
    daemon.world.hold("allocate");
    let mut client = daemon.client().await;
    let mut request = Request::new(add("a"));
    request.set_timeout(Duration::from_millis(20));
    client.add(request).await.unwrap_err();
    daemon.world.begun("release", 1).await;
    daemon.world.go_on("allocate");
    daemon.tasks.stop().cancel();
    assert_eq!(daemon.tasks.finish(GRACE).await, End::Asked);
    daemon.world.agree(&daemon.pods);
    assert!(daemon.pods.list().is_empty());
}

#[tokio::test]
async fn the_stop_lets_what_is_in_hand_be_answered_and_takes_the_socket_along() {
    let daemon = Daemon::start();
    daemon.serve();
    daemon.world.hold("kernel.add");
    let mut client = daemon.client().await;
    let adding = tokio::spawn(async move { client.add(add("a")).await });
    daemon.world.begun("kernel.add", 1).await;
    daemon.tasks.stop().cancel();
    let finish = tokio::spawn({
        let tasks = daemon.tasks.clone();
        async move { tasks.finish(GRACE).await }
    });
    daemon.world.go_on("kernel.add");
    adding.await.unwrap().unwrap();
    assert_eq!(finish.await.unwrap(), End::Asked);
    assert!(!daemon.dir.path().join("run/agent.sock").exists());
    daemon.world.agree(&daemon.pods);
    assert_eq!(daemon.pods.list().len(), 1);
}

#[tokio::test]
async fn health_and_reflection_are_served_beside() {
    let daemon = Daemon::start();
    let mut health = HealthClient::new(daemon.channel().await);
    let request = HealthCheckRequest { service: "terway.agent.v1.Agent".to_owned() };
    let mut changes = health.watch(request.clone()).await.unwrap().into_inner();
    loop {
        let status = changes.message().await.unwrap().unwrap().status();
        if status == ServingStatus::NotServing {
            daemon.serve();
        } else if status == ServingStatus::Serving {
            break;
        }
    }
    let mut reflection = ServerReflectionClient::new(daemon.channel().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = reflection.server_reflection_info(tokio_stream::once(ask)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["grpc.health.v1.Health", "terway.agent.v1.Agent"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
}
