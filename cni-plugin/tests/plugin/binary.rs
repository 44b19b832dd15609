//! The program itself, run as a runtime runs it.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Answer, Daemon, Namespace, conf, plugin, program, variables};

const TERWAY: &str = env!("CARGO_BIN_EXE_terway");

#[test]
fn the_program_adds_as_the_function_does() {
    let (daemon, netns) = (Daemon::start(Answer::Succeed), Namespace::new());
    let variables = variables("ADD", &[("CNI_NETNS", netns.path())]);
    let conf = conf(json!({ "agentSocket": daemon.socket() }));
    let run = program(TERWAY, &variables, conf.as_bytes());
    assert_eq!(run.result(), plugin(&variables, &conf).result());
    assert_eq!(daemon.seen()[0], daemon.seen()[1]);
    assert!(run.stderr.contains("msg=\"network added\" subject=\"pod shop/web-0\""), "{run:?}");
}

#[test]
fn the_program_fails_with_an_object_on_stdout_and_exit_code_1() {
    let run = program(TERWAY, &variables("ADD", &[]), b"{");
    let error: Value = serde_json::from_str(run.error()).unwrap();
    assert_eq!((run.code, &error["code"]), (1, &json!(6)));
    assert!(run.stderr.contains("level=error"), "{run:?}");
}

#[test]
fn a_reader_of_stdout_that_is_gone_is_a_failure_and_no_panic() {
    let mut child = Command::new(TERWAY)
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // VERSION waits for the end of stdin, so it cannot have written yet.
    drop(child.stdout.take());
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("cannot write the result to stdout"), "{stderr}");
}

#[test]
fn a_variable_that_is_not_text_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let output = Command::new(TERWAY)
        .env_clear()
        .envs(variables("DEL", &[]))
        .env("CNI_CONTAINERID", std::ffi::OsStr::from_bytes(b"c\xff"))
        .stdin({
            let (reader, mut writer) = std::io::pipe().unwrap();
            std::io::Write::write_all(&mut writer, conf(json!({})).as_bytes()).unwrap();
            reader
        })
        .output()
        .unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 4, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("CNI_CONTAINERID"), "{error}");
}
