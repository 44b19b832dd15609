//! The parameters that the emulator reads are those of the reference.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::ACTIONS;
use crate::ecs::arguments::Shape;

/// As `tests/python/reference` has it, which also holds the answers.
fn reference() -> Value {
    serde_json::from_str(include_str!("../../../../python/reference/actions.json")).unwrap()
}

/// What the reference says a parameter is.
fn shape(of: &Value) -> String {
    match of {
        Value::String(name) => name.clone(),
        Value::Array(items) => format!("list of {}", shape(&items[0])),
        Value::Object(_) => "record".to_owned(),
        other => panic!("{other}"),
    }
}

#[test]
fn every_parameter_that_is_read_is_in_the_reference_with_its_type() {
    let reference = reference();
    let mut problems = Vec::new();
    for action in ACTIONS {
        let known = &reference[action.name]["request"];
        for (name, shape_here) in action.grammar {
            // Not documented there, and sent by the older SDK.
            if (action.name, *name) == ("DescribeInstanceTypes", "RegionId") {
                continue;
            }
            let here = match shape_here {
                Shape::Text => "str",
                Shape::Number => "int",
                Shape::Flag => "bool",
                Shape::Texts => "list of str",
                Shape::Records(_) => "list of record",
            };
            let there = known.get(*name).map_or_else(|| "nothing".to_owned(), shape);
            if here != there {
                problems.push(format!("{}: {name} is {there}, here {here}", action.name));
            }
            if let (Shape::Records(fields), Some(Value::Array(records))) =
                (shape_here, known.get(*name))
            {
                let strange = fields.iter().filter(|field| records[0].get(**field).is_none());
                problems.extend(strange.map(|field| format!("{}: {name}.{field}", action.name)));
            }
        }
    }
    assert_eq!(problems, [""; 0]);
}

#[test]
fn the_reference_has_every_action_and_no_other() {
    let reference = reference();
    let there: BTreeSet<_> = reference.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(ACTIONS.iter().map(|action| action.name).collect::<BTreeSet<_>>(), there);
}
