//! The network configuration list that tells the runtime of us. Written last: when it stands, the
//! node takes pods.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Why the list could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written", path.display())]
pub struct InstallError {
    path: PathBuf,
    source: io::Error,
}

/// What [`install`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// The same list stood already.
    Unchanged,
    /// There was none.
    Written,
    /// Another one stood there.
    Replaced,
}

/// The list for a daemon that serves on `agent_socket`.
pub fn text(agent_socket: &Path) -> Result<String, serde_json::Error> {
    if agent_socket == Path::new(proto::AGENT_SOCKET) {
        return Ok(proto::conflist::TEXT.to_owned());
    }
    let mut list: Value = serde_json::from_str(proto::conflist::TEXT)?;
    list["plugins"][0]["agentSocket"] = json!(agent_socket);
    Ok(format!("{list:#}\n"))
}

/// Writes `text` to `path` so that a reader sees the old list or the new one, also after a crash.
pub fn install(path: &Path, text: &str) -> Result<Installed, InstallError> {
    let outcome = match fs::read(path) {
        Ok(found) if found == text.as_bytes() => return Ok(Installed::Unchanged),
        Ok(_other) => Installed::Replaced,
        Err(_missing) => Installed::Written,
    };
    replace(path, text).map_err(|source| InstallError { path: path.to_owned(), source })?;
    Ok(outcome)
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    // libcni reads what ends in .conf, .conflist or .json.
    let aside = path.with_extension("conflist.tmp");
    let mut file = File::create(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_the_socket_only_where_it_is_another_one() {
        let socket = |path: &str| {
            let list: Value = serde_json::from_str(&text(Path::new(path)).unwrap()).unwrap();
            list["plugins"][0]["agentSocket"].clone()
        };
        assert_eq!(socket("/run/terway/agent.sock"), Value::Null);
        assert_eq!(socket("/run/other/agent.sock"), "/run/other/agent.sock");
    }

    #[test]
    fn the_list_is_written_once_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net.d/10-terway.conflist");
        assert_eq!(install(&path, "a").unwrap(), Installed::Written);
        assert_eq!(install(&path, "a").unwrap(), Installed::Unchanged);
        assert_eq!(install(&path, "b").unwrap(), Installed::Replaced);
        assert_eq!(fs::read_to_string(&path).unwrap(), "b");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_list_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = install(&file.join("10-terway.conflist"), "a").unwrap_err().to_string();
        assert!(error.ends_with("/file/10-terway.conflist cannot be written"), "{error}");
    }
}
