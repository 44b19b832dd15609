//! The daemon runs no other program: what it does to the kernel it does by netlink and bpf(2).
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

#[test]
fn no_module_of_the_daemon_starts_a_process() {
    let mut read = 0;
    search(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut read);
    assert!(read > 50, "{read} files are not the whole daemon");
}

fn search(folder: &Path, read: &mut u32) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, read);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *read += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            let starts = text.lines().find(|line| line.contains("Command::new("));
            // Tests may ask second witnesses.
            let is_test = path.components().any(|part| part.as_os_str() == "tests")
                || path.ends_with("tests.rs");
            assert!(is_test || starts.is_none(), "{}: {starts:?}", path.display());
        }
    }
}
