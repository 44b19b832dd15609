//! What `eni_conf` says of the pool, as types that hold their rules.

use std::num::NonZeroU32;
use std::time::Duration;

/// How many addresses are to be idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleRange {
    min: u32,
    max: u32,
}

impl IdleRange {
    /// `None` if `min` is above `max`.
    pub const fn new(min: u32, max: u32) -> Option<Self> {
        if min <= max { Some(Self { min, max }) } else { None }
    }

    /// Below it, more are asked for.
    pub const fn min(self) -> u32 {
        self.min
    }

    /// Above it, they are given back.
    pub const fn max(self) -> u32 {
        self.max
    }
}

/// How a pool that nobody uses shrinks to `min_pool_size` (`idle_ip_reclaim_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleReclaim {
    /// `idle_ip_reclaim_after`: how long the pool must have been left alone.
    pub after: Duration,
    /// `idle_ip_reclaim_batch_size`: addresses given back at once.
    pub batch: NonZeroU32,
    /// `idle_ip_reclaim_interval`: between two batches, more than nothing.
    pub interval: Duration,
    /// `idle_ip_reclaim_jitter_factor`: by how many hundredths an interval may be longer, 0 to 100.
    pub jitter_percent: u32,
}

/// How many of the instance's ENIs are ours to use (`eni_cap_ratio`, `eni_cap_shift`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EniCapacity {
    /// `eni_cap_ratio` in hundredths, 1 to 1000.
    pub ratio_percent: u32,
    /// `eni_cap_shift`: added to the product.
    pub shift: i32,
}

impl EniCapacity {
    /// Secondary ENIs that may be ours on an instance that takes `eni_quantity` ENIs, the primary one
    /// included: the product, rounded down, plus shift, less the primary; at most what there is.
    pub fn adapters(self, eni_quantity: u32) -> u32 {
        let scaled = u64::from(eni_quantity) * u64::from(self.ratio_percent) / 100;
        let secondary = eni_quantity.saturating_sub(1);
        let wanted = i64::try_from(scaled).unwrap_or(i64::MAX).saturating_add(self.shift.into());
        u32::try_from(wanted.saturating_sub(1).max(0)).map_or(secondary, |ours| ours.min(secondary))
    }
}

/// Which ENI a pod's address is taken from (`eni_selection_policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EniPolicy {
    /// `most_ips`: the fullest first, so that others become empty and can be given back.
    #[default]
    MostIps,
    /// `least_ips`: the emptiest first, so that pods are spread.
    LeastIps,
}

/// `enable_ip_prefix`: how many prefixes the node has, instead of single addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    /// `ipv4_prefix_count`: prefixes /28 of the node.
    pub v4: u32,
    /// `ipv6_prefix_count`: prefixes /80, 0 or 1.
    pub v6: u32,
}

/// Who decides on addresses (`ipam_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpamType {
    /// Absent: this daemon.
    #[default]
    Local,
    /// `crd`: the control plane, by way of Node resources.
    Crd,
    /// `preferCRD`: the control plane on nodes that it manages, else this daemon.
    PreferCrd,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_share_of_enis_is_the_product_rounded_down_plus_shift_less_the_primary() {
        for (quantity, ratio_percent, shift, expected) in [
            (8, 100, 0, 7),
            (8, 50, 0, 3),
            (8, 33, 0, 1),
            (8, 50, 2, 5),
            (8, 50, -9, 0),
            (8, 1000, 0, 7),
            (8, 100, i32::MAX, 7),
            (8, 100, i32::MIN, 0),
            (3, 67, 0, 1),
            (0, 100, 0, 0),
        ] {
            let capacity = EniCapacity { ratio_percent, shift };
            assert_eq!(capacity.adapters(quantity), expected, "{quantity} {capacity:?}");
        }
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_the_secondary_enis(
            quantity in 0..=u32::MAX, ratio_percent in 0..=u32::MAX, shift in i32::MIN..=i32::MAX,
        ) {
            let ours = EniCapacity { ratio_percent, shift }.adapters(quantity);
            prop_assert!(ours <= quantity.saturating_sub(1));
        }
    }
}
