//! The answers as tables.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use proto::debug::{
    Eni, EnisReply, Filter, FiltersReply, Member, Pod, PodsReply, Pool, RulesReply, StatusReply,
};

const NOTHING: &str = "-";

/// One line a pod.
pub(super) fn pods(reply: &PodsReply) -> String {
    let header = [
        "POD",
        "CONTAINER",
        "MODE",
        "PHASE",
        "IPV4",
        "IPV6",
        "ENI",
        "VLAN",
        "GROUPS",
        "LINK",
        "ADD",
    ];
    lines(&header, "no pods", reply.pods.iter().map(pod))
}

fn pod(pod: &Pod) -> Vec<String> {
    let name = match (pod.namespace.as_str(), pod.name.as_str()) {
        ("", "") => String::new(),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    let vlan = if pod.vlan == 0 { String::new() } else { pod.vlan.to_string() };
    vec![
        name,
        short(&pod.container_id).to_owned(),
        pod.mode.clone(),
        pod.phase.clone(),
        pod.ipv4.clone(),
        pod.ipv6.clone(),
        pod.eni.clone(),
        vlan,
        pod.security_groups.join(","),
        pod.host_link.clone(),
        took(pod.add_micros),
    ]
}

/// One line an ENI, then one a member.
pub(super) fn enis(reply: &EnisReply) -> String {
    let header = [
        "ENI", "KIND", "PHASE", "LINK", "TABLE", "MARK", "MAC", "VSWITCH", "GROUPS", "IDLE",
        "USED", "RESTING", "LEAVING",
    ];
    let mut text = lines(&header, "no ENIs", reply.enis.iter().map(eni));
    if reply.enis.iter().any(|eni| !eni.members.is_empty()) {
        let header = [
            "MEMBER",
            "TRUNK",
            "VLAN",
            "PHASE",
            "VSWITCH",
            "GROUPS",
            "IPV4",
            "IPV6",
            "PODNETWORKING",
            "OWNER",
        ];
        let members = reply.enis.iter().flat_map(|eni| eni.members.iter().map(|m| member(eni, m)));
        text = format!("{text}\n\n{}", lines(&header, "", members));
    }
    text
}

fn eni(eni: &Eni) -> Vec<String> {
    // An address of either family alone is half of a pair.
    let count = |state: &str| {
        let of_it = || eni.addresses.iter().filter(|address| address.state == state);
        let v4 = of_it().filter(|address| !address.ipv4.is_empty()).count();
        let v6 = of_it().filter(|address| !address.ipv6.is_empty()).count();
        v4.max(v6).to_string()
    };
    vec![
        eni.id.clone(),
        eni.kind.clone(),
        eni.phase.clone(),
        eni.link.clone(),
        eni.table.to_string(),
        format!("{:#x}/{:#x}", eni.mark, eni.mark_mask),
        eni.mac.clone(),
        eni.vswitch.clone(),
        eni.security_groups.join(","),
        count("idle"),
        count("used"),
        count("resting"),
        count("releasing"),
    ]
}

fn member(trunk: &Eni, member: &Member) -> Vec<String> {
    vec![
        member.id.clone(),
        trunk.id.clone(),
        member.vlan.to_string(),
        member.phase.clone(),
        member.vswitch.clone(),
        member.security_groups.join(","),
        member.ipv4.clone(),
        member.ipv6.clone(),
        member.pod_networking.clone(),
        member.owner.clone(),
    ]
}

/// As `ip rule` lists them.
pub(super) fn rules(reply: &RulesReply) -> String {
    let rules = reply.rules.iter();
    lines(
        &["FAMILY", "PRIORITY", "RULE"],
        "no rules of ours",
        rules.map(|rule| vec![rule.family.clone(), rule.priority.to_string(), rule.text.clone()]),
    )
}

/// One line a filter.
pub(super) fn filters(reply: &FiltersReply) -> String {
    let header = ["LINK", "DIRECTION", "PRIORITY", "HANDLE", "PROGRAM", "ID", "OWNER"];
    lines(&header, "no filters on our links", reply.filters.iter().map(filter))
}

fn filter(filter: &Filter) -> Vec<String> {
    vec![
        filter.link.clone(),
        filter.direction.clone(),
        filter.priority.to_string(),
        format!("{:#x}", filter.handle),
        filter.program.clone(),
        filter.program_id.to_string(),
        if filter.foreign { "another" } else { "terway" }.to_owned(),
    ]
}

/// One line a fact.
pub(super) fn status(reply: &StatusReply) -> String {
    let ready = if reply.ready { "yes".to_owned() } else { format!("no: {}", reply.reason) };
    let dropped: Vec<String> = reply
        .drops
        .iter()
        .filter(|drop| drop.packets > 0)
        .map(|drop| format!("{} {}", drop.packets, drop.cause))
        .collect();
    let known = [("version", reply.version.clone()), ("mode", reply.mode.clone())];
    let ready = [("ready", ready), ("up for", format!("{}s", reply.uptime_seconds))];
    let Some(pool) = reply.pool else {
        // A daemon that starts knows no more; nothing is better than a wrong nought.
        let unknown = ["instance", "ENIs", "addresses", "members"];
        let unknown = unknown.map(|name| (name, "not known yet".to_owned()));
        return two_columns(known.into_iter().chain(ready).chain(unknown));
    };
    let Pool { enis, max_enis, members, max_members, waiting, .. } = pool;
    let Pool { idle, used, resting, leaving, capacity, .. } = pool;
    let addresses = format!(
        "{used} used, {idle} idle, {resting} resting, {leaving} leaving, room for {capacity}"
    );
    let instance = ("instance", format!("{} ({})", reply.instance_id, reply.instance_type));
    let facts = [
        ("ENIs", format!("{enis} of {max_enis}")),
        ("addresses", addresses),
        ("members", format!("{members} of {max_members}")),
        ("waiting ADDs", waiting.to_string()),
        ("queued DELs", reply.del_queue.to_string()),
        ("links to delete", reply.reaper_queue.to_string()),
        ("dropped", if dropped.is_empty() { "nothing".to_owned() } else { dropped.join(", ") }),
        ("foreign filters", or_none_ahead(&reply.foreign_filters_ahead)),
        ("last cloud error", reply.last_cloud_error.clone()),
        ("config", config(reply)),
    ];
    two_columns(known.into_iter().chain([instance]).chain(ready).chain(facts))
}

/// A line for what is bad, and one for what waits.
fn config(reply: &StatusReply) -> String {
    let mut lines = Vec::new();
    if !reply.config_refused.is_empty() {
        let (seconds, why) = (reply.config_refused_seconds, &reply.config_refused);
        lines.push(format!("refused since {seconds}s, the one before is in force: {why}"));
    }
    if !reply.config_restart.is_empty() {
        lines.push(format!("waits for a restart: {}", reply.config_restart.join(", ")));
    }
    if lines.is_empty() { "in force".to_owned() } else { lines.join("\n") }
}

fn two_columns(facts: impl Iterator<Item = (&'static str, String)>) -> String {
    let mut table = plain();
    for (name, value) in facts {
        table.add_row([name, or_nothing(&value)]);
    }
    tidy(&table)
}

/// A line each.
fn or_none_ahead(filters: &[String]) -> String {
    match filters {
        [] => "none before ours".to_owned(),
        filters => filters.join("\n"),
    }
}

fn lines(header: &[&str], none: &str, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = plain();
    table.set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|value| cell(or_nothing(value))));
    }
    if table.is_empty() { none.to_owned() } else { tidy(&table) }
}

