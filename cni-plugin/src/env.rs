//! What the environment says: the verb, and the attachment that it is about.

use std::ffi::OsString;
use std::fmt;

use proto::agent::{Pod, Sandbox};

use crate::error::Error;

/// Reads an environment variable.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Asks for what the specification's versions are, and needs nothing.
    Version,
    /// Comes with a network configuration.
    Verb(Verb),
}

impl Command {
    pub(crate) fn from_env(env: Env<'_>) -> Result<Self, Error> {
        let text = variable(env, "CNI_COMMAND")?
            .ok_or_else(|| Error::MissingVariables { names: vec!["CNI_COMMAND"] })?;
        if text == "VERSION" {
            return Ok(Self::Version);
        }
        let verb = Verb::ALL.into_iter().find(|verb| verb.as_str() == text);
        verb.map(Self::Verb).ok_or(Error::BadVariable {
            name: "CNI_COMMAND",
            value: text,
            expected: "ADD, DEL, CHECK, GC, STATUS or VERSION",
        })
    }
}

/// What is asked of the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
}

impl Verb {
    const ALL: [Self; 5] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One sandbox's attachment to the network, for ADD, DEL and CHECK.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attachment {
    /// `CNI_CONTAINERID`.
    pub(crate) container_id: String,
    /// `CNI_IFNAME`.
    pub(crate) ifname: String,
    /// `CNI_NETNS`; a DEL may be without.
    pub(crate) netns: Option<String>,
    /// From `CNI_ARGS`; absent without Kubernetes.
    pub(crate) pod: Option<Pod>,
}

impl Attachment {
    /// Reads the variables of `verb`.
    pub(crate) fn from_env(verb: Verb, env: Env<'_>) -> Result<Self, Error> {
        let container_id = variable(env, "CNI_CONTAINERID")?;
        let ifname = variable(env, "CNI_IFNAME")?;
        let netns = variable(env, "CNI_NETNS")?;
        let (Some(container_id), Some(ifname), true) =
            (&container_id, &ifname, netns.is_some() || verb == Verb::Del)
        else {
            let needed = [
                ("CNI_CONTAINERID", container_id.is_some()),
                ("CNI_NETNS", netns.is_some() || verb == Verb::Del),
                ("CNI_IFNAME", ifname.is_some()),
            ];
            let names = needed.iter().filter(|(_, given)| !given).map(|(name, _)| *name);
            return Err(Error::MissingVariables { names: names.collect() });
        };
        check_container_id(container_id)?;
        check_ifname(ifname)?;
        if let Some(netns) = netns.as_ref().filter(|netns| !netns.starts_with('/')) {
            return Err(bad("CNI_NETNS", netns, "an absolute path"));
        }
        let pod = pod(&variable(env, "CNI_ARGS")?.unwrap_or_default())?;
        Ok(Self { container_id: container_id.clone(), ifname: ifname.clone(), netns, pod })
    }

    /// Its key at the daemon.
    pub(crate) fn sandbox(&self, network: &str) -> Sandbox {
        Sandbox {
            network: network.to_owned(),
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
        }
    }

    /// How messages call it.
    pub(crate) fn subject(&self) -> String {
        self.pod.as_ref().map_or_else(
            || format!("sandbox {}", self.container_id),
            |pod| format!("pod {}/{}", pod.namespace, pod.name),
        )
    }
}

/// A variable that is set to something.
pub(crate) fn variable(env: Env<'_>, name: &'static str) -> Result<Option<String>, Error> {
    let Some(value) = env(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    value.into_string().map(Some).map_err(|value| Error::BadVariable {
        name,
        value: value.to_string_lossy().into_owned(),
        expected: "UTF-8",
    })
}

fn bad(name: &'static str, value: &str, expected: &'static str) -> Error {
    Error::BadVariable { name, value: value.to_owned(), expected }
}

/// Whether `text` is a name as the specification wants container ids and networks.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// What [`is_name`] wants, for messages.
pub(crate) const NAME: &str = "letters, digits, '_', '.' and '-', a letter or digit first";

fn check_container_id(id: &str) -> Result<(), Error> {
    if is_name(id) { Ok(()) } else { Err(bad("CNI_CONTAINERID", id, NAME)) }
}

/// The kernel's rules for a link's name (`dev_valid_name`), without the names that mean something
/// else: `lo`, the sysctl folders `all` and `default`, and patterns such as `eth%d`.
fn check_ifname(name: &str) -> Result<(), Error> {
    let reserved = [".", "..", "lo", "all", "default"].contains(&name);
    let odd = name.contains(|c: char| "/:%".contains(c) || c.is_whitespace() || c.is_control());
    if reserved || odd || name.len() > 15 {
        let expected = "1 to 15 bytes without '/', ':', '%' and blanks, and not lo, all or default";
        return Err(bad("CNI_IFNAME", name, expected));
    }
    Ok(())
}

/// The pod of `CNI_ARGS` (`KEY=VALUE;…`); what else stands there is ignored.
fn pod(args: &str) -> Result<Option<Pod>, Error> {
    let mut pod = Pod::default();
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| bad("CNI_ARGS", args, "pairs KEY=VALUE with ';' between them"))?;
        let field = match key {
            "K8S_POD_NAMESPACE" => &mut pod.namespace,
            "K8S_POD_NAME" => &mut pod.name,
            "K8S_POD_UID" => &mut pod.uid,
            // K8S_POD_INFRA_CONTAINER_ID says once more what CNI_CONTAINERID says.
            _ => continue,
        };
        value.clone_into(field);
    }
    match (pod.namespace.is_empty(), pod.name.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some(pod)),
        _ => Err(bad("CNI_ARGS", args, "K8S_POD_NAMESPACE and K8S_POD_NAME, both or neither")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(verb: Verb, variables: &[(&str, &str)]) -> Result<Attachment, Error> {
        Attachment::from_env(verb, &|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn names_of_links_are_those_that_a_pod_may_have() {
        for good in ["eth0", "a", "net1.5", "fifteen-bytes-x", "ähm"] {
            check_ifname(good).unwrap();
        }
        let bad = ["sixteen-bytes-xy", "a b", "a/b", "a:b", "eth%d", ".", "..", "lo", "all", "\n"];
        for bad in bad {
            check_ifname(bad).unwrap_err();
        }
    }

    #[test]
    fn names_are_those_of_the_specification() {
        for good in ["a", "0", "cbr0.x_y-z"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".a", "-a", "_a", "a/b", "a b", "ä"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_pod_is_found_among_arguments_that_are_not_ours() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;FOO=a=b;;\
                    K8S_POD_UID=u1;K8S_POD_INFRA_CONTAINER_ID=c1";
        let pod = pod(args).unwrap().unwrap();
        assert_eq!((&*pod.namespace, &*pod.name, &*pod.uid), ("shop", "web-0", "u1"));
        assert_eq!(super::pod("FOO=1").unwrap(), None);
        assert_eq!(super::pod("").unwrap(), None);
    }

    #[test]
    fn half_a_pod_is_refused() {
        for args in ["K8S_POD_NAME=web-0", "K8S_POD_NAMESPACE=shop", "K8S_POD_NAME"] {
            pod(args).unwrap_err();
        }
    }

    #[test]
    fn a_del_needs_no_namespace() {
        let both = [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")];
        assert_eq!(attachment(Verb::Del, &both).unwrap().netns, None);
        attachment(Verb::Add, &both).unwrap_err();
        attachment(Verb::Check, &both).unwrap_err();
    }
}
