//! Progress of what takes longer than a second.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// A sequence of steps; on a terminal the running one has a bar.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of `steps` steps.
    pub fn new(steps: u64) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(steps)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
    }

    /// Runs one step; a line says how long it took.
    pub async fn step<T>(
        &self,
        title: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        self.bar.set_message(title.to_owned());
        #[expect(clippy::disallowed_methods, reason = "progress is of this process's own time")]
        let start = std::time::Instant::now();
        let done = work.await.map_err(|error| error.context(title.to_owned()))?;
        let elapsed = start.elapsed();
        let took = if elapsed < Duration::from_secs(1) {
            format!("{} ms", elapsed.as_millis())
        } else {
            HumanDuration(elapsed).to_string()
        };
        self.say(&format!("{title}: {took}"));
        self.bar.inc(1);
        Ok(done)
    }

    /// A line above the bar.
    #[expect(clippy::print_stderr, reason = "progress is for the terminal")]
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
