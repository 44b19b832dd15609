//! What has to be done, from what is and what should be. Pure.

use std::collections::BTreeSet;

use super::types::{Change, Object, Objects, Op, Place, State};

/// The ops that lead from `actual` to `desired`, in an order in which nothing leaks: what should
/// not be there goes first, in the reverse order of its making; then what is missing is made; the
/// pods' namespaces come last, so that a pod can send only when all is in place.
///
/// A pod's namespace is only added to: what else is in there is the pod's own.
pub(crate) fn diff(actual: &State, desired: &State) -> Vec<Op> {
    let mut ops = removals(&actual.node, &desired.node);
    additions(&Place::Node, &actual.node, &desired.node, &mut ops);
    let nothing = Objects::new();
    for (key, inside) in &desired.pods {
        let actual = actual.pods.get(key).map_or(&nothing, |inside| &inside.objects);
        let place = Place::Pod(key.clone(), inside.netns.clone());
        additions(&place, actual, &inside.objects, &mut ops);
    }
    ops
}

fn removals(actual: &Objects, desired: &Objects) -> Vec<Op> {
    let unwanted = || actual.iter().rev().filter(|(slot, _)| !desired.contains_key(slot));
    let links: BTreeSet<_> = unwanted()
        .filter_map(|(_, object)| match object {
            Object::Pair(pair) => Some(pair.host.index),
            _ => None,
        })
        .collect();
    unwanted()
        .map(|(_, object)| object)
        .filter(|object| !object.lasts())
        .filter(|object| object.goes_with().is_none_or(|link| !links.contains(&link)))
        .map(|object| Op::new(Place::Node, Change::Remove(object.clone())))
        .collect()
}

fn additions(place: &Place, actual: &Objects, desired: &Objects, ops: &mut Vec<Op>) {
    for (slot, to) in desired {
        let change = match actual.get(slot) {
            None => Change::Add(to.clone()),
            Some(from) if from == to => continue,
            Some(from) => Change::Replace { from: from.clone(), to: to.clone() },
        };
        ops.push(Op::new(place.clone(), change));
    }
}
