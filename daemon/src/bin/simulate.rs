//! `simulate`: plays many seeds of the pool's simulation, on all processors. `cargo xtask simulate`
//! builds and runs it.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use daemon::ipam::simulation::{Law, Minimal, WHOLE, play, replay, shrink};

/// Plays seeds of the pool's simulation; the first that breaks a law is shown as small as it can be.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = WHOLE)]
    from: u64,
    /// Only this one, with all that happens.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// With `--seed`: leave out what is not needed to break the law.
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// Go on after a law was broken, and count.
    #[arg(long)]
    count: bool,
    /// The longest that a broken schedule is made smaller, seconds.
    #[arg(long, default_value_t = 60)]
    shrink_for: u64,
}

/// A few seconds between two lines.
const PROGRESS: Duration = Duration::from_secs(5);

/// What has been done so far.
#[derive(Debug, Default)]
struct Tally {
    next: AtomicU64,
    schedules: AtomicU64,
    moves: AtomicU64,
    steps: AtomicU64,
    broken: AtomicU64,
    stop: AtomicBool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.seed {
        Some(seed) if args.shrink => one_small(seed, &args),
        Some(seed) => one(seed),
        None => many(&args),
    }
}

fn one(seed: u64) -> ExitCode {
    let played = replay(seed);
    say(&played.lines.join("\n"));
    if played.broken.is_none() {
        say(&format!(
            "seed {seed}: every law holds; {} moves, {} steps",
            played.moves, played.steps
        ));
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

fn one_small(seed: u64, args: &Args) -> ExitCode {
    match play(seed).broken {
        Some(broken) => show(seed, broken.law, args),
        None => say(&format!("seed {seed}: every law holds")),
    }
    ExitCode::SUCCESS
}

fn many(args: &Args) -> ExitCode {
    let tally = Tally { next: AtomicU64::new(args.from), ..Tally::default() };
    let end = args.from.saturating_add(args.seeds);
    let (found, failures) = mpsc::channel();
    let begun = now();
    let broken = thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _ in 0..workers {
            let (tally, found) = (&tally, found.clone());
            scope.spawn(move || work(tally, end, &found));
        }
        drop(found);
        watch(&tally, &failures, begun, args)
    });
    progress(&tally, begun);
    if args.count {
        for (law, seeds) in &broken {
            let first: Vec<_> = seeds.iter().take(5).map(ToString::to_string).collect();
            say(&format!(
                "{:6} {law:?}: {} (seeds {}, …)",
                seeds.len(),
                law.sentence(),
                first.join(", ")
            ));
        }
    } else if let Some((law, seeds)) = broken.first_key_value()
        && let Some(seed) = seeds.first()
    {
        show(*seed, *law, args);
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(tally: &Tally, end: u64, found: &mpsc::Sender<(u64, Law)>) {
    while !tally.stop.load(Ordering::Relaxed) {
        let seed = tally.next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let played = play(seed);
        tally.schedules.fetch_add(1, Ordering::Relaxed);
        tally.moves.fetch_add(u64::try_from(played.moves).unwrap_or(0), Ordering::Relaxed);
        tally.steps.fetch_add(played.steps, Ordering::Relaxed);
        if let Some(broken) = played.broken
            && found.send((seed, broken.law)).is_err()
        {
            return;
        }
    }
}

/// Until all is played, or a law is broken and nobody wants to count.
fn watch(
    tally: &Tally,
    failures: &mpsc::Receiver<(u64, Law)>,
    begun: Instant,
    args: &Args,
) -> BTreeMap<Law, Vec<u64>> {
    let mut broken: BTreeMap<Law, Vec<u64>> = BTreeMap::new();
    let mut shown = begun;
    loop {
        match failures.recv_timeout(Duration::from_millis(500)) {
            Ok((seed, law)) => {
                tally.broken.fetch_add(1, Ordering::Relaxed);
                if args.count {
                    say(&format!("seed {seed} breaks the law that {}", law.sentence()));
                }
                broken.entry(law).or_default().push(seed);
                tally.stop.store(!args.count, Ordering::Relaxed);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return broken,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if shown.elapsed() >= PROGRESS {
            shown = now();
            progress(tally, begun);
        }
    }
}

fn progress(tally: &Tally, begun: Instant) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (schedules, moves, steps) =
        (read(&tally.schedules), read(&tally.moves), read(&tally.steps));
    let seconds = begun.elapsed().as_secs().max(1);
    let (rate, broken) = (schedules / seconds, read(&tally.broken));
    say(&format!(
        "{schedules} schedules, {moves} events, {steps} steps in {seconds} s ({rate} schedules a second), {broken} broken"
    ));
}

fn show(seed: u64, law: Law, args: &Args) {
    say(&format!("seed {seed} breaks a law; it is made smaller …"));
    let (begun, most) = (now(), Duration::from_secs(args.shrink_for));
    let Minimal { moves, of, played } = shrink(seed, law, || begun.elapsed() < most);
    say(&played.lines.join("\n"));
    say(&format!("\nseed {seed} breaks the law that {}", law.sentence()));
    if let Some(broken) = &played.broken {
        say(&format!("  {}", broken.what));
    }
    say(&format!("{moves} of its {of} events are enough; the whole: --seed {seed}"));
}

#[expect(clippy::disallowed_methods, reason = "the rate of a run, and a bound for shrinking")]
fn now() -> Instant {
    Instant::now()
}

fn say(line: &str) {
    // Without stdout there is nobody to tell.
    let _gone = writeln!(io::stdout().lock(), "{line}");
}
