//! The facts as tables.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};

use super::facts::{Facts, ReachFact};
use crate::lab::Lab;
use crate::progress::Progress;

pub(super) fn pods(progress: &Progress, facts: &Facts) {
    let mut table =
        table(&["node", "pod", "mode", "IPv4", "IPv6", "ENI", "VLAN", "groups", "ADD ms"]);
    for pod in &facts.pods {
        let vlan = if pod.vlan == 0 { "-".to_owned() } else { pod.vlan.to_string() };
        table.add_row([
            pod.node.clone(),
            pod.name.clone(),
            pod.mode.clone(),
            pod.ipv4.clone(),
            pod.ipv6.clone(),
            pod.eni.clone(),
            vlan,
            pod.security_groups.join(" "),
            format!("{:.1}", pod.add_milliseconds),
        ]);
    }
    print(progress, "Pods", &table);
}

/// One cell for all addresses of a pair: its worst answer.
pub(super) fn reach(progress: &Progress, facts: &Facts) {
    let mut names: Vec<&str> = Vec::new();
    for one in &facts.reach {
        if !names.contains(&one.from.as_str()) {
            names.push(&one.from);
        }
    }
    let mut cells: BTreeMap<(&str, &str), Vec<&ReachFact>> = BTreeMap::new();
    for one in &facts.reach {
        cells.entry((&one.from, &one.to)).or_default().push(one);
    }
    let mut head = vec!["from \\ to"];
    head.extend(&names);
    let mut table = table(&head);
    for from in &names {
        let mut row = vec![(*from).to_owned()];
        row.extend(
            names.iter().map(|to| cells.get(&(*from, *to)).map_or("-".to_owned(), |all| cell(all))),
        );
        table.add_row(row);
    }
    print(progress, "Who reaches whom by TCP, every address of each (v4 and v6)", &table);
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for one in facts.reach.iter().filter(|one| !one.refused_by.is_empty()) {
        let line =
            format!("{} -> {}: refused by group {}", one.from, one.to, one.refused_by.join(", "));
        *refused.entry(line).or_default() += 1;
    }
    for (line, times) in refused {
        progress.say(&format!("  {line} ({times} addresses)"));
    }
}

fn cell(attempts: &[&ReachFact]) -> String {
    if let Some(refused) = attempts.iter().find(|one| !one.refused_by.is_empty()) {
        return format!("x {}", refused.refused_by.join(" "));
    }
    if attempts.iter().all(|one| one.reached) { "ok".to_owned() } else { "FAILED".to_owned() }
}

pub(super) fn kernel(progress: &Progress, facts: &Facts) {
    progress.say(&format!("\nRules of {} (ip rule, at 512 and 513)", facts.node));
    for rule in &facts.rules {
        progress.say(&format!("  {rule}"));
    }
    let mut table = table(&["link", "direction", "priority", "handle", "program"]);
    for filter in &facts.filters {
        table.add_row([
            filter.link.clone(),
            filter.direction.clone(),
            filter.priority.to_string(),
            filter.handle.clone(),
            filter.program.clone(),
        ]);
    }
    print(progress, &format!("Filters of {} (tc filter)", facts.node), &table);
}

pub(super) fn drops(progress: &Progress, facts: &Facts) {
    progress.say("\nDrops by cause (those not here are zero; pod_control is what a link says when it comes up)");
    for (cause, frames) in &facts.drops {
        progress.say(&format!("  {frames:>6}  {cause}"));
    }
}

pub(super) fn left(progress: &Progress, facts: &Facts) {
    if facts.left.is_empty() {
        progress.say(
            "\nNothing is left: no pod, link, rule, route, neighbour or member ENI; no namespace, mount or cgroup.",
        );
    }
}

pub(super) fn verdict(progress: &Progress, facts: &Facts) {
    for wrong in &facts.wrong {
        progress.say(&format!("WRONG: {wrong}"));
    }
    let attempts = facts.reach.len();
    progress.say(&format!(
        "\n{} pods, {attempts} connections tried, {} not as they should be.",
        facts.pods.len(),
        facts.wrong.len()
    ));
}

pub(super) fn look_around(progress: &Progress, lab: &Lab) {
    let stage = crate::driver::stage();
    let stage = stage.display();
    let directory = lab.options().directory.display();
    progress.say(&format!(
        "
The lab stays up. In another terminal:
  {stage}/terway-lab --dir {directory} enter node1 {stage}/terwayctl pods
  {stage}/terway-lab --dir {directory} enter node1 ip rule
  {stage}/terway-lab --dir {directory} enter node1          # a shell on the node
  {stage}/terway-lab --dir {directory} pod add node1 extra  # one more pod
  {stage}/terway-lab --dir {directory} reach
  {stage}/terway-lab --dir {directory} dump                 # the cloud's truth
  {stage}/terway-lab --dir {directory} down"
    ));
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().copied());
    table
}

fn print(progress: &Progress, title: &str, table: &Table) {
    progress.say(&format!("\n{title}\n{}", table.trim_fmt()));
}
