//! What is put on nodes: the staged binary, and what it is made of.

use std::path::PathBuf;
use std::process::Command;

use crate::support::program;

/// `terway` in the stage directory.
fn staged() -> String {
    let stage = std::env::var_os("TERWAY_STAGE").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/stage/dev")),
        PathBuf::from,
    );
    let path = stage.join("terway");
    assert!(path.exists(), "{} is missing: run cargo xtask build", path.display());
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_staged_binary_is_at_most_4_mib_static_and_runs() {
    let path = staged();
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() <= 4 << 20, "{path} has {} bytes", bytes.len());
    assert!(!has_interpreter(&bytes), "{path} needs a dynamic linker");
    let run = program(&path, &[("CNI_COMMAND", "VERSION")], b"{}");
    assert!(run.result().contains("1.1.0"), "{run:?}");
}

#[test]
fn the_plugin_is_made_without_netlink_ebpf_and_kubernetes() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "cni-plugin", "--edges", "normal", "--prefix", "none"])
        .args(["--target", "x86_64-unknown-linux-musl", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains(&"cni-plugin") && crates.contains(&"tonic"), "{tree}");
    let foreign = ["aya", "rtnetlink", "netlink-packet-route", "netlink-sys", "kube", "daemon"];
    let heavy = ["tracing-subscriber", "rustls", "axum", "regex"];
    for name in foreign.into_iter().chain(heavy) {
        assert!(!crates.contains(&name), "{name} is in the tree of cni-plugin");
    }
}

/// Whether a program header of this 64-bit little-endian ELF file is `PT_INTERP`.
fn has_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    assert_eq!(elf[..6], *b"\x7fELF\x02\x01", "not a 64-bit little-endian ELF file");
    let half = |at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().unwrap()));
    let start = usize::try_from(u64::from_le_bytes(elf[32..40].try_into().unwrap())).unwrap();
    let (size, count) = (half(54), half(56));
    assert!(count > 0, "no program headers");
    let kind = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().unwrap());
    (0..count).any(|i| kind(start + i * size) == PT_INTERP)
}
