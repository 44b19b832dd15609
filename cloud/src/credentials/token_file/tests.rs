//! The file as it is made by `openssl`, and as it should not be.

use std::fmt::Write as _;
use std::path::Path;

use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use super::*;
use crate::credentials::tests::token_file;

const NOON: &str = "2026-11-20T12:00:00Z";

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A file with a text, and us who read it.
fn file(text: &str) -> (TempDir, TokenFile) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token-config");
    std::fs::write(&path, text).unwrap();
    (directory, TokenFile::new(path))
}

fn token(keys: &Keys) -> &str {
    keys.token.as_ref().unwrap().expose_secret()
}

/// The file with another value of a field.
fn with(field: &str, value: serde_json::Value) -> String {
    let mut file: serde_json::Value = serde_json::from_str(&token_file(0)).unwrap();
    file[field] = value;
    file.to_string()
}

/// Writes the file with another time of change.
fn rewrite(path: &Path, text: &str, seconds: u64) {
    std::fs::write(path, text).unwrap();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    std::fs::File::open(path).unwrap().set_modified(modified).unwrap();
}

#[test]
fn what_openssl_encrypts_is_read_with_every_length_of_key() {
    for number in 0..3 {
        let (keys, expires) = decode(token_file(number).as_bytes()).unwrap();
        assert_eq!(keys.id, "STS.NUkeyid");
        assert_eq!(keys.secret.expose_secret(), "sixteen letters!");
        assert_eq!(token(&keys), "CAIS".to_owned() + &"token/+==".repeat(40));
        assert_eq!(expires, at("2026-11-20T18:00:00Z"));
    }
}

#[test]
fn what_is_wrong_names_its_field_and_shows_no_secret() {
    let mut said = String::new();
    for (field, value) in [
        ("access.key.id", serde_json::Value::Null),
        ("access.key.secret", "c2VzYW1l*".into()),
        ("access.key.secret", "c2VzYW1l".into()),
        (
            "access.key.secret",
            "AgICAgICAgICAgICAgICAp2QrYXOCXEI2djmeRCgg/iOMOnT7PojX+dGoCioeoV".into(),
        ),
        ("security.token", 7.into()),
        ("security.token", "AgICAgICAgICAgICAgICAp2QrYXOCXEI2djmeRCgg/g=".into()),
        ("expiration", "tomorrow".into()),
        ("keyring", "".into()),
        ("keyring", "sesame".into()),
        ("keyring", "sesame-sesame-16".into()),
    ] {
        let text = with(field, value);
        let fault = decode(text.as_bytes()).unwrap_err();
        writeln!(said, "{fault}").unwrap();
        let fault = format!("{fault} {fault:?}");
        assert!(!fault.contains("sesame") && !fault.contains("c2V"), "{fault}");
    }
    insta::assert_snapshot!(said, @r"
    access.key.id is not a text
    access.key.secret is not base64
    access.key.secret is not two or more blocks of 16 bytes
    access.key.secret is not base64
    security.token is not a text
    security.token is not encrypted with keyring
    expiration is not a time as in RFC 3339
    keyring is empty
    keyring is not 16, 24 or 32 bytes long
    access.key.id is not encrypted with keyring
    ");
    for (text, place) in [("", (1, 0)), ("[1]", (1, 1)), ("{\n\"keyring\": sesame}", (2, 12))] {
        let (line, column) = place;
        assert_eq!(decode(text.as_bytes()).err(), Some(TokenFileFault::NotJson { line, column }));
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_says_where_it_should_be_and_what_to_do() {
    let file = TokenFile::new("/nowhere/token-config".into());
    let error = file.keys(at(NOON), soon()).await.unwrap_err();
    insta::assert_snapshot!(error, @"token file /nowhere/token-config: it cannot be read (No such file or directory (os error 2)); renew the secret addon.network.token, or correct credential_path");
}

#[tokio::test]
async fn the_file_is_read_again_when_it_has_changed() {
    let (_directory, file) = file(&token_file(0));
    let first = file.keys(at(NOON), soon()).await.unwrap();
    let same = file.keys(at(NOON), soon()).await.unwrap();
    assert!(Arc::ptr_eq(&first, &same), "it was not read again");
    let other = with("access.key.id", encrypted_id());
    rewrite(&file.path, &other, 1);
    assert_eq!(file.keys(at(NOON), soon()).await.unwrap().id, "sixteen letters!");
}

/// Another id: what the secret is in the file.
fn encrypted_id() -> serde_json::Value {
    let file: serde_json::Value = serde_json::from_str(&token_file(0)).unwrap();
    file["access.key.secret"].clone()
}

#[tokio::test(start_paused = true)]
async fn the_file_is_read_again_every_half_hour() {
    let (_directory, file) = file(&token_file(0));
    let deadline = Instant::now() + Duration::from_hours(2);
    rewrite(&file.path, &token_file(0), 1);
    let first = file.keys(at(NOON), deadline).await.unwrap();
    rewrite(&file.path, &with("access.key.id", encrypted_id()), 1);
    tokio::time::advance(Duration::from_mins(29)).await;
    assert!(Arc::ptr_eq(&first, &file.keys(at(NOON), deadline).await.unwrap()));
    tokio::time::advance(Duration::from_mins(1)).await;
    assert_eq!(file.keys(at(NOON), deadline).await.unwrap().id, "sixteen letters!");
}

#[tokio::test]
async fn the_last_keys_serve_while_they_are_valid_and_the_file_is_not_readable() {
    let (_directory, file) = file(&token_file(0));
    let first = file.keys(at(NOON), soon()).await.unwrap();
    for (broken, seconds) in [("{", 1), (&*with("keyring", "short".into()), 2)] {
        rewrite(&file.path, broken, seconds);
        let keys = file.keys(at("2026-11-20T17:59:59Z"), soon()).await.unwrap();
        assert!(Arc::ptr_eq(&first, &keys));
    }
    std::fs::remove_file(&file.path).unwrap();
    assert!(Arc::ptr_eq(&first, &file.keys(at(NOON), soon()).await.unwrap()));
    let error = file.keys(at("2026-11-20T18:00:00Z"), soon()).await.unwrap_err();
    assert!(error.to_string().contains("it cannot be read"), "{error}");
}

#[tokio::test]
async fn what_the_cloud_calls_expired_is_not_used_again_until_the_file_has_another() {
    let (_directory, file) = file(&token_file(0));
    let first = file.keys(at(NOON), soon()).await.unwrap();
    assert!(file.forget(&first));
    let error = file.keys(at(NOON), soon()).await.unwrap_err();
    assert!(error.to_string().contains("the cloud says that its session has expired"), "{error}");
    rewrite(&file.path, &with("access.key.id", encrypted_id()), 1);
    let next = file.keys(at(NOON), soon()).await.unwrap();
    assert_eq!(next.id, "sixteen letters!");
    assert!(file.forget(&first), "keys of before");
    assert!(Arc::ptr_eq(&next, &file.keys(at(NOON), soon()).await.unwrap()));
}

#[tokio::test]
async fn a_session_that_has_ended_says_when() {
    let (_directory, file) = file(&token_file(0));
    let error = file.keys(at("2026-11-20T18:00:00Z"), soon()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("expiration is 2026-11-20T18:00:00Z, which is over"), "{text}");
}

#[tokio::test]
async fn a_large_file_is_not_read_to_its_end() {
    let (_directory, file) = file(&" ".repeat(65 * 1024));
    let error = file.keys(at(NOON), soon()).await.unwrap_err();
    assert!(error.to_string().contains("more than 64 KiB"), "{error}");
}
