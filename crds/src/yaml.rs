//! Documents of a YAML file, with errors that name the file, the object and the field.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::API_VERSION;

/// Why a file is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// Not YAML at all.
    #[error("{file}: {reason}", file = file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// With line and column.
        reason: String,
    },
    /// A document of another kind.
    #[error(
        "{file}: document {document} is {found}, and only {expected} is read here: take it out of the directory",
        file = file.display()
    )]
    Kind {
        /// The file.
        file: PathBuf,
        /// Its number in the file, from 1.
        document: usize,
        /// `apiVersion` and `kind` as they stand.
        found: String,
        /// As they should be.
        expected: String,
    },
    /// A field that is unknown, missing, or of a wrong type or value.
    #[error("{file}: {object}: {field}: {reason}", file = file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// Kind and name of the object.
        object: String,
        /// Path of the field.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

/// Where a document stands, for errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a Path,
    pub(crate) kind: &'static str,
    pub(crate) name: &'a str,
}

impl Place<'_> {
    pub(crate) fn wrong(&self, field: &str, reason: impl Into<String>) -> YamlError {
        YamlError::Field {
            file: self.file.to_owned(),
            object: format!("{} {:?}", self.kind, self.name),
            field: field.to_owned(),
            reason: reason.into(),
        }
    }
}

/// The documents of `text`, each as the spec of an object of this kind with its name.
pub(crate) fn objects<T: DeserializeOwned>(
    text: &str,
    file: &Path,
    kind: &'static str,
) -> Result<Vec<(String, T)>, YamlError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|e| YamlError::Syntax { file: file.to_owned(), reason: e.to_string() })?;
    documents
        .into_iter()
        .zip(1..)
        .map(|(document, number)| object(document, number, file, kind))
        .collect()
}

fn object<T: DeserializeOwned>(
    mut document: Value,
    number: usize,
    file: &Path,
    kind: &'static str,
) -> Result<(String, T), YamlError> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("?").to_owned();
    let found = (text(document.get("apiVersion")), text(document.get("kind")));
    if (found.0.as_str(), found.1.as_str()) != (API_VERSION, kind) {
        return Err(YamlError::Kind {
            file: file.to_owned(),
            document: number,
            found: format!("apiVersion {} kind {}", found.0, found.1),
            expected: format!("apiVersion {API_VERSION} kind {kind}"),
        });
    }
    let name = text(document.pointer("/metadata/name"));
    let place = Place { file, kind, name: &name };
    if !is_object_name(&name) {
        let reason = "must be lower-case letters, digits, '-' and '.', at most 253 characters";
        return Err(place.wrong("metadata.name", reason));
    }
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    let mut keys = document.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    if let Some(unknown) = keys.find(|key| !known.contains(key)) {
        return Err(place.wrong(unknown, format!("unknown field, expected one of {known:?}")));
    }
    let spec = document
        .get_mut("spec")
        .map(Value::take)
        .ok_or_else(|| place.wrong("spec", "is missing"))?;
    let spec = serde_path_to_error::deserialize(spec).map_err(|e| {
        let path = e.path().to_string();
        let field = if path == "." { "spec".to_owned() } else { format!("spec.{path}") };
        place.wrong(&field, e.into_inner().to_string())
    })?;
    Ok((name, spec))
}

/// DNS subdomain, RFC 1123: what Kubernetes takes as the name of an object.
fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        let ends =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends(label.chars().next())
            && ends(label.chars().last())
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
