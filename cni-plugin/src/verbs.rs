//! What each verb asks the daemon, and what becomes of the answer.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use proto::agent::del_reply::Outcome;
use proto::agent::{
    AddRequest, CheckRequest, DelRequest, GcRequest, Reason, Sandbox, StatusRequest,
};

use crate::agent::{self, CallError};
use crate::conf::Conf;
use crate::env::{Attachment, Env, Verb, variable};
use crate::error::Error;
use crate::log::{Field, Level, Log};
use crate::namespace::{self, Namespace};
use crate::result::CniResult;
use crate::version::SpecVersion;

/// STATUS has a deadline of its own: go-cni holds a lock while it waits.
const STATUS_DEADLINE: Duration = Duration::from_secs(2);
/// Where a DEL is queued instead of [`proto::DEL_QUEUE`]; for tests.
const QUEUE_VARIABLE: &str = "TERWAY_DEL_QUEUE";

/// One call of the runtime, understood.
pub(crate) struct Call<'a, 'log> {
    pub(crate) verb: Verb,
    pub(crate) version: SpecVersion,
    pub(crate) env: Env<'a>,
    pub(crate) conf: Conf,
    pub(crate) log: &'a mut Log<'log>,
}

impl Call<'_, '_> {
    /// The result to print, if the verb has one.
    pub(crate) fn serve(mut self) -> Result<Option<String>, Error> {
        match self.verb {
            Verb::Add => self.add().map(Some),
            Verb::Del => self.del().map(|()| None),
            Verb::Check => self.check().map(|()| None),
            Verb::Gc => self.gc().map(|()| None),
            Verb::Status => self.status().map(|()| None),
        }
    }

    fn add(&mut self) -> Result<String, Error> {
        let started = now();
        let attachment = Attachment::from_env(self.verb, self.env)?;
        let netns = existing_namespace(&attachment)?;
        let request = AddRequest {
            sandbox: Some(attachment.sandbox(&self.conf.network)),
            netns,
            pod: attachment.pod.clone(),
            annotations: std::mem::take(&mut self.conf.annotations),
            mtu: self.conf.mtu,
            bandwidth: self.conf.bandwidth,
            ips: std::mem::take(&mut self.conf.ips),
            mac: std::mem::take(&mut self.conf.mac),
        };
        let reply = agent::call(
            &self.conf.agent_socket,
            self.conf.timeout,
            request,
            |mut client, request| async move { client.add(request).await },
        )
        .map_err(|error| failed(self.verb, attachment.subject(), error))?;
        let addresses: Vec<_> = reply.ips.iter().map(|ip| ip.address.as_str()).collect();
        let addresses = addresses.join(",");
        self.done("network added", &attachment, started, &[("addresses", &addresses)]);
        let mut result = self.conf.previous.take().unwrap_or_default();
        result.extend(self.version, reply, std::mem::take(&mut self.conf.dns));
        Ok(result.to_json())
    }

    fn del(&mut self) -> Result<(), Error> {
        let started = now();
        let attachment = Attachment::from_env(self.verb, self.env)?;
        let request = DelRequest {
            sandbox: Some(attachment.sandbox(&self.conf.network)),
            netns: self.namespace_to_clear(&attachment),
            pod: attachment.pod.clone(),
        };
        let told = agent::call(
            &self.conf.agent_socket,
            self.conf.timeout,
            request.clone(),
            |mut client, request| async move { client.del(request).await },
        );
        match told {
            Ok(reply) => {
                let message = match reply.outcome() {
                    Outcome::Removed | Outcome::Unspecified => "network removed",
                    Outcome::Nothing => "nothing to remove: the daemon knows no such sandbox",
                    Outcome::Queued => "network removal queued by the daemon, which is starting",
                };
                self.done(message, &attachment, started, &[]);
            }
            Err(error) if is_for_later(&error) => {
                let not_told = failed(self.verb, attachment.subject(), error);
                self.queue(&request, not_told)?;
            }
            Err(error) => return Err(failed(self.verb, attachment.subject(), error)),
        }
        Ok(())
    }

    /// Our own namespace is never one to clear: `/proc/PID/ns/net` of a sandbox that is gone may
    /// have become that of another process. The rest of the DEL goes on, as it does when the
    /// namespace is gone.
    fn namespace_to_clear(&mut self, attachment: &Attachment) -> String {
        let Some(netns) = attachment.netns.as_ref() else { return String::new() };
        if matches!(namespace::look(netns), Ok(Namespace::Own)) {
            let message = "the sandbox's namespace is the plugin's own: it is left alone";
            self.log.write(Level::Warn, message, &[("netns", netns)]);
            return String::new();
        }
        netns.clone()
    }

    fn queue(&mut self, request: &DelRequest, not_told: Error) -> Result<(), Error> {
        let dir = variable(self.env, QUEUE_VARIABLE)?
            .map_or_else(|| PathBuf::from(proto::DEL_QUEUE), PathBuf::from);
        match proto::queue::push(&dir, request) {
            Ok(file) => {
                self.log.write(
                    Level::Warn,
                    "network removal queued",
                    &[("file", &file.display()), ("reason", &not_told)],
                );
                Ok(())
            }
            Err(source) => Err(Error::Queue { not_told: Box::new(not_told), dir, source }),
        }
    }

