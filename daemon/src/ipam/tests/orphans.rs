//! ENIs of ours that no record knows.

use cloud::EniStatus;
use model::EniId;

use super::world::{SECOND, World};
use crate::ipam::DisagreementKind;

const ROOMY: &[(&str, u64)] = &[("vsw-a", 1000), ("vsw-b", 1000)];

/// A node that lost its records, with one ENI of its own that is attached nowhere.
fn lost(tag: Option<(&str, &str)>) -> (World, EniId) {
    let mut world = World::new(1, r#""min_pool_size": 1, "max_pool_size": 10,"#, ROOMY);
    world.settle();
    let id = world.cloud.enis.keys().next().unwrap().clone();
    let eni = world.cloud.enis.get_mut(&id).unwrap();
    (eni.status, eni.instance) = (EniStatus::Available, None);
    if let Some((key, value)) = tag {
        eni.tags.insert(key.to_owned(), value.to_owned());
    }
    world.lose_checkpoint();
    (world, id)
}

#[test]
fn an_eni_of_ours_in_no_record_is_deleted_when_it_was_seen_twice_with_ten_minutes_between() {
    let (mut world, id) = lost(None);
    world.settle_with_faults(600);
    assert!(world.cloud.enis.contains_key(&id), "its record may be on its way");
    world.settle_with_faults(120);
    assert!(!world.cloud.enis.contains_key(&id));
    assert!(world.disagreements.iter().any(|it| it.kind == DisagreementKind::EniUnknown));
    world.settle();
    world.check_quiet();
}

#[test]
fn an_eni_of_another_cluster_node_or_owner_is_never_touched() {
    for tag in [
        ("ack.aliyun.com", "another cluster"),
        ("node", "node2"),
        ("creator", "somebody"),
        ("terway.alibabacloud.com/excluded", "true"),
    ] {
        let (mut world, id) = lost(Some(tag));
        world.settle_with_faults(3000);
        assert!(world.cloud.enis.contains_key(&id), "{tag:?}");
    }
}

#[test]
fn a_member_in_no_record_goes_unless_the_kernel_has_its_address_in_use() {
    for in_use in [true, false] {
        let mut world = World::new(1, r#""enable_eni_trunking": true,"#, ROOMY);
        world.settle();
        world.add(0, true, SECOND * 60);
        world.settle();
        let allocation = world.allocation(0).unwrap().clone();
        if in_use {
            world.in_use = allocation.addresses.iter().collect();
        }
        world.lose_checkpoint();
        world.settle_with_faults(3000);
        assert_eq!(world.cloud.enis.contains_key(&allocation.eni), in_use);
    }
}
