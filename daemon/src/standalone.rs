//! The node without a cluster: `eni_conf` and PodNetworkings from a directory, pods from what the
//! CNI says of them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use controlplane::PodNetworking;
use sha1::{Digest as _, Sha1};

use crate::config::{Config, ConfigError, Remark};
use crate::ipam::{AllocError, Want};

/// The annotation that chooses a PodNetworking.
pub const POD_NETWORKING: &str = "k8s.aliyun.com/pod-networking";

/// The PodNetworkings of the directory, by name.
#[derive(Debug, Clone, Default)]
pub struct PodNetworkings(Arc<BTreeMap<String, PodNetworking>>);

/// What the directory says.
#[derive(Debug, Clone)]
pub struct Manifests {
    /// The file `eni_conf`.
    pub config: Config,
    /// Said once at start.
    pub remarks: Vec<Remark>,
    /// All `*.yaml`.
    pub pod_networkings: PodNetworkings,
    /// Of the files.
    pub fingerprint: Fingerprint,
}

/// The texts of the directory's files.
#[derive(Clone)]
pub struct Sources {
    config: (PathBuf, String),
    manifests: Vec<(PathBuf, String)>,
}

/// Differs when a file's name or text does, in whatever way it came there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 20]);

impl Fingerprint {
    /// Of what was read, or of why it could not be.
    pub fn of(look: &Result<Sources, ConfigError>) -> Self {
        match look {
            Ok(sources) => sources.fingerprint(),
            Err(error) => Self::hash([error.to_string().as_bytes()]),
        }
    }

    /// The length keeps the end of one part from being the beginning of the next.
    fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha1::new();
        for part in parts {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// Keys stand in them.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("config", &self.config.0).finish_non_exhaustive()
    }
}

impl Sources {
    /// `eni_conf`, and every `*.yaml` or `*.yml` beside it.
    pub fn read(directory: &Path) -> Result<Self, ConfigError> {
        let read = |path: PathBuf| text(&path).map(|text| (path, text));
        let config = read(directory.join("eni_conf"))?;
        let manifests = yaml_files(directory)?.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { config, manifests })
    }

    fn fingerprint(&self) -> Fingerprint {
        let files = std::iter::once(&self.config).chain(&self.manifests);
        Fingerprint::hash(
            files.flat_map(|(path, text)| [path.as_os_str().as_encoded_bytes(), text.as_bytes()]),
        )
    }

    /// The error names file and key.
    pub fn parse(self) -> Result<Manifests, ConfigError> {
        let fingerprint = self.fingerprint();
        let Self { config: (path, text), manifests } = self;
        let (config, remarks) = Config::parse(&text, &path)?;
        let mut found = BTreeMap::new();
        let mut places: BTreeMap<String, PathBuf> = BTreeMap::new();
        for (file, text) in manifests {
            for pod_networking in crds::PodNetworking::from_yaml(&text, &file)? {
                match places.entry(pod_networking.name.clone()) {
                    Entry::Vacant(place) => drop(place.insert(file.clone())),
                    Entry::Occupied(first) => {
                        let (name, first) = (first.key().clone(), first.get().clone());
                        return Err(ConfigError::Duplicate { name, first, second: file });
                    }
                }
                found.insert(pod_networking.name.clone(), pod_networking.into());
            }
        }
        let pod_networkings = PodNetworkings(Arc::new(found));
        Ok(Manifests { config, remarks, pod_networkings, fingerprint })
    }
}

impl Manifests {
    /// Reads and parses the directory.
    pub fn read(directory: &Path) -> Result<Self, ConfigError> {
        Sources::read(directory)?.parse()
    }
}

/// What is no error and worth a warning.
pub fn say(remarks: &[Remark]) {
    for remark in remarks {
        match remark {
            Remark::Unknown { key, nearest } => {
                tracing::warn!(key, nearest, "eni_conf has a key that nobody knows");
            }
            Remark::NoEffect { key, why } => {
                tracing::warn!(key, why, "eni_conf has a key without effect");
            }
            Remark::Odd { key, what } => {
                tracing::warn!(key, what, "eni_conf has a value that may not be meant so");
            }
        }
    }
}

