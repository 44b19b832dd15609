//! What nobody may ask of the cloud, whatever happened before.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use cloud::{AddressRequest, ClientToken};
use ipnetwork::IpNetwork;
use model::EniId;

use super::{Simulation, Write, addresses};
use crate::TOKEN_TAG;

/// A rule of those who call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// An ENI is never asked to be made with more than it can hold.
    Quota,
    /// A token stands for one intent.
    Token,
    /// A primary address is never unassigned.
    Primary,
    /// What somebody else made is never touched.
    Foreign,
    /// What carries a pod is not taken away.
    Live,
}

/// One breach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Of which rule.
    pub rule: Rule,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// What each token was first used for.
pub(super) type Intents = BTreeMap<ClientToken, String>;

impl Simulation {
    /// Holds a write against the rules at the moment that it takes effect.
    pub(super) fn judge(&mut self, write: &Write) {
        self.judge_token(write);
        let (eni, goes) = match write {
            Write::Create(request) => {
                let v4 = request.secondary_v4 + 1 + request.v4_prefixes;
                let most = v4.max(request.v6 + request.v6_prefixes);
                if usize::try_from(most).is_ok_and(|most| most > self.limits.addresses) {
                    self.breach(Rule::Quota, format!("an ENI was asked for {most} addresses"));
                }
                return;
            }
            Write::Attach(request) => (&request.eni, Goes::Nothing),
            Write::Detach(request) => (&request.eni, Goes::Eni),
            Write::Delete(id) => (id, Goes::Eni),
            Write::AssignV4(request) => (&request.eni, Goes::Nothing),
            Write::AssignV6(request) => (&request.eni, Goes::Nothing),
            Write::AssignV4Prefixes(request) | Write::AssignV6Prefixes(request) => {
                (&request.eni, Goes::Nothing)
            }
            Write::UnassignV4Prefixes(id, gone) => {
                (id, Goes::Prefixes(gone.iter().copied().map(IpNetwork::V4).collect()))
            }
            Write::UnassignV6Prefixes(id, gone) => {
                (id, Goes::Prefixes(gone.iter().copied().map(IpNetwork::V6).collect()))
            }
            Write::UnassignV4(id, gone) => {
                (id, Goes::Addresses(gone.iter().copied().map(IpAddr::V4).collect()))
            }
            Write::UnassignV6(id, gone) => {
                (id, Goes::Addresses(gone.iter().copied().map(IpAddr::V6).collect()))
            }
        };
        self.judge_change(eni, &goes, write.action().name());
    }

    fn judge_change(&mut self, id: &EniId, goes: &Goes, action: &str) {
        let Some(eni) = self.enis.get(id) else { return };
        let mut breaches = Vec::new();
        if !eni.tags.contains_key(TOKEN_TAG) {
            breaches.push((Rule::Foreign, format!("{action} of {id}, which is not ours")));
        }
        match goes {
            Goes::Nothing | Goes::Prefixes(_) => {}
            Goes::Eni => {
                if self.live_enis.contains(id) {
                    breaches.push((Rule::Live, format!("{action} of {id}, which carries a pod")));
                }
            }
            Goes::Addresses(gone) => {
                let here = addresses(eni);
                for address in gone.iter().filter(|address| here.contains(address)) {
                    if eni.primary_v4.map(IpAddr::V4) == Some(*address) {
                        let what = format!("{action} of {address}, the primary one of {id}");
                        breaches.push((Rule::Primary, what));
                    }
                    if self.live_addresses.contains(address) {
                        let what = format!("{action} of {address} on {id}, which a pod has");
                        breaches.push((Rule::Live, what));
                    }
                }
            }
        }
        if let Goes::Prefixes(gone) = goes {
            let inside = |address: &&IpAddr| gone.iter().any(|prefix| prefix.contains(**address));
            let live = self.live_addresses.iter().filter(inside);
            let what =
                |address| format!("{action} of the prefix of {address} on {id}, which a pod has");
            breaches.extend(live.map(|address| (Rule::Live, what(address))));
        }
        for (rule, what) in breaches {
            self.breach(rule, what);
        }
    }

    fn judge_token(&mut self, write: &Write) {
        let (token, intent) = match write {
            Write::Create(request) => (&request.token, format!("{request:?}")),
            Write::AssignV4(request) => {
                (&request.token, intent(&request.eni, &request.addresses, "IPv4"))
            }
            Write::AssignV6(request) => {
                (&request.token, intent(&request.eni, &request.addresses, "IPv6"))
            }
            Write::AssignV4Prefixes(request) => {
                (&request.token, format!("{} IPv4 prefixes on {}", request.count, request.eni))
            }
            Write::AssignV6Prefixes(request) => {
                (&request.token, format!("{} IPv6 prefixes on {}", request.count, request.eni))
            }
            _ => return,
        };
        let first = self.intents.entry(token.clone()).or_insert_with(|| intent.clone());
        if *first != intent {
            let what = format!("token {token} was used for {first} and for {intent}");
            self.breach(Rule::Token, what);
        }
    }

    fn breach(&mut self, rule: Rule, what: String) {
        self.violations.push(Violation { rule, what });
    }
}

/// What a change takes away.
enum Goes {
    Nothing,
    Eni,
    Addresses(Vec<IpAddr>),
    Prefixes(Vec<IpNetwork>),
}

fn intent<T: fmt::Debug>(eni: &EniId, addresses: &AddressRequest<T>, family: &str) -> String {
    format!("{addresses:?} {family} on {eni}")
}
