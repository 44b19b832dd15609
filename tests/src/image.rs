//! The one image of the lab, made here, for there is no registry: a docker-archive with the static
//! program `lab-pod`.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Its reference.
pub const IMAGE: &str = "docker.io/lab/pod:1";

/// Writes the archive of an image whose only file is `program`, as `/lab-pod`.
pub fn write(program: &Path, archive: &Path) -> Result<()> {
    let binary =
        std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let layer = tar(&[("lab-pod", &binary, 0o755)])?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Entrypoint": ["/lab-pod"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))] },
    })
    .to_string();
    let config_name = format!("{}.json", hex(config.as_bytes()));
    let manifest = json!([{
        "Config": config_name,
        "RepoTags": [IMAGE],
        "Layers": ["layer/layer.tar"],
    }])
    .to_string();
    let image = tar(&[
        (&config_name, config.as_bytes(), 0o644),
        ("layer/layer.tar", &layer, 0o644),
        ("manifest.json", manifest.as_bytes(), 0o644),
    ])?;
    std::fs::write(archive, image).with_context(|| format!("cannot write {}", archive.display()))
}

fn tar(files: &[(&str, &[u8], u32)]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len())?);
        header.set_mode(*mode);
        builder.append_data(&mut header, name, *content)?;
    }
    let mut bytes = builder.into_inner()?;
    bytes.flush()?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(&Sha256::digest(bytes))
}
