//! What stays of many measurements.

use serde::Serialize;

/// The measurements of some rounds, in whatever unit they have.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Rounds(Vec<Vec<f64>>);

/// A median with its tail, and how far it moved from round to round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many measurements.
    pub count: usize,
    /// Median of all of them.
    pub p50: f64,
    /// 99th percentile of all of them.
    pub p99: f64,
    /// The lowest median of a round.
    pub lowest: f64,
    /// The highest median of a round.
    pub highest: f64,
}

/// How often one thing goes into another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Of the medians.
    pub median: f64,
    /// The lowest of a round, against the same round of the other.
    pub lowest: f64,
    /// The highest of a round.
    pub highest: f64,
}

impl Rounds {
    /// Adds a round; one without a measurement says nothing and is left out.
    pub(super) fn push(&mut self, round: Vec<f64>) {
        if !round.is_empty() {
            self.0.push(sorted(round));
        }
    }

    /// `None` if nothing was measured.
    pub(super) fn summary(&self) -> Option<Summary> {
        let all = sorted(self.0.concat());
        let medians = sorted(self.medians());
        Some(Summary {
            count: all.len(),
            p50: percentile(&all, 50)?,
            p99: percentile(&all, 99)?,
            lowest: *medians.first()?,
            highest: *medians.last()?,
        })
    }

    /// How often `other` goes into this; `None` if either was not measured, or took no time.
    pub(super) fn over(&self, other: &Self) -> Option<Ratio> {
        let whole = (self.summary()?.p50, other.summary()?.p50);
        let rounds = self.medians().into_iter().zip(other.medians());
        let rounds = sorted(rounds.map(|(mine, others)| mine / others).collect());
        let ratio =
            Ratio { median: whole.0 / whole.1, lowest: *rounds.first()?, highest: *rounds.last()? };
        [ratio.median, ratio.lowest, ratio.highest]
            .iter()
            .all(|one| one.is_finite())
            .then_some(ratio)
    }

    fn medians(&self) -> Vec<f64> {
        self.0.iter().filter_map(|round| percentile(round, 50)).collect()
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The smallest value that is not below `percent` of all: the nearest rank.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = sorted.len().saturating_mul(percent).div_ceil(100);
    sorted.get(rank.max(1).saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(rounds: &[&[f64]]) -> Rounds {
        let mut all = Rounds::default();
        for round in rounds {
            all.push(round.to_vec());
        }
        all
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let hundred: Vec<_> = (1..=100).map(f64::from).collect();
        for (percent, expected) in [(0, 1.0), (1, 1.0), (50, 50.0), (99, 99.0), (100, 100.0)] {
            assert_eq!(percentile(&hundred, percent), Some(expected), "{percent} %");
        }
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn a_summary_is_of_all_and_its_spread_is_of_the_rounds_medians() {
        let summary = rounds(&[&[3.0, 1.0, 2.0], &[], &[30.0, 10.0, 20.0]]).summary().unwrap();
        let expected = Summary { count: 6, p50: 3.0, p99: 30.0, lowest: 2.0, highest: 20.0 };
        assert_eq!(summary, expected);
        assert_eq!(rounds(&[&[]]).summary(), None);
    }

    #[test]
    fn a_ratio_compares_the_same_rounds() {
        let (slow, fast) = (rounds(&[&[8.0], &[12.0], &[9.0]]), rounds(&[&[2.0], &[2.0], &[3.0]]));
        let ratio = slow.over(&fast).unwrap();
        assert_eq!(ratio, Ratio { median: 4.5, lowest: 3.0, highest: 6.0 });
        assert_eq!(slow.over(&rounds(&[&[0.0]])), None);
        assert_eq!(slow.over(&Rounds::default()), None);
    }
}