fn text(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(unreadable(path))
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> ConfigError {
    let path = path.to_owned();
    |source| ConfigError::Read { path, source }
}

/// In the order of their names, so that messages do not depend on the disk.
fn yaml_files(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let entries = fs::read_dir(directory).map_err(unreadable(directory))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: Vec<PathBuf> = paths.collect::<Result<_, _>>().map_err(unreadable(directory))?;
    let is_yaml = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
    };
    let mut files: Vec<_> = paths.into_iter().filter(is_yaml).collect();
    files.sort();
    Ok(files)
}

impl PodNetworkings {
    /// What a pod with these annotations gets: `k8s.aliyun.com/pod-networking` chooses, without it
    /// the pod shares an ENI; a name that is not known is an error that names it and the known ones.
    pub fn want(&self, annotations: &BTreeMap<String, String>) -> Result<Want, AllocError> {
        let Some(name) = annotations.get(POD_NETWORKING) else { return Ok(Want::Shared) };
        if self.0.contains_key(name) {
            return Ok(Want::Member { pod_networking: name.clone() });
        }
        Err(AllocError::unknown_pod_networking(name, &self.names()))
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&PodNetworking> {
        self.0.get(name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &PodNetworking> {
        self.0.values()
    }

    /// The names of those that are not the same in both.
    pub fn differences(&self, other: &Self) -> BTreeSet<String> {
        let names = self.0.keys().chain(other.0.keys());
        names.filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect()
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

impl FromIterator<PodNetworking> for PodNetworkings {
    fn from_iter<I: IntoIterator<Item = PodNetworking>>(all: I) -> Self {
        Self(Arc::new(all.into_iter().map(|found| (found.name.clone(), found)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: network.alibabacloud.com/v1beta1\nkind: PodNetworking\n";

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    fn named(name: &str) -> String {
        format!("{HEAD}metadata: {{name: {name}}}\nspec: {{}}\n")
    }

    #[test]
    fn an_annotation_chooses_and_a_name_that_is_not_known_is_named() {
        let (web, db) = (named("web"), named("db"));
        let conf = r#"{"security_group": "sg-1"}"#;
        let all = [("eni_conf", conf), ("a.yaml", &web), ("b.yml", &db), ("notes.txt", "x")];
        let found = Manifests::read(directory(&all).path()).unwrap().pod_networkings;
        let want = |annotations: &[(&str, &str)]| {
            let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            found.want(&annotations.iter().map(pair).collect())
        };
        assert_eq!(want(&[("a", "b")]), Ok(Want::Shared));
        let member = Want::Member { pod_networking: "web".to_owned() };
        assert_eq!(want(&[(POD_NETWORKING, "web")]), Ok(member));
        let error = want(&[(POD_NETWORKING, "wbe")]).unwrap_err();
        assert_eq!(error.reason(), proto::agent::Reason::InvalidConfig);
        assert_eq!(error.to_string(), "there is no PodNetworking \"wbe\" (known: db, web)");
    }

    #[test]
    fn a_bad_directory_is_an_error_that_names_the_file() {
        let (web, conf) = (named("web"), r#"{"security_group": "sg-1"}"#);
        let unknown = format!("{HEAD}metadata: {{name: web}}\nspec: {{vswitches: []}}\n");
        for (files, file, expected) in [
            (vec![], "eni_conf", "cannot be read"),
            (vec![("eni_conf", r#"{"max_eni": "x"}"#)], "eni_conf", "max_eni: \"x\" is not"),
            (vec![("eni_conf", conf), ("a.yaml", unknown.as_str())], "a.yaml", "unknown field"),
            (
                vec![("eni_conf", conf), ("a.yaml", web.as_str()), ("b.yaml", web.as_str())],
                "b.yaml",
                "PodNetworking \"web\" is already in",
            ),
        ] {
            let directory = directory(&files);
            let error = Manifests::read(directory.path()).unwrap_err().to_string();
            let path = directory.path().join(file).display().to_string();
            assert!(error.starts_with(&path) && error.contains(expected), "{error}");
        }
    }
}
