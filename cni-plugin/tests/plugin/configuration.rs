//! Configurations that are refused, each with its key and a cure; and those that are not.

use std::fmt::Write as _;
use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::{Answer, Daemon, Namespace, Seen, conf, conf_of, plugin, variables};

/// `msg | details` of each configuration, with its code.
fn refusals(confs: &[Value]) -> String {
    let mut text = String::new();
    for more in confs {
        let run = plugin(&variables("STATUS", &[]), &conf(more.clone()));
        let error: Value = serde_json::from_str(run.error()).unwrap();
        let details = error["details"].as_str().map(|it| format!(" | {it}")).unwrap_or_default();
        let msg = error["msg"].as_str().unwrap();
        writeln!(text, "{}: {msg}{details}", error["code"]).unwrap();
    }
    text
}

#[test]
fn stdin_that_is_no_configuration_is_a_failure_to_decode() {
    let mut text = String::new();
    for stdin in ["", " \n", "{", "[]", "\"x\"", "{\"a\":1}}", r#"{"cniVersion":1,"name":"n"}"#] {
        let run = plugin(&variables("ADD", &[]), stdin);
        text.push_str(run.error());
    }
    assert_snapshot!(text, @r#"
    {
      "cniVersion": "1.1.0",
      "code": 6,
      "msg": "the configuration on stdin is not a JSON object",
      "details": "it is empty; the runtime passes the network configuration there"
    }
    {
      "cniVersion": "1.1.0",
      "code": 6,
      "msg": "the configuration on stdin is not a JSON object",
      "details": "it is empty; the runtime passes the network configuration there"
    }
    {
      "cniVersion": "1.1.0",
      "code": 6,
      "msg": "the configuration on stdin is not a JSON object",
      "details": "EOF while parsing an object at line 1 column 1"
    }
    {
      "cniVersion": "1.1.0",
      "code": 6,
      "msg": "the configuration on stdin is not a JSON object",
      "details": "invalid type: sequence, expected a map at line 1 column 0"
    }
    {
      "cniVersion": "1.1.0",
      "code": 6,
      "msg": "the configuration on stdin is not a JSON object",
      "details": "invalid type: string \"x\", expected a map at line 1 column 3"
    }
    {
      "cniVersion": "1.1.0",
      "code": 6,
      "msg": "the configuration on stdin is not a JSON object",
      "details": "trailing characters at line 1 column 8"
    }
    {
      "cniVersion": "1.1.0",
      "code": 6,
      "msg": "the configuration on stdin is not a JSON object",
      "details": "cniVersion 1 is not a string"
    }
    "#);
}

#[test]
fn stdin_that_never_ends_is_not_read_to_its_end() {
    let mut endless = std::io::repeat(b' ');
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let code = cni_plugin::run(cni_plugin::Caller {
        env: &|name| (name == "CNI_COMMAND").then(|| "ADD".into()),
        stdin: &mut endless,
        stdout: &mut stdout,
        stderr: &mut stderr,
    });
    let stdout = String::from_utf8(stdout).unwrap();
    assert!(code == 1 && stdout.contains("\"code\": 6"), "{stdout}");
}

#[test]
fn versions_that_we_do_not_speak_are_refused_and_so_are_verbs_that_a_version_has_not() {
    let mut text = String::new();
    for (verb, version) in [
        ("ADD", json!("0.3.0")),
        ("ADD", json!("1.2.0")),
        ("DEL", json!(null)),
        ("CHECK", json!("0.3.1")),
        ("GC", json!("1.0.0")),
        ("STATUS", json!("0.4.0")),
    ] {
        let run = plugin(&variables(verb, &[]), &conf(json!({ "cniVersion": version })));
        text.push_str(run.error());
    }
    assert_snapshot!(text, @r#"
    {
      "cniVersion": "1.1.0",
      "code": 1,
      "msg": "cniVersion 0.3.0 is not supported",
      "details": "terway speaks 0.3.1, 0.4.0, 1.0.0, 1.1.0; set cniVersion in the network configuration"
    }
    {
      "cniVersion": "1.1.0",
      "code": 1,
      "msg": "cniVersion 1.2.0 is not supported",
      "details": "terway speaks 0.3.1, 0.4.0, 1.0.0, 1.1.0; set cniVersion in the network configuration"
    }
    {
      "cniVersion": "1.1.0",
      "code": 1,
      "msg": "cniVersion 0.1.0 (none is given) is not supported",
      "details": "terway speaks 0.3.1, 0.4.0, 1.0.0, 1.1.0; set cniVersion in the network configuration"
    }
    {
      "cniVersion": "0.3.1",
      "code": 1,
      "msg": "CHECK came with cniVersion 0.4.0; the configuration says 0.3.1",
      "details": "set cniVersion in the network configuration to 0.4.0 or later"
    }
    {
      "cniVersion": "1.0.0",
      "code": 1,
      "msg": "GC came with cniVersion 1.1.0; the configuration says 1.0.0",
      "details": "set cniVersion in the network configuration to 1.1.0 or later"
    }
    {
      "cniVersion": "0.4.0",
      "code": 1,
      "msg": "STATUS came with cniVersion 1.1.0; the configuration says 0.4.0",
      "details": "set cniVersion in the network configuration to 1.1.0 or later"
    }
    "#);
}

#[test]
fn a_key_that_nobody_knows_is_refused_by_name_with_the_one_that_was_meant() {
    assert_snapshot!(refusals(&[
        json!({ "agent_socket": "/run/x" }),
        json!({ "tiemout": 3 }),
        json!({ "colour": "blue" }),
        json!({ "runtimeConfig": { "bandwith": {} } }),
        json!({ "runtimeConfig": { "cgroupPath": "/x" } }),
        json!({ "runtimeConfig": { "bandwidth": { "ingressrate": 1 } } }),
    ]), @r#"
    7: unknown configuration key "agent_socket" | did you mean "agentSocket"?
    7: unknown configuration key "tiemout" | did you mean "timeout"?
    7: unknown configuration key "colour" | terway knows agentSocket, timeout, mtu, logLevel, logFile, runtimeConfig
    7: unknown configuration key "runtimeConfig.bandwith" | did you mean "runtimeConfig.bandwidth"?
    7: unknown configuration key "runtimeConfig.cgroupPath" | terway knows runtimeConfig.bandwidth, runtimeConfig.ips, runtimeConfig.mac, runtimeConfig.io.kubernetes.cri.pod-annotations
    7: unknown configuration key "runtimeConfig.bandwidth.ingressrate" | did you mean "runtimeConfig.bandwidth.ingressRate"?
    "#);
}

#[test]
fn a_value_that_is_not_one_is_refused_by_the_name_of_its_key() {
    assert_snapshot!(refusals(&[
        json!({ "name": null }),
        json!({ "name": "a/b" }),
        json!({ "name": 7 }),
        json!({ "agentSocket": "agent.sock" }),
        json!({ "agentSocket": 1 }),
        json!({ "timeout": "60s" }),
        json!({ "timeout": 0 }),
        json!({ "timeout": -1 }),
        json!({ "timeout": 1e300 }),
        json!({ "mtu": 576 }),
        json!({ "mtu": 1500.5 }),
        json!({ "logLevel": "trace" }),
        json!({ "logFile": "terway.log" }),
        json!({ "dns": ["10.0.0.1"] }),
        json!({ "ipam": "host-local" }),
        json!({ "prevResult": [] }),
        json!({ "prevResult": { "ips": {} } }),
        json!({ "prevResult": { "interfaces": ["eth0"] } }),
        json!({ "runtimeConfig": [] }),
        json!({ "runtimeConfig": { "bandwidth": { "ingressRate": -1 } } }),
        json!({ "runtimeConfig": { "bandwidth": { "egressBurst": "1M" } } }),
        json!({ "runtimeConfig": { "ips": ["10.0.0.7/33"] } }),
        json!({ "runtimeConfig": { "ips": ["10.0.0.7/"] } }),
        json!({ "runtimeConfig": { "ips": "10.0.0.7" } }),
        json!({ "runtimeConfig": { "mac": "01:00:00:00:00:01" } }),
        json!({ "runtimeConfig": { "mac": "02:00:00:00:00" } }),
        json!({ "runtimeConfig": { "io.kubernetes.cri.pod-annotations": { "a": 1 } } }),
        json!({ "cni.dev/valid-attachments": [{ "containerID": "c1" }] }),
        json!({ "ipMasq": 1 }),
    ]), @r#"
    7: configuration key name: the network has no name
    7: configuration key name: "a/b" is not made of letters, digits, '_', '.' and '-', a letter or digit first
    7: configuration key name: invalid type: integer `7`, expected a string
    7: configuration key agentSocket: agent.sock is not an absolute path
    7: configuration key agentSocket: invalid type: integer `1`, expected path string
    7: configuration key timeout: invalid type: string "60s", expected f64
    7: configuration key timeout: 0.0 is not 0.01 to 3600 seconds
    7: configuration key timeout: -1.0 is not 0.01 to 3600 seconds
    7: configuration key timeout: 1e+300 is not 0.01 to 3600 seconds
    7: configuration key mtu: 576 is not 1280 to 65535 bytes
    7: configuration key mtu: invalid type: floating point `1500.5`, expected u32
    7: configuration key logLevel: "trace" is not one of error, warn, info, debug
    7: configuration key logFile: terway.log is not an absolute path
    7: configuration key dns: invalid type: sequence, expected a map
    7: configuration key ipam: invalid type: string "host-local", expected a map
    7: configuration key prevResult: invalid type: sequence, expected a map
    7: configuration key prevResult.ips: invalid type: map, expected a sequence
    7: configuration key prevResult.interfaces: invalid type: string "eth0", expected a map
    7: configuration key runtimeConfig: invalid type: sequence, expected a map
    7: configuration key runtimeConfig.bandwidth.ingressRate: invalid value: integer `-1`, expected u64
    7: configuration key runtimeConfig.bandwidth.egressBurst: invalid type: string "1M", expected u64
    7: configuration key runtimeConfig.ips: "10.0.0.7/33" is not an address or CIDR
    7: configuration key runtimeConfig.ips: "10.0.0.7/" is not an address or CIDR
    7: configuration key runtimeConfig.ips: invalid type: string "10.0.0.7", expected a sequence
    7: configuration key runtimeConfig.mac: "01:00:00:00:00:01" is not a unicast hardware address
    7: configuration key runtimeConfig.mac: "02:00:00:00:00" is not a unicast hardware address
    7: configuration key runtimeConfig.io.kubernetes.cri.pod-annotations: invalid type: integer `1`, expected a string
    7: configuration key cni.dev/valid-attachments: missing field `ifname`
    7: configuration key ipMasq: invalid type: integer `1`, expected a boolean
    "#);
}

#[test]
fn masquerading_is_a_field_that_we_do_not_support() {
    let run = plugin(&variables("ADD", &[]), &conf(json!({ "ipMasq": true })));
    assert_snapshot!(run.error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 2,
      "msg": "unsupported field in the configuration: ipMasq = true",
      "details": "pods have addresses of the VPC: leave ipMasq out, and let a NAT gateway of the VPC translate"
    }
    "#);
}

#[test]
fn keys_of_the_specification_and_of_the_reference_are_accepted() {
    let (daemon, netns) = (Daemon::start(Answer::Succeed), Namespace::new());
    let conf = conf(json!({
        "agentSocket": daemon.socket(),
        "cniVersions": ["1.0.0", "1.1.0"],
        "capabilities": { "bandwidth": true },
        "args": { "cni": { "labels": [] } },
        "ipam": { "type": "host-local" },
        "ipMasq": false,
        "disableCheck": false,
        "cni.dev/anything": 1,
        "eniip_virtual_type": "veth",
        "host_stack_cidrs": ["169.254.20.10/32"],
        "symmetric_routing_config": {},
        "runtimeConfig": { "portMappings": [], "dns": {} },
    }));
    let variables = variables("ADD", &[("CNI_NETNS", netns.path())]);
    let run = plugin(&variables, &conf);
    run.result();
    let line = run.stderr.lines().find(|line| line.contains("without a meaning")).unwrap();
    assert_snapshot!(line, @r#"level=warn msg="configuration keys without a meaning here" keys=eniip_virtual_type,host_stack_cidrs,symmetric_routing_config,runtimeConfig.dns,runtimeConfig.portMappings,ipam"#);
}

#[test]
fn the_deadline_is_a_minute_or_what_the_configuration_says_and_for_status_two_seconds() {
    let daemon = Daemon::start(Answer::Succeed);
    let timeout = |verb, more: Value| {
        plugin(&variables(verb, &[]), &conf_of(&daemon, more)).result();
        daemon.timeout()
    };
    assert_eq!(timeout("DEL", json!({})), Duration::from_mins(1));
    assert_eq!(timeout("DEL", json!({ "timeout": 2.5 })), Duration::from_millis(2500));
    assert_eq!(timeout("STATUS", json!({ "timeout": 30 })), Duration::from_secs(2));
    assert_eq!(timeout("STATUS", json!({ "timeout": 1 })), Duration::from_secs(1));
    assert_eq!(daemon.seen().last(), Some(&Seen::Status));
}

#[test]
fn the_log_file_gets_what_stderr_gets() {
    let daemon = Daemon::start(Answer::Succeed);
    let file = daemon.dir.path().join("terway.log");
    let conf = conf(json!({ "agentSocket": daemon.socket(), "logFile": file }));
    let run = plugin(&variables("DEL", &[]), &conf);
    run.result();
    let text = std::fs::read_to_string(file).unwrap();
    let (time, line) = text.split_once(' ').unwrap();
    assert!(time.starts_with("time=20") && time.ends_with('Z'), "{time}");
    assert_eq!(line, run.stderr);
}

#[test]
fn the_conflist_that_the_daemon_installs_is_one_that_the_plugin_takes() {
    let list: Value = serde_json::from_str(proto::conflist::TEXT).unwrap();
    assert_eq!(list["cniVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    // As libcni makes a plugin's configuration from it.
    let mut conf = list["plugins"][0].clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = json!("1.1.0");
    let (daemon, netns) = (Daemon::start(Answer::Succeed), Namespace::new());
    conf["agentSocket"] = json!(daemon.socket());
    let mut runtime = serde_json::Map::new();
    for (capability, value) in [
        ("bandwidth", json!({ "ingressRate": 1 })),
        ("ips", json!(["10.0.1.7"])),
        ("mac", json!("02:00:00:00:00:01")),
        ("io.kubernetes.cri.pod-annotations", json!({ "a": "b" })),
    ] {
        assert_eq!(conf["capabilities"][capability], json!(true), "{capability}");
        runtime.insert(capability.to_owned(), value);
    }
    assert_eq!(conf["capabilities"].as_object().unwrap().len(), runtime.len());
    conf["runtimeConfig"] = Value::Object(runtime);
    let variables = variables("ADD", &[("CNI_NETNS", netns.path())]);
    plugin(&variables, &conf.to_string()).result();
}
