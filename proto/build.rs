//! Generates the gRPC code with protox: no system protoc is needed.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["proto/agent.proto", "proto/debug.proto", "proto/google/rpc/status.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(out, descriptors.encode_to_vec())?;
    let mut builder = tonic_prost_build::configure()
        .build_server(std::env::var_os("CARGO_FEATURE_SERVER").is_some())
        .build_transport(true);
    if std::env::var_os("CARGO_FEATURE_SERDE").is_some() {
        let derive = "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]";
        builder = builder.message_attribute(".terway.debug.v1", derive);
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
