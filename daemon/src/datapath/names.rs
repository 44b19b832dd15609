//! Names and numbers of a pod's links.

use std::fmt::Write as _;

use model::{IfName, Mac, SandboxKey};
use sha1::{Digest, Sha1};

use super::PodSpec;

/// What the names of our links begin with; policy engines know it.
const PREFIX: &str = "cali";
/// What the aliases of our links begin with.
const ALIAS: &str = "terway:";
/// Kernel: `IFALIASZ`, with the final zero.
const ALIAS_MAX: usize = 255;

/// The `nth` choice for the name of the host's end: from namespace and name of the pod, as policy
/// engines expect; a later choice, unique to the sandbox, is for when an old sandbox's link still
/// stands.
pub(crate) fn host(spec: &PodSpec, nth: u32) -> IfName {
    let mut text = match (&spec.pod, spec.ifname.as_str()) {
        (Some(pod), "eth0") => format!("{}.{}", pod.namespace, pod.name),
        (Some(pod), ifname) => format!("{}.{}.{ifname}", pod.namespace, pod.name),
        (None, ifname) => format!("{}{ifname}", spec.key.container_id),
    };
    if nth > 0 {
        text = format!("{text}.{}.{nth}", spec.key);
    }
    let mut name = PREFIX.to_owned();
    for digit in hex(&text).chars().take(11) {
        name.push(digit);
    }
    name.parse().expect("15 letters and digits are a name")
}

/// Who owns the link, as its alias tells.
pub(crate) fn alias(key: &SandboxKey) -> String {
    let text = format!("{ALIAS}{key}");
    if text.len() <= ALIAS_MAX { text } else { format!("{ALIAS}sha1/{}", hex(&text)) }
}

/// Whether a link with this alias is ours.
pub(crate) fn is_alias(alias: &str) -> bool {
    alias.starts_with(ALIAS)
}

/// A locally administered MAC, the same for the same `end` of the same sandbox.
pub(crate) fn mac(key: &SandboxKey, end: &str) -> Mac {
    let hash = Sha1::digest(format!("{end}/{key}"));
    let mut bytes = [0; 6];
    bytes.iter_mut().zip(hash).for_each(|(byte, hash)| *byte = hash);
    bytes[0] = (bytes[0] & 0xfc) | 0x02;
    Mac::new(bytes)
}

fn hex(text: &str) -> String {
    let mut hex = String::new();
    for byte in Sha1::digest(text) {
        // Writing to a string cannot fail.
        _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use model::{PodRef, SandboxKey};

    use super::super::tests::pod;
    use super::{alias, host, is_alias, mac};

    fn key(container_id: &str) -> SandboxKey {
        let (network, ifname) = ("terway".to_owned(), "eth0".to_owned());
        SandboxKey { network, container_id: container_id.to_owned(), ifname }
    }

    #[test]
    fn a_name_is_what_policy_engines_compute() {
        let mut spec = pod(5).spec;
        let (namespace, name) = ("default".to_owned(), "web-0".to_owned());
        spec.pod = Some(PodRef { namespace, name, uid: None });
        // printf default.web-0 | sha1sum
        assert_eq!(host(&spec, 0).as_str(), "cali0d7763386da");
        spec.ifname = "net1".parse().unwrap();
        // printf default.web-0.net1 | sha1sum
        assert_eq!(host(&spec, 0).as_str(), "calide80847183d");
    }

    #[test]
    fn a_later_choice_is_unique_to_the_sandbox() {
        let mut spec = pod(5).spec;
        let (first, second) = (host(&spec, 1), host(&spec, 2));
        spec.key.container_id = "another".to_owned();
        let other = host(&spec, 1);
        assert!(first != second && first != other && first != host(&spec, 0));
    }

    #[test]
    fn an_alias_fits_and_tells_that_it_is_ours() {
        assert_eq!(alias(&key("c5")), "terway:terway/c5/eth0");
        let long = alias(&key(&"c".repeat(300)));
        assert!(long.len() <= 255 && is_alias(&long));
        assert_ne!(long, alias(&key(&"c".repeat(301))));
        assert!(!is_alias("uplink"));
    }

    #[test]
    fn a_mac_is_local_unicast_and_differs_by_end_and_sandbox() {
        let one = mac(&key("one"), "host");
        assert_eq!(one.bytes()[0] & 0x03, 0x02);
        assert_eq!(one, mac(&key("one"), "host"));
        assert!(one != mac(&key("one"), "pod") && one != mac(&key("two"), "host"));
    }
}
