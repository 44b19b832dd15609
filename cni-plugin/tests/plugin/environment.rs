//! Environments that are refused, and namespaces.

use insta::assert_snapshot;
use serde_json::json;

use crate::support::{Answer, Daemon, Namespace, Seen, conf, plugin, variables};

#[test]
fn variables_that_are_missing_are_all_named() {
    let conf = conf(json!({}));
    let mut text = plugin(&[], &conf).error().to_owned();
    text.push_str(plugin(&[("CNI_COMMAND", "ADD")], &conf).error());
    text.push_str(plugin(&[("CNI_COMMAND", "DEL")], &conf).error());
    text.push_str(plugin(&[("CNI_COMMAND", "CHECK"), ("CNI_IFNAME", "eth0")], &conf).error());
    assert_snapshot!(text, @r#"
    {
      "cniVersion": "1.1.0",
      "code": 4,
      "msg": "not set in the environment: CNI_COMMAND",
      "details": "terway 0.1.0 is a CNI plugin, run by a container runtime: see the parameters in the CNI specification 1.1.0, section 2"
    }
    {
      "cniVersion": "1.1.0",
      "code": 4,
      "msg": "not set in the environment: CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME",
      "details": "terway 0.1.0 is a CNI plugin, run by a container runtime: see the parameters in the CNI specification 1.1.0, section 2"
    }
    {
      "cniVersion": "1.1.0",
      "code": 4,
      "msg": "not set in the environment: CNI_CONTAINERID, CNI_IFNAME",
      "details": "terway 0.1.0 is a CNI plugin, run by a container runtime: see the parameters in the CNI specification 1.1.0, section 2"
    }
    {
      "cniVersion": "1.1.0",
      "code": 4,
      "msg": "not set in the environment: CNI_CONTAINERID, CNI_NETNS",
      "details": "terway 0.1.0 is a CNI plugin, run by a container runtime: see the parameters in the CNI specification 1.1.0, section 2"
    }
    "#);
}

#[test]
fn variables_that_are_wrong_are_named_with_what_is_expected() {
    let mut text = String::new();
    for (name, value) in [
        ("CNI_COMMAND", "add"),
        ("CNI_CONTAINERID", "../c1"),
        ("CNI_IFNAME", "a-name-too-long-"),
        ("CNI_NETNS", "netns/pod"),
        ("CNI_ARGS", "K8S_POD_NAME=web-0"),
        ("CNI_ARGS", "K8S_POD_NAME"),
    ] {
        let run = plugin(&variables("DEL", &[(name, value)]), &conf(json!({})));
        text.push_str(run.error());
    }
    assert_snapshot!(text, @r#"
    {
      "cniVersion": "1.1.0",
      "code": 4,
      "msg": "CNI_COMMAND=\"add\": expected ADD, DEL, CHECK, GC, STATUS or VERSION"
    }
    {
      "cniVersion": "1.1.0",
      "code": 4,
      "msg": "CNI_CONTAINERID=\"../c1\": expected letters, digits, '_', '.' and '-', a letter or digit first"
    }
    {
      "cniVersion": "1.1.0",
      "code": 4,
      "msg": "CNI_IFNAME=\"a-name-too-long-\": expected 1 to 15 bytes without '/', ':', '%' and blanks, and not lo, all or default"
    }
    {
      "cniVersion": "1.1.0",
      "code": 4,
      "msg": "CNI_NETNS=\"netns/pod\": expected an absolute path"
    }
    {
      "cniVersion": "1.1.0",
      "code": 4,
      "msg": "CNI_ARGS=\"K8S_POD_NAME=web-0\": expected K8S_POD_NAMESPACE and K8S_POD_NAME, both or neither"
    }
    {
      "cniVersion": "1.1.0",
      "code": 4,
      "msg": "CNI_ARGS=\"K8S_POD_NAME\": expected pairs KEY=VALUE with ';' between them"
    }
    "#);
}

#[test]
fn a_namespace_that_is_not_there_ends_add_and_check_but_not_del() {
    let daemon = Daemon::start(Answer::Succeed);
    let conf = conf(json!({ "agentSocket": daemon.socket(), "prevResult": {} }));
    let gone = [("CNI_NETNS", "/run/netns/gone-with-the-pod")];
    let file = [("CNI_NETNS", "/dev/null")];
    let mut text = plugin(&variables("ADD", &gone), &conf).error().to_owned();
    text.push_str(plugin(&variables("CHECK", &file), &conf).error());
    assert_snapshot!(text, @r#"
    {
      "cniVersion": "1.1.0",
      "code": 3,
      "msg": "pod shop/web-0: the network namespace /run/netns/gone-with-the-pod does not exist",
      "details": "the sandbox is gone or was never made; nothing was set up"
    }
    {
      "cniVersion": "1.1.0",
      "code": 3,
      "msg": "pod shop/web-0: the network namespace /dev/null is only a file",
      "details": "the sandbox is gone or was never made; nothing was set up"
    }
    "#);
    assert_eq!(daemon.seen(), [], "the daemon was not asked");

    plugin(&variables("DEL", &gone), &conf).result();
    plugin(&variables("DEL", &file), &conf).result();
    assert_eq!(daemon.seen().len(), 2);
}

#[test]
fn the_plugins_own_namespace_is_refused() {
    let daemon = Daemon::start(Answer::Succeed);
    let conf = conf(json!({ "agentSocket": daemon.socket(), "prevResult": {} }));
    let own = [("CNI_NETNS", "/proc/self/ns/net")];
    assert_snapshot!(plugin(&variables("ADD", &own), &conf).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 8,
      "msg": "pod shop/web-0: the network namespace /proc/self/ns/net is the one of the plugin itself",
      "details": "the runtime has to make a network namespace for the sandbox and name it in CNI_NETNS; a pod in the node's own network needs no plugin"
    }
    "#);
    assert!(plugin(&variables("CHECK", &own), &conf).error().contains("\"code\": 8"));
    assert_eq!(daemon.seen(), [], "the daemon was not asked");
}

#[test]
fn a_del_goes_on_without_the_plugins_own_namespace() {
    let daemon = Daemon::start(Answer::Succeed);
    let conf = conf(json!({ "agentSocket": daemon.socket() }));
    let run = plugin(&variables("DEL", &[("CNI_NETNS", "/proc/self/ns/net")]), &conf);
    run.result();
    assert!(run.stderr.contains("level=warn"), "{}", run.stderr);
    let Seen::Del(request) = daemon.seen().remove(0) else { panic!("{:?}", daemon.seen()) };
    assert_eq!(request.netns, "");
}

#[test]
fn without_kubernetes_the_sandbox_is_the_identity() {
    let (daemon, netns) = (Daemon::start(Answer::Succeed), Namespace::new());
    let conf = conf(json!({ "agentSocket": daemon.socket() }));
    let variables = variables("ADD", &[("CNI_ARGS", ""), ("CNI_NETNS", netns.path())]);
    plugin(&variables, &conf).result();
    let Seen::Add(request) = daemon.seen().remove(0) else { panic!("{:?}", daemon.seen()) };
    assert_eq!(request.pod, None);
    assert_eq!(request.sandbox.unwrap().container_id, "c1");
}
