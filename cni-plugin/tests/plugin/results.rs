//! Results of ADD and VERSION, in the layout of each version.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::{Answer, Daemon, Namespace, Run, conf_of, plugin, variables};

fn add(more: Value) -> Run {
    let (daemon, netns) = (Daemon::start(Answer::Succeed), Namespace::new());
    plugin(&variables("ADD", &[("CNI_NETNS", netns.path())]), &conf_of(&daemon, more))
}

#[test]
fn a_result_of_1_1_0_has_the_mtu() {
    assert_snapshot!(add(json!({})).result(), @r#"
    {
      "cniVersion": "1.1.0",
      "interfaces": [
        {
          "mac": "0a:58:0a:00:01:07",
          "mtu": 1500,
          "name": "eth0",
          "sandbox": "/run/netns/pod"
        },
        {
          "mac": "ee:ee:ee:ee:ee:ee",
          "mtu": 1500,
          "name": "cali0123456789a"
        },
        {
          "mac": "00:16:3e:00:00:02",
          "mtu": 1500,
          "name": "eth1"
        }
      ],
      "ips": [
        {
          "address": "10.0.1.7/32",
          "gateway": "169.254.1.1",
          "interface": 0
        },
        {
          "address": "2408:4005::7/128",
          "gateway": "fe80::1",
          "interface": 0
        }
      ],
      "routes": [
        {
          "dst": "0.0.0.0/0",
          "gw": "169.254.1.1"
        },
        {
          "dst": "::/0",
          "gw": "fe80::1"
        }
      ]
    }
    "#);
}

#[test]
fn a_result_of_1_0_0_has_no_mtu() {
    assert_snapshot!(add(json!({ "cniVersion": "1.0.0" })).result(), @r#"
    {
      "cniVersion": "1.0.0",
      "interfaces": [
        {
          "mac": "0a:58:0a:00:01:07",
          "name": "eth0",
          "sandbox": "/run/netns/pod"
        },
        {
          "mac": "ee:ee:ee:ee:ee:ee",
          "name": "cali0123456789a"
        },
        {
          "mac": "00:16:3e:00:00:02",
          "name": "eth1"
        }
      ],
      "ips": [
        {
          "address": "10.0.1.7/32",
          "gateway": "169.254.1.1",
          "interface": 0
        },
        {
          "address": "2408:4005::7/128",
          "gateway": "fe80::1",
          "interface": 0
        }
      ],
      "routes": [
        {
          "dst": "0.0.0.0/0",
          "gw": "169.254.1.1"
        },
        {
          "dst": "::/0",
          "gw": "fe80::1"
        }
      ]
    }
    "#);
}

#[test]
fn results_before_1_0_0_say_the_family_of_each_address() {
    let old = add(json!({ "cniVersion": "0.4.0" }));
    assert_snapshot!(old.result(), @r#"
    {
      "cniVersion": "0.4.0",
      "interfaces": [
        {
          "mac": "0a:58:0a:00:01:07",
          "name": "eth0",
          "sandbox": "/run/netns/pod"
        },
        {
          "mac": "ee:ee:ee:ee:ee:ee",
          "name": "cali0123456789a"
        },
        {
          "mac": "00:16:3e:00:00:02",
          "name": "eth1"
        }
      ],
      "ips": [
        {
          "address": "10.0.1.7/32",
          "gateway": "169.254.1.1",
          "interface": 0,
          "version": "4"
        },
        {
          "address": "2408:4005::7/128",
          "gateway": "fe80::1",
          "interface": 0,
          "version": "6"
        }
      ],
      "routes": [
        {
          "dst": "0.0.0.0/0",
          "gw": "169.254.1.1"
        },
        {
          "dst": "::/0",
          "gw": "fe80::1"
        }
      ]
    }
    "#);
    let older = add(json!({ "cniVersion": "0.3.1" }));
    assert_eq!(older.result(), old.result().replace("0.4.0", "0.3.1"));
}

#[test]
fn the_previous_result_is_extended_and_what_stood_in_it_is_not_touched() {
    let previous = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{ "name": "br0", "mac": "02:00:00:00:00:01", "mtu": 9000, "pciID": "x" }],
        "ips": [{ "address": "192.0.2.1/24", "interface": 0 }, { "address": "192.0.2.2/24" }],
        "routes": [{ "dst": "192.0.2.0/24", "advmss": 1400 }],
        "dns": { "nameservers": ["192.0.2.53"] },
        "example.org/more": { "kept": true },
    });
    assert_snapshot!(add(json!({ "prevResult": previous })).result(), @r#"
    {
      "cniVersion": "1.1.0",
      "interfaces": [
        {
          "mac": "02:00:00:00:00:01",
          "mtu": 9000,
          "name": "br0",
          "pciID": "x"
        },
        {
          "mac": "0a:58:0a:00:01:07",
          "mtu": 1500,
          "name": "eth0",
          "sandbox": "/run/netns/pod"
        },
        {
          "mac": "ee:ee:ee:ee:ee:ee",
          "mtu": 1500,
          "name": "cali0123456789a"
        },
        {
          "mac": "00:16:3e:00:00:02",
          "mtu": 1500,
          "name": "eth1"
        }
      ],
      "ips": [
        {
          "address": "192.0.2.1/24",
          "interface": 0
        },
        {
          "address": "192.0.2.2/24"
        },
        {
          "address": "10.0.1.7/32",
          "gateway": "169.254.1.1",
          "interface": 1
        },
        {
          "address": "2408:4005::7/128",
          "gateway": "fe80::1",
          "interface": 1
        }
      ],
      "routes": [
        {
          "advmss": 1400,
          "dst": "192.0.2.0/24"
        },
        {
          "dst": "0.0.0.0/0",
          "gw": "169.254.1.1"
        },
        {
          "dst": "::/0",
          "gw": "fe80::1"
        }
      ],
      "dns": {
        "nameservers": [
          "192.0.2.53"
        ]
      },
      "example.org/more": {
        "kept": true
      }
    }
    "#);
}

#[test]
fn a_previous_result_may_be_empty() {
    let nothing = json!({ "interfaces": null, "ips": null, "routes": null, "dns": null });
    assert_eq!(add(json!({ "prevResult": nothing })).result(), add(json!({})).result());
    assert_eq!(add(json!({ "prevResult": null })).result(), add(json!({})).result());
}

#[test]
fn the_dns_of_the_configuration_goes_to_the_result_as_it_is() {
    let dns = json!({ "nameservers": ["100.100.2.136"], "search": ["svc.local"], "options": [] });
    let previous = json!({ "dns": { "nameservers": ["192.0.2.53"] } });
    for conf in [json!({ "dns": dns }), json!({ "dns": dns, "prevResult": previous })] {
        let result: Value = serde_json::from_str(add(conf).result()).unwrap();
        assert_eq!(result["dns"], dns);
    }
    let without = json!({ "dns": {}, "prevResult": previous });
    let result: Value = serde_json::from_str(add(without).result()).unwrap();
    assert_eq!(result["dns"], previous["dns"]);
}

#[test]
fn version_lists_all_versions_and_echoes_the_callers() {
    let version = |stdin: &str| plugin(&[("CNI_COMMAND", "VERSION")], stdin);
    assert_snapshot!(version(r#"{ "cniVersion": "0.4.0" }"#).result(), @r#"
    {
      "cniVersion": "0.4.0",
      "supportedVersions": [
        "0.3.1",
        "0.4.0",
        "1.0.0",
        "1.1.0"
      ]
    }
    "#);
    for stdin in ["", "{}", r#"{ "cniVersion": "9.9.9" }"#, r#"{ "cniVersion": 1 }"#, "garbage"] {
        let newest = version(stdin);
        assert!(newest.result().contains(r#""cniVersion": "1.1.0""#), "{stdin}: {newest:?}");
    }
}

#[test]
fn only_add_and_version_print_something() {
    let (daemon, netns) = (Daemon::start(Answer::Succeed), Namespace::new());
    for verb in ["DEL", "CHECK", "GC", "STATUS"] {
        let conf = conf_of(&daemon, json!({ "prevResult": {}, "cni.dev/valid-attachments": [] }));
        let run = plugin(&variables(verb, &[("CNI_NETNS", netns.path())]), &conf);
        assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{verb}");
    }
    assert_eq!(daemon.seen().len(), 4);
}
