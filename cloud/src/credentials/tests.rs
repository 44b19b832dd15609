//! Keys are not shown, and sources take turns.

use std::io::{self, Write};
use std::sync::Mutex;
use std::time::Duration;

use super::*;

/// The file of the secret `addon.network.token`; 0 with a key of 16 bytes, 1 of 24, 2 of 32
/// (`testdata/token_config.py` made them).
pub(crate) fn token_file(number: usize) -> String {
    let files = include_str!("../../testdata/token-config.json");
    let files: Vec<serde_json::Value> = serde_json::from_str(files).unwrap();
    files[number].to_string()
}

#[test]
fn secrets_are_neither_printed_nor_repeated() {
    let keys = Keys { id: "AK".to_owned(), secret: "sesame".into(), token: Some("CAIS".into()) };
    assert_eq!(format!("{keys:?}"), "Keys { id: \"AK\", .. }");
    assert_eq!(keys.redact("sign:AK sesame CAIS"), "sign:AK [redacted] [redacted]");
    let key = Credentials::AccessKey(AccessKey { id: "AK".to_owned(), secret: "sesame".into() });
    assert!(!format!("{key:?}").contains("sesame"));
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn taken(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

#[tokio::test]
async fn it_is_said_once_which_source_is_used_and_why_not_the_one_before() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let subscriber = subscriber.without_time().with_target(false).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token-config");
    let key = AccessKey { id: "AK".to_owned(), secret: "sesame".into() };
    let sources = vec![Credentials::token_file(&path), Credentials::AccessKey(key)];
    let credentials = Credentials::first_of(sources);
    let noon = "2026-11-20T12:00:00Z".parse().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    for _ in 0..3 {
        assert_eq!(credentials.keys(noon, deadline).await.unwrap().id, "AK");
    }
    let said = log.taken().replace(path.to_str().unwrap(), "PATH");
    insta::assert_snapshot!(said, @r#"
    WARN credentials cannot be used; the next are taken source="token file" error="token file PATH: it cannot be read (No such file or directory (os error 2)); renew the secret addon.network.token, or correct credential_path"
    INFO these credentials are used source="access key"
    "#);

    std::fs::write(&path, token_file(2)).unwrap();
    for _ in 0..3 {
        assert_eq!(credentials.keys(noon, deadline).await.unwrap().id, "STS.NUkeyid");
    }
    insta::assert_snapshot!(log.taken(), @r#"INFO these credentials are used source="token file""#);
}
