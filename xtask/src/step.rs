//! One long-running thing at a time, with progress, a log, and its command on failure.

use std::fs::{self, File};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// The repository's root, which becomes the working directory.
pub(crate) fn enter_root() -> Result<PathBuf> {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.parent().context("xtask lies in the repository")?.to_owned();
    std::env::set_current_dir(&root).with_context(|| format!("cannot enter {}", root.display()))?;
    Ok(root)
}

/// Runs `command` with a spinner; its output goes to a log of which the end is shown if it fails.
pub(crate) fn run(title: &str, command: &mut Command) -> Result<()> {
    let log = log_file(title)?;
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let bar = spinner(title);
    let status = command.status().with_context(|| format!("cannot run {command:?}"));
    let elapsed = bar.elapsed();
    bar.finish_and_clear();
    if status?.success() {
        say(&format!("{title} ({})", HumanDuration(elapsed)));
        return Ok(());
    }
    let text = fs::read_to_string(&log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let end = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n");
    bail!("{title} failed\n{end}\n\nthe whole log: {}\nby hand: {command:?}", log.display())
}

/// Runs `command` with the terminal as its own.
pub(crate) fn run_visibly(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if status.success() { Ok(()) } else { bail!("{command:?} ended with {status}") }
}

/// A line about what was done.
#[expect(clippy::print_stderr, reason = "progress is for the terminal")]
pub(crate) fn say(line: &str) {
    eprintln!("xtask: {line}");
}

fn spinner(title: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        say(&format!("{title} …"));
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(title.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn log_file(title: &str) -> Result<PathBuf> {
    let dir = PathBuf::from("target/xtask");
    fs::create_dir_all(&dir)?;
    let name: String = title.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    Ok(dir.join(format!("{name}.log")))
}
