//! What `CNI_NETNS` leads to. Nothing is entered here: files are compared.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

const OWN: &str = "/proc/self/ns/net";

/// What a path is, as seen from this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// A namespace, and not ours.
    Other,
    /// The one that this process is in.
    Own,
    /// There is no such file.
    Missing,
    /// A file, but no namespace: what `ip netns del` or a reboot can leave.
    File,
}

/// Looks at `path`.
pub(crate) fn look(path: &str) -> io::Result<Namespace> {
    let own = fs::metadata(OWN)?;
    let it = match fs::metadata(path) {
        Ok(it) => it,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Namespace::Missing),
                _ => Err(error),
            };
        }
    };
    Ok(match (it.dev() == own.dev(), it.ino() == own.ino()) {
        (true, true) => Namespace::Own,
        (true, false) => Namespace::Other,
        // All namespaces lie on one file system of the kernel (nsfs), and nothing else does.
        (false, _) => Namespace::File,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_told_from_ours_and_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(OWN, &link).unwrap();
        for (path, expected) in [
            (OWN, Namespace::Own),
            (link.to_str().unwrap(), Namespace::Own),
            // A namespace of another kind stands for another network here.
            ("/proc/self/ns/mnt", Namespace::Other),
            ("/dev/null", Namespace::File),
            ("/run/netns-of-nobody/x", Namespace::Missing),
            ("/dev/null/x", Namespace::Missing),
        ] {
            assert_eq!(look(path).unwrap(), expected, "{path}");
        }
    }
}
