//! What the fuzzers drive (`fuzz/`): each parser of what comes from outside. A run must not panic, and
//! keeps the laws that stand here.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use model::{InstanceTypeId, Mac};
use secrecy::ExposeSecret as _;
use serde::de::DeserializeOwned;

use crate::answer::{
    AssignedV4, AssignedV4Prefixes, AssignedV6, AssignedV6Prefixes, DescribedInstanceTypes,
    DescribedVSwitches, Done, Misread, NetworkInterface, NetworkInterfaces, Refusal, from_json,
};
use crate::metadata::text;
use crate::{Action, Eni, code, credentials};

/// An answer of the metadata service, read as every fact.
pub fn metadata(bytes: &[u8]) {
    let fact = String::from_utf8_lossy(bytes);
    let path = "fact";
    if let Ok(name) = text::name(path, &fact) {
        assert!(!name.contains(['/', ' ', '\n']), "a name goes into a path: {name:?}");
    }
    drop(text::maybe::<Mac>(path, &fact));
    drop(text::maybe::<Ipv4Addr>(path, &fact));
    drop(text::maybe::<Ipv6Addr>(path, &fact));
    drop(text::maybe::<IpNetwork>(path, &fact));
    drop(text::list::<Mac>(path, &fact.replace('/', " ")));
    drop(text::list::<Ipv4Addr>(path, &fact));
    drop(text::list::<Ipv6Addr>(path, &fact));
    drop(text::token(path, &fact));
    match text::role(path, &fact) {
        Ok(role) => drop((role.id, role.secret, role.token, role.expires)),
        Err(error) => drop(error.to_string()),
    }
}

/// An answer of the API, read as every action's and as a refusal.
pub fn api_answer(bytes: &[u8]) {
    if let Some((enis, next)) = read(bytes, NetworkInterfaces::read) {
        assert!(next.is_none_or(|next| !next.is_empty()));
        enis.iter().for_each(holds);
    }
    if let Some(eni) = read(bytes, NetworkInterface::read) {
        holds(&eni);
    }
    read(bytes, AssignedV4::read);
    read(bytes, AssignedV6::read);
    for prefix in read(bytes, AssignedV4Prefixes::read).unwrap_or_default() {
        assert_eq!(prefix.ip(), prefix.network());
    }
    for prefix in read(bytes, AssignedV6Prefixes::read).unwrap_or_default() {
        assert_eq!(prefix.ip(), prefix.network());
    }
    read(bytes, DescribedVSwitches::read);
    read(bytes, Ok::<Done, Misread>);
    if let Some(types) = read(bytes, Ok::<DescribedInstanceTypes, Misread>) {
        types.find(&InstanceTypeId::new("ecs.g7.xlarge"));
    }
    if let Ok(Refusal { code, .. }) = from_json(bytes) {
        for action in Action::ALL {
            code::meaning(action, &code, 400, None);
        }
    }
}

/// The token file.
pub fn token_file(bytes: &[u8]) {
    match credentials::decode(bytes) {
        Ok((keys, _expires)) => {
            assert!(!keys.id.is_empty() && !keys.secret.expose_secret().is_empty());
            assert!(keys.token.is_some_and(|token| !token.expose_secret().is_empty()));
        }
        Err(fault) => drop(fault.to_string()),
    }
}

fn read<W: DeserializeOwned, T>(bytes: &[u8], read: fn(W) -> Result<T, Misread>) -> Option<T> {
    let read = read(from_json::<W>(bytes).ok()?);
    read.map_err(|misread| misread.to_string()).ok()
}

fn holds(eni: &Eni) {
    assert!(!eni.id.as_str().is_empty() && !eni.vpc.as_str().is_empty());
    let primary = eni.primary_v4.is_none_or(|primary| eni.v4.first() == Some(&primary));
    assert!(primary, "the primary address comes first: {eni:?}");
    assert!(eni.vlan().is_none() || eni.trunk.is_some());
    assert_eq!(eni.kind.to_string(), eni.kind.as_str());
    assert_eq!(eni.status.to_string(), eni.status.as_str());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs what is kept for a fuzzer through what it drives.
    fn replay(target: &str, run: fn(&[u8])) {
        let kept = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let files: Vec<_> = std::fs::read_dir(&kept).unwrap().map(Result::unwrap).collect();
        assert!(files.len() >= 5, "{kept} has only {} inputs", files.len());
        for file in files {
            run(&std::fs::read(file.path()).unwrap());
        }
    }

    #[test]
    fn the_kept_corpus_of_metadata_holds() {
        replay("metadata", metadata);
    }

    #[test]
    fn the_kept_corpus_of_api_answers_holds() {
        replay("api_answer", api_answer);
    }

    #[test]
    fn the_kept_corpus_of_the_token_file_holds() {
        replay("token_file", token_file);
    }
}
