//! Whose calls are served: access keys, and the temporary ones that roles get.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::random::Random;
use super::refusal::Refusal;

/// How long the credentials of a role live.
const ROLE_LIFE: SignedDuration = SignedDuration::from_hours(6);

/// An access key that belongs to the account for good, as opposed to those of roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// `AccessKeyId`.
    pub id: String,
    /// `AccessKeySecret`.
    pub secret: String,
}

/// The temporary credentials of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleKey {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: String,
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
}

#[derive(Debug, Clone)]
struct Known {
    secret: String,
    /// Its security token and its end, if it is temporary.
    temporary: Option<(String, Timestamp)>,
}

/// All keys that were ever good.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keyring {
    known: BTreeMap<String, Known>,
    roles: BTreeMap<String, RoleKey>,
}

impl Keyring {
    pub(crate) fn add(&mut self, key: AccessKey) {
        self.known.insert(key.id, Known { secret: key.secret, temporary: None });
    }

    /// The secret of a key, if it may be used now and with this token.
    pub(crate) fn secret(
        &self,
        id: &str,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<&str, Refusal> {
        let known = self.known.get(id).ok_or_else(|| {
            let text = format!("Specified access key {id} is not found.");
            Refusal::new(404, "InvalidAccessKeyId.NotFound", text)
        })?;
        match (&known.temporary, token) {
            (None, None) => Ok(&known.secret),
            (Some((own, until)), Some(token)) if own == token => {
                if now < *until {
                    Ok(&known.secret)
                } else {
                    Err(expired())
                }
            }
            (Some(_), None) => {
                let text = "The access key is temporary and needs its SecurityToken.";
                Err(Refusal::new(400, "MissingSecurityToken", text))
            }
            (None | Some(_), Some(_)) => {
                let text = "Specified SecurityToken does not belong to the AccessKey.";
                Err(Refusal::new(400, "InvalidSecurityToken.MismatchWithAccessKey", text))
            }
        }
    }

    /// What the metadata service gives for a role: the same until half of its life is over.
    pub(crate) fn of_role(&mut self, role: &str, now: Timestamp, random: &mut Random) -> RoleKey {
        if let Some(current) = self.roles.get(role)
            && now + ROLE_LIFE / 2 < current.until
        {
            return current.clone();
        }
        let mut hex = || format!("{:016x}{:016x}", random.next(), random.next());
        let (id, secret, token) = (format!("STS.{}", hex()), hex(), hex());
        let key = RoleKey { id, secret, token, since: now, until: now + ROLE_LIFE };
        let temporary = Some((key.token.clone(), key.until));
        self.known.insert(key.id.clone(), Known { secret: key.secret.clone(), temporary });
        self.roles.insert(role.to_owned(), key.clone());
        key
    }

    /// Every temporary key ends now, as if its time were over; the metadata service gives new ones.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        for known in self.known.values_mut() {
            if let Some((_, until)) = &mut known.temporary {
                *until = now.min(*until);
            }
        }
        self.roles.clear();
    }
}

fn expired() -> Refusal {
    Refusal::new(400, "InvalidSecurityToken.Expired", "Specified SecurityToken is expired.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<&str, Refusal>) -> String {
        result.map_or_else(|refusal| refusal.code, str::to_owned)
    }

    #[test]
    fn a_key_is_used_as_it_was_given() {
        let now = Timestamp::UNIX_EPOCH;
        let mut keyring = Keyring::default();
        keyring.add(AccessKey { id: "AK".to_owned(), secret: "s".to_owned() });
        assert_eq!(keyring.secret("AK", None, now), Ok("s"));
        assert_eq!(code(keyring.secret("KA", None, now)), "InvalidAccessKeyId.NotFound");
        let mismatch = "InvalidSecurityToken.MismatchWithAccessKey";
        assert_eq!(code(keyring.secret("AK", Some("t"), now)), mismatch);

        let role = keyring.of_role("Worker", now, &mut Random::new(1));
        assert_eq!(code(keyring.secret(&role.id, Some(&role.token), now)), role.secret);
        assert_eq!(code(keyring.secret(&role.id, None, now)), "MissingSecurityToken");
        assert_eq!(code(keyring.secret(&role.id, Some("t"), now)), mismatch);
        let late = keyring.secret(&role.id, Some(&role.token), role.until);
        assert_eq!(code(late), "InvalidSecurityToken.Expired");
    }

    #[test]
    fn a_roles_key_is_renewed_before_it_ends() {
        let (now, mut random) = (Timestamp::UNIX_EPOCH, Random::new(1));
        let mut keyring = Keyring::default();
        let first = keyring.of_role("Worker", now, &mut random);
        let hour = SignedDuration::from_hours(1);
        assert_eq!(keyring.of_role("Worker", now + hour, &mut random), first);
        let second = keyring.of_role("Worker", now + hour * 4, &mut random);
        assert_ne!(second.id, first.id);
        assert!(keyring.secret(&first.id, Some(&first.token), now + hour * 5).is_ok());
        keyring.expire(now + hour * 5);
        let old = keyring.secret(&second.id, Some(&second.token), now + hour * 5);
        assert_eq!(code(old), "InvalidSecurityToken.Expired");
    }
}
