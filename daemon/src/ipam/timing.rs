//! How patient the pool is: our own paces, where `backoff_override` says nothing else.

use controlplane::{Pace, Timing};

use crate::config::{Backoff, BackoffKey, Config};

/// For the node's ENIs, whose attachment is awaited by `wait_eni_status`.
pub(super) fn of_enis(config: &Config) -> Timing {
    timing(config, BackoffKey::WaitEniStatus)
}

/// For members, whose attachment is awaited by `wait_member_eni_status`.
pub(super) fn of_members(config: &Config) -> Timing {
    timing(config, BackoffKey::WaitMemberEniStatus)
}

fn timing(config: &Config, looks: BackoffKey) -> Timing {
    let ours = Timing::default();
    let pace = |key, ours| config.backoff.get(&key).map_or(ours, of_override);
    Timing {
        look: pace(looks, ours.look),
        create: pace(BackoffKey::EniCreate, ours.create),
        change: pace(BackoffKey::EniOps, ours.change),
        delete: pace(BackoffKey::EniRelease, ours.delete),
        addresses: pace(BackoffKey::EniIpOps, ours.addresses),
        ..ours
    }
}

/// After `Steps` tries a pause does not grow any more: what is to be done is never given up.
fn of_override(backoff: &Backoff) -> Pace {
    let Backoff { initial_delay, duration, factor_percent, jitter_percent, steps, cap } = *backoff;
    let endless = Pace {
        initial: initial_delay,
        first: duration,
        factor_percent,
        jitter_percent,
        at_most: cap.unwrap_or(std::time::Duration::MAX),
    };
    Pace { at_most: endless.plain(steps.saturating_sub(1)), ..endless }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn timing(conf: &str) -> Timing {
        let conf = format!(r#"{{"security_group": "sg-1", "backoff_override": {conf}}}"#);
        of_enis(&Config::parse(&conf, Path::new("eni_conf")).unwrap().0)
    }

    #[test]
    fn an_override_sets_the_pauses_of_what_it_names_and_of_nothing_else() {
        let ours = Timing::default();
        let found = timing(
            r#"{"eni_ops": {"Duration": "1s", "Factor": 2, "Jitter": 0, "Steps": 4},
                "eni_create": {"Duration": "1s", "Factor": 2, "Jitter": 0, "Steps": 9, "Cap": "5s"},
                "wait_eni_status": {"InitialDelay": "2s", "Duration": "1s", "Factor": 1, "Steps": 3}}"#,
        );
        let seconds = |pace: Pace, tries: u32| pace.plain(tries).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 99].map(|n| seconds(found.change, n)), [1, 2, 4, 8, 8, 8]);
        assert_eq!([2, 3, 99].map(|n| seconds(found.create, n)), [4, 5, 5]);
        assert_eq!(found.look.initial, Duration::from_secs(2));
        assert_eq!((found.delete, found.addresses), (ours.delete, ours.addresses));
    }
}
