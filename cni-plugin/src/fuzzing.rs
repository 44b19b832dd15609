//! What the fuzzer of stdin drives (`fuzz/`).

use proto::agent::{AddReply, CheckRequest};
use serde_json::Value;

use crate::conf::{self, Conf};
use crate::error::Error;
use crate::version::SpecVersion;

/// A network configuration, up to where the daemon would be called. A refusal is an error object of
/// the specification, and so is the result that a `prevResult` becomes.
pub fn stdin(mut bytes: &[u8]) {
    let mut version = SpecVersion::NEWEST;
    let printed = match parse(&mut bytes, &mut version) {
        Ok(Some(result)) => result,
        Ok(None) => return,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            error.to_json(version)
        }
    };
    let printed: Value = serde_json::from_str(&printed).expect("what is printed is JSON");
    assert_eq!(printed["cniVersion"], version.as_str());
}

fn parse(stdin: &mut &[u8], version: &mut SpecVersion) -> Result<Option<String>, Error> {
    let map = conf::read(stdin)?;
    *version = SpecVersion::parse(conf::spec_version(&map)?)?;
    let conf = Conf::parse(map)?;
    let Some(mut previous) = conf.previous else { return Ok(None) };
    previous.fill(&mut CheckRequest::default())?;
    previous.extend(*version, AddReply::default(), conf.dns);
    Ok(Some(previous.to_json()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_corpus_of_stdin_holds() {
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/cni_stdin");
        let files: Vec<_> = std::fs::read_dir(kept).unwrap().map(Result::unwrap).collect();
        assert!(files.len() >= 5, "{kept} has only {} inputs", files.len());
        for file in files {
            stdin(&std::fs::read(file.path()).unwrap());
        }
    }
}