/// Numbers to the right.
fn cell(value: &str) -> Cell {
    let number = value.bytes().all(|byte| byte.is_ascii_digit());
    let alignment = if number { CellAlignment::Right } else { CellAlignment::Left };
    Cell::new(value).set_alignment(alignment)
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Without the border's white space.
fn tidy(table: &Table) -> String {
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    let lines: Vec<_> = lines.collect();
    let inset = lines.iter().all(|line| line.starts_with(' '));
    let trimmed = lines.iter().map(|line| if inset { line.get(1..).unwrap_or("") } else { line });
    trimmed.collect::<Vec<_>>().join("\n")
}

/// A pod that is being added has taken no time yet.
fn took(micros: u64) -> String {
    if micros == 0 { String::new() } else { format!("{:.1?}", Duration::from_micros(micros)) }
}

fn short(container_id: &str) -> &str {
    container_id.get(..12).unwrap_or(container_id)
}

fn or_nothing(value: &str) -> &str {
    if value.is_empty() { NOTHING } else { value }
}

#[cfg(test)]
mod tests {
    use proto::debug::{Address, Drop, Rule};

    use super::*;

    #[test]
    fn pods_are_a_line_each() {
        let shared = Pod {
            namespace: "default".to_owned(),
            name: "web-0".to_owned(),
            container_id: "0123456789abcdef".to_owned(),
            mode: "shared".to_owned(),
            phase: "up".to_owned(),
            ipv4: "10.0.1.7".to_owned(),
            ipv6: "2408::7".to_owned(),
            eni: "eni-1".to_owned(),
            security_groups: vec!["sg-a".to_owned(), "sg-b".to_owned()],
            host_link: "cali0123456789a".to_owned(),
            add_micros: 1234,
            ..Pod::default()
        };
        let trunk = Pod {
            container_id: "c2".to_owned(),
            mode: "trunk".to_owned(),
            phase: "adding".to_owned(),
            ipv4: "10.0.2.9".to_owned(),
            eni: "eni-9".to_owned(),
            vlan: 12,
            host_link: "calif".to_owned(),
            ..Pod::default()
        };
        insta::assert_snapshot!(pods(&PodsReply { pods: vec![shared, trunk] }), @r#"
        POD            CONTAINER     MODE    PHASE   IPV4      IPV6     ENI    VLAN  GROUPS     LINK             ADD
        default/web-0  0123456789ab  shared  up      10.0.1.7  2408::7  eni-1  -     sg-a,sg-b  cali0123456789a  1.2ms
        -              c2            trunk   adding  10.0.2.9  -        eni-9    12  -          calif            -
        "#);
        assert_eq!(pods(&PodsReply::default()), "no pods");
    }

    #[test]
    fn enis_are_followed_by_their_members() {
        let address = |(state, ipv4, ipv6): (&str, &str, &str)| Address {
            state: state.to_owned(),
            ipv4: ipv4.to_owned(),
            ipv6: ipv6.to_owned(),
            ..Address::default()
        };
        let addresses = [
            ("idle", "10.0.1.1", ""),
            ("idle", "10.0.1.2", ""),
            ("idle", "", "2408::1"),
            ("used", "10.0.1.3", "2408::3"),
        ];
        let member = Member {
            id: "eni-9".to_owned(),
            vlan: 12,
            phase: "in_use".to_owned(),
            vswitch: "vsw-2".to_owned(),
            security_groups: vec!["sg-b".to_owned()],
            ipv4: "10.0.2.9".to_owned(),
            pod_networking: "blue".to_owned(),
            owner: "default/web-1".to_owned(),
            ..Member::default()
        };
        let trunk = Eni {
            id: "eni-1".to_owned(),
            kind: "trunk".to_owned(),
            phase: "in_use".to_owned(),
            mac: "00:16:3e:00:00:01".to_owned(),
            link: "eth1".to_owned(),
            table: 1003,
            mark: 1,
            mark_mask: 0x7f,
            vswitch: "vsw-1".to_owned(),
            addresses: addresses.map(address).into(),
            members: vec![member],
            ..Eni::default()
        };
        insta::assert_snapshot!(enis(&EnisReply { enis: vec![trunk] }), @r#"
        ENI    KIND   PHASE   LINK  TABLE  MARK      MAC                VSWITCH  GROUPS  IDLE  USED  RESTING  LEAVING
        eni-1  trunk  in_use  eth1   1003  0x1/0x7f  00:16:3e:00:00:01  vsw-1    -          2     1        0        0

        MEMBER  TRUNK  VLAN  PHASE   VSWITCH  GROUPS  IPV4      IPV6  PODNETWORKING  OWNER
        eni-9   eni-1    12  in_use  vsw-2    sg-b    10.0.2.9  -     blue           default/web-1
        "#);
        assert_eq!(enis(&EnisReply::default()), "no ENIs");
    }

    #[test]
    fn rules_and_filters_are_as_the_kernel_has_them() {
        let rule = Rule {
            family: "ipv4".to_owned(),
            priority: 512,
            text: "from all iif eth1 lookup 1003 suppress_prefixlength 0".to_owned(),
            table: 1003,
        };
        insta::assert_snapshot!(rules(&RulesReply { rules: vec![rule] }), @r#"
        FAMILY  PRIORITY  RULE
        ipv4         512  from all iif eth1 lookup 1003 suppress_prefixlength 0
        "#);
        let filter = |program: &str, priority, foreign| Filter {
            link: "eth1".to_owned(),
            link_index: 3,
            direction: "ingress".to_owned(),
            priority,
            handle: 1,
            program: program.to_owned(),
            program_id: 77,
            foreign,
        };
        let all = vec![filter("vlan_untag", 20000, false), filter("cil_from_netdev", 25000, true)];
        insta::assert_snapshot!(filters(&FiltersReply { filters: all }), @r#"
        LINK  DIRECTION  PRIORITY  HANDLE  PROGRAM          ID  OWNER
        eth1  ingress       20000  0x1     vlan_untag       77  terway
        eth1  ingress       25000  0x1     cil_from_netdev  77  another
        "#);
    }

    #[test]
    fn a_daemon_that_starts_says_what_is_not_known_yet() {
        let reply = StatusReply {
            version: "0.1.0".to_owned(),
            mode: "standalone".to_owned(),
            reason: "terwayd is starting: reading the instance's metadata".to_owned(),
            ..StatusReply::default()
        };
        insta::assert_snapshot!(status(&reply), @r#"
        version    0.1.0
        mode       standalone
        ready      no: terwayd is starting: reading the instance's metadata
        up for     0s
        instance   not known yet
        ENIs       not known yet
        addresses  not known yet
        members    not known yet
        "#);
    }

    #[test]
    fn the_status_says_what_is_wrong() {
        let reply = StatusReply {
            version: "0.1.0".to_owned(),
            instance_id: "i-1".to_owned(),
            instance_type: "ecs.g7.4xlarge".to_owned(),
            mode: "standalone".to_owned(),
            reason: "vSwitch vsw-1 has no free address".to_owned(),
            uptime_seconds: 61,
            pool: Some(Pool {
                enis: 1,
                max_enis: 7,
                used: 3,
                leaving: 2,
                capacity: 210,
                ..Pool::default()
            }),
            drops: vec![
                Drop { cause: "spoofed_source".to_owned(), packets: 2 },
                Drop { cause: "unknown_vlan".to_owned(), packets: 0 },
            ],
            foreign_filters_ahead: vec![
                "x on eth1 egress at 1, before vlan_tag at 50001".to_owned(),
                "y on eth2 egress at 1, before vlan_tag at 50001".to_owned(),
            ],
            config_refused: "/etc/eni/eni_conf: max_eni: 1 is too few".to_owned(),
            config_refused_seconds: 61,
            config_restart: vec!["ip_stack".to_owned(), "mark_mask".to_owned()],
            ..StatusReply::default()
        };
        insta::assert_snapshot!(status(&reply), @r#"
        version           0.1.0
        mode              standalone
        instance          i-1 (ecs.g7.4xlarge)
        ready             no: vSwitch vsw-1 has no free address
        up for            61s
        ENIs              1 of 7
        addresses         3 used, 0 idle, 0 resting, 2 leaving, room for 210
        members           0 of 0
        waiting ADDs      0
        queued DELs       0
        links to delete   0
        dropped           2 spoofed_source
        foreign filters   x on eth1 egress at 1, before vlan_tag at 50001
                          y on eth2 egress at 1, before vlan_tag at 50001
        last cloud error  -
        config            refused since 61s, the one before is in force: /etc/eni/eni_conf: max_eni: 1 is too few
                          waits for a restart: ip_stack, mark_mask
        "#);
    }
}
