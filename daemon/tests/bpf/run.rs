//! One frame through one pinned program, by `BPF_PROG_TEST_RUN`. The program runs on `lo`, whose
//! index is 1.

use std::path::Path;
use std::time::Duration;

use aya::TestRun as _;
use aya::programs::{SchedClassifier, TestRunOptions};
use daemon::bpf::{Bpf, Program};
use model::LinkIndex;

use crate::place::PINS;

/// What a program returned.
pub(crate) const PASS: i32 = -1;
/// See `PASS`.
pub(crate) const SHOT: i32 = 2;
/// See `PASS`.
pub(crate) const REDIRECT: i32 = 7;

/// `skb->mark` before each run.
pub(crate) const MARK_BEFORE: u32 = 0xffff_ff80;

/// What came out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) mark: u32,
    pub(crate) frame: Vec<u8>,
    /// Names of the causes that were counted.
    pub(crate) drops: Vec<&'static str>,
    /// Names of the other counts that were counted.
    pub(crate) counts: Vec<&'static str>,
}

/// The link on which programs run here.
pub(crate) fn lo() -> LinkIndex {
    LinkIndex::try_from(1).unwrap()
}

pub(crate) fn run(bpf: &Bpf, program: Program, frame: &[u8]) -> Outcome {
    let reader = bpf.reader().unwrap();
    let before = (reader.drops().unwrap(), reader.counts().unwrap());
    let mut out = vec![0; frame.len() + 256];
    let mut context = [0; 192];
    let (code, length, _) = test_run(program, frame, &mut out, &mut context, 1);
    out.truncate(length);
    let mark = u32::from_ne_bytes(context[8..12].try_into().unwrap());
    Outcome {
        code,
        mark,
        frame: out,
        drops: more(&before.0, &reader.drops().unwrap()),
        counts: more(&before.1, &reader.counts().unwrap()),
    }
}

/// Time of one run, mean of many.
pub(crate) fn cost(program: Program, frame: &[u8]) -> Duration {
    let mut out = vec![0; frame.len() + 256];
    test_run(program, frame, &mut out, &mut [0; 192], 1_000_000).2
}

fn test_run(
    program: Program,
    frame: &[u8],
    out: &mut [u8],
    context: &mut [u8; 192],
    repeat: u32,
) -> (i32, usize, Duration) {
    let pin = Path::new(PINS).join("programs").join(program.name());
    let program = SchedClassifier::from_pin(pin).unwrap();
    let mut before = [0; 192];
    before[8..12].copy_from_slice(&MARK_BEFORE.to_ne_bytes());
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(out);
    options.ctx_in = Some(&before);
    options.ctx_out = Some(context);
    options.repeat = repeat;
    let result = program.test_run(options).unwrap();
    let length = usize::try_from(result.data_size_out).unwrap();
    (result.return_value.cast_signed(), length, result.duration)
}

fn more(before: &[(&'static str, u64)], after: &[(&'static str, u64)]) -> Vec<&'static str> {
    let both = before.iter().zip(after);
    both.flat_map(|(before, after)| {
        let times = usize::try_from(after.1 - before.1).unwrap();
        std::iter::repeat_n(after.0, times)
    })
    .collect()
}