    fn check(&mut self) -> Result<(), Error> {
        let started = now();
        let attachment = Attachment::from_env(self.verb, self.env)?;
        let previous = self.previous()?;
        let mut request = CheckRequest {
            sandbox: Some(attachment.sandbox(&self.conf.network)),
            netns: existing_namespace(&attachment)?,
            pod: attachment.pod.clone(),
            ..CheckRequest::default()
        };
        previous.fill(&mut request)?;
        agent::call(
            &self.conf.agent_socket,
            self.conf.timeout,
            request,
            |mut client, request| async move { client.check(request).await },
        )
        .map_err(|error| failed(self.verb, attachment.subject(), error))?;
        self.done("network checked", &attachment, started, &[]);
        Ok(())
    }

    fn previous(&mut self) -> Result<CniResult, Error> {
        self.conf.previous.take().ok_or_else(|| Error::BadValue {
            key: "prevResult".to_owned(),
            problem: "CHECK needs the result of ADD, and the runtime gave none".to_owned(),
        })
    }

    /// Without a list nothing is removed: that is not the word to empty a network on.
    /// (`cnitool gc` gives none; libcni has sent the DELs itself by then.)
    fn gc(&mut self) -> Result<(), Error> {
        let started = now();
        let network = std::mem::take(&mut self.conf.network);
        let Some(valid) = self.conf.valid.take() else {
            let message = "no cni.dev/valid-attachments: nothing is collected";
            self.log.write(Level::Warn, message, &[("network", &network)]);
            return Ok(());
        };
        let request = GcRequest { network: network.clone(), valid };
        let reply = agent::call(
            &self.conf.agent_socket,
            self.conf.timeout,
            request,
            |mut client, request| async move { client.gc(request).await },
        )
        .map_err(|error| failed(self.verb, format!("network {network}"), error))?;
        let took = took_ms(started);
        self.log.write(
            Level::Info,
            "network collected",
            &[("network", &network), ("removed", &reply.removed), ("took_ms", &took)],
        );
        Ok(())
    }

    fn status(&mut self) -> Result<(), Error> {
        agent::call(
            &self.conf.agent_socket,
            self.conf.timeout.min(STATUS_DEADLINE),
            StatusRequest {},
            |mut client, request| async move { client.status(request).await },
        )
        .map_err(|error| failed(self.verb, format!("network {}", self.conf.network), error))?;
        Ok(())
    }

    fn done(
        &mut self,
        message: &str,
        attachment: &Attachment,
        started: Instant,
        more: &[Field<'_>],
    ) {
        let Sandbox { network, container_id, ifname } = attachment.sandbox(&self.conf.network);
        let took = took_ms(started);
        let subject = attachment.subject();
        let mut fields: Vec<Field<'_>> = vec![
            ("subject", &subject),
            ("network", &network),
            ("container", &container_id),
            ("ifname", &ifname),
            ("took_ms", &took),
        ];
        fields.extend_from_slice(more);
        let level = if self.verb == Verb::Check { Level::Debug } else { Level::Info };
        self.log.write(level, message, &fields);
    }
}

/// Whether a DEL that failed like this can be acted on later: the daemon is not there, or is busy,
/// or did not say why it failed. What it says for certain goes to the runtime.
fn is_for_later(error: &CallError) -> bool {
    match error {
        CallError::Unreachable(_)
        | CallError::Distrusted(_)
        | CallError::Untyped(_)
        | CallError::Runtime(_) => true,
        CallError::Failure(failure) => matches!(
            failure.reason(),
            Reason::TryAgainLater | Reason::NotAvailable | Reason::NotAvailableAndLimited
        ),
    }
}

fn failed(verb: Verb, subject: String, error: CallError) -> Error {
    match error {
        CallError::Unreachable(unreachable) => Error::Unreachable { verb, subject, unreachable },
        CallError::Distrusted(distrust) => Error::Distrusted { verb, subject, distrust },
        CallError::Failure(failure) => Error::Daemon { failure },
        CallError::Untyped(status) => Error::Untyped {
            verb,
            subject,
            code: format!("{:?}", status.code()),
            message: status.message().to_owned(),
        },
        CallError::Runtime(error) => Error::Runtime(error),
    }
}

/// The path of a namespace that is there and is not ours.
fn existing_namespace(attachment: &Attachment) -> Result<String, Error> {
    let path = attachment.netns.clone().unwrap_or_default();
    let subject = attachment.subject();
    match namespace::look(&path) {
        Ok(Namespace::Other) => Ok(path),
        Ok(Namespace::Own) => Err(Error::OwnNamespace { subject, path }),
        Ok(Namespace::Missing) => Err(Error::NoNamespace { subject, path, left_over: false }),
        Ok(Namespace::File) => Err(Error::NoNamespace { subject, path, left_over: true }),
        Err(source) => Err(Error::Namespace { subject, path, source }),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a call took goes to the log")]
fn now() -> Instant {
    Instant::now()
}

fn took_ms(started: Instant) -> u128 {
    started.elapsed().as_millis()
}
