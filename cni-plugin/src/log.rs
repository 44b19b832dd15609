//! Log lines (`key=value`) on stderr, and in a file when the configuration names one.

use std::fmt::{self, Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How much is said; more with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

impl Level {
    pub(crate) const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// A fact beside a message.
pub(crate) type Field<'a> = (&'static str, &'a dyn Display);

/// Where the lines go. A line that cannot be written is lost: there is nobody left to tell.
pub(crate) struct Log<'a> {
    level: Level,
    stderr: &'a mut dyn Write,
    file: Option<File>,
}

impl<'a> Log<'a> {
    pub(crate) fn new(stderr: &'a mut dyn Write) -> Self {
        Self { level: Level::Info, stderr, file: None }
    }

    /// From now on what the configuration says.
    pub(crate) fn configure(&mut self, level: Level, file: Option<&Path>) {
        self.level = level;
        let Some(path) = file else { return };
        match OpenOptions::new().append(true).create(true).mode(0o600).open(path) {
            Ok(file) => self.file = Some(file),
            Err(error) => self.write(
                Level::Warn,
                "cannot open the log file",
                &[("file", &path.display()), ("error", &error)],
            ),
        }
    }

    /// One line.
    pub(crate) fn write(&mut self, level: Level, message: &str, fields: &[Field<'_>]) {
        if level > self.level {
            return;
        }
        let mut line = format!("level={} msg={}", level.as_str(), Quoted(message));
        for (key, value) in fields {
            write!(line, " {key}={}", Quoted(&value.to_string())).expect("a String takes all");
        }
        drop(writeln!(self.stderr, "{line}"));
        if let Some(file) = &mut self.file {
            // One write, so that lines of plugins that run side by side do not mix.
            drop(file.write_all(format!("time={} {line}\n", Utc(since_epoch())).as_bytes()));
        }
    }
}

/// A value as logfmt wants it.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=';
        if !self.0.is_empty() && self.0.chars().all(plain) {
            f.write_str(self.0)
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the log is where the plugin reads the clock")]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// A time since 1970 as RFC 3339 in UTC, with milliseconds.
struct Utc(Duration);

impl Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Years begin in March here, so that a leap day is the last of its year; 400 years are
        // 146 097 days, and day 0 lies 719 468 days after 1 March of the year 0.
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = era * 400 + year + carry;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let millis = self.0.subsec_millis();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // Seconds as `date -u -d … +%s` prints them.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Utc(Duration::from_secs(seconds)).to_string(), text);
        }
    }

    #[test]
    fn lines_above_the_level_are_not_written_and_values_are_quoted_where_needed() {
        let mut out = Vec::new();
        let mut log = Log::new(&mut out);
        log.configure(Level::Warn, None);
        log.write(Level::Info, "not seen", &[]);
        log.write(Level::Warn, "seen", &[("a", &1), ("b", &"x y"), ("c", &""), ("d", &"\n=")]);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "level=warn msg=seen a=1 b=\"x y\" c=\"\" d=\"\\n=\"\n"
        );
    }

    #[test]
    fn a_log_file_is_appended_to_and_one_that_cannot_be_opened_is_only_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("terway.log");
        for _ in 0..2 {
            let mut out = Vec::new();
            let mut log = Log::new(&mut out);
            log.configure(Level::Info, Some(&path));
            log.write(Level::Info, "hello", &[]);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| line.ends_with("Z level=info msg=hello")).count(), 2);

        let mut out = Vec::new();
        Log::new(&mut out).configure(Level::Info, Some(&dir.path().join("no/such/dir")));
        assert!(String::from_utf8(out).unwrap().contains("cannot open the log file"));
    }
}
