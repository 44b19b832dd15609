//! The control API from the other side.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use reqwest::{Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::control::{ControlRefusal, FlowQuery, Judgement, Reserved, Seed, WantedState};
use super::dump::Dump;
use super::faults::Fault;
use super::journal::CallRecord;
use super::metadata::MetadataFaults;
use super::settings::Settings;
use super::world::InstanceState;

/// A client of the control API of a lab.
#[derive(Debug, Clone)]
pub struct Control {
    base: String,
    http: reqwest::Client,
}

/// Why the control API did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No lab is there, or it does not speak.
    #[error("no answer from the lab at {url}; is it up? (terway-lab up)")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It says no.
    #[error("the lab refuses {url}: {reason}")]
    Refused {
        /// What was asked.
        url: String,
        /// Its words.
        reason: String,
    },
}

impl Control {
    /// `base` is the `control` of a lab's `lab.json`, as `http://127.0.0.1:4000`.
    pub fn new(base: impl Into<String>) -> Self {
        let base: String = base.into();
        // A proxy of the environment has no business with a lab.
        let http = reqwest::Client::builder().no_proxy().build().unwrap_or_default();
        Self { base: base.trim_end_matches('/').to_owned(), http }
    }

    /// The whole truth.
    pub async fn dump(&self) -> Result<Dump, ControlError> {
        self.get("/dump").await
    }

    /// The latest calls, oldest first.
    pub async fn calls(&self) -> Result<Vec<CallRecord>, ControlError> {
        self.get("/calls").await
    }

    /// Forgets calls and counts.
    pub async fn forget_calls(&self) -> Result<(), ControlError> {
        self.send(Method::DELETE, "/calls", &()).await.map(drop)
    }

    /// Faults that wait.
    pub async fn faults(&self) -> Result<Vec<Fault>, ControlError> {
        self.get("/faults").await
    }

    /// One more fault.
    pub async fn add_fault(&self, fault: &Fault) -> Result<(), ControlError> {
        self.send(Method::POST, "/faults", fault).await.map(drop)
    }

    /// No fault waits any more.
    pub async fn clear_faults(&self) -> Result<(), ControlError> {
        self.send(Method::DELETE, "/faults", &()).await.map(drop)
    }

    /// What is left to chance goes the same way from here on.
    pub async fn seed(&self, seed: u64) -> Result<(), ControlError> {
        self.send(Method::PUT, "/seed", &Seed { seed }).await.map(drop)
    }

    /// How the cloud behaves.
    pub async fn settings(&self) -> Result<Settings, ControlError> {
        self.get("/settings").await
    }

    /// It behaves so from now on.
    pub async fn set_settings(&self, settings: &Settings) -> Result<(), ControlError> {
        self.send(Method::PUT, "/settings", settings).await.map(drop)
    }

    /// What is wrong with the metadata service.
    pub async fn metadata_faults(&self) -> Result<MetadataFaults, ControlError> {
        self.get("/metadata").await
    }

    /// It is wrong so from now on.
    pub async fn set_metadata_faults(&self, faults: &MetadataFaults) -> Result<(), ControlError> {
        self.send(Method::PUT, "/metadata", faults).await.map(drop)
    }

    /// The credentials of roles end now.
    pub async fn expire_credentials(&self) -> Result<(), ControlError> {
        self.send(Method::POST, "/credentials/expire", &()).await.map(drop)
    }

    /// An ENI is gone as if it had never been.
    pub async fn vanish(&self, eni: &str) -> Result<(), ControlError> {
        self.send(Method::POST, &format!("/enis/{eni}/vanish"), &()).await.map(drop)
    }

    /// Exactly these addresses of a vSwitch belong to somebody who is no ENI.
    pub async fn reserve(
        &self,
        vswitch: &str,
        addresses: BTreeSet<Ipv4Addr>,
    ) -> Result<(), ControlError> {
        let path = format!("/vswitches/{vswitch}/reserved");
        self.send(Method::PUT, &path, &Reserved { addresses }).await.map(drop)
    }

    /// An instance is started or stopped.
    pub async fn set_instance_state(
        &self,
        instance: &str,
        state: InstanceState,
    ) -> Result<(), ControlError> {
        let path = format!("/instances/{instance}/state");
        self.send(Method::PUT, &path, &WantedState { state }).await.map(drop)
    }

    /// An instance is given up, and its ENIs taken out.
    pub async fn release(&self, instance: &str) -> Result<(), ControlError> {
        self.send(Method::POST, &format!("/instances/{instance}/release"), &()).await.map(drop)
    }

    /// What the groups say to a flow.
    pub async fn verdict(&self, flow: &FlowQuery) -> Result<Judgement, ControlError> {
        let FlowQuery { from, to, protocol, port } = flow;
        self.get(&format!("/verdict?from={from}&to={to}&protocol={protocol}&port={port}")).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        let response = self.send(Method::GET, path, &()).await?;
        let url = response.url().to_string();
        response.json().await.map_err(|source| ControlError::Unreachable { url, source })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response, ControlError> {
        let url = format!("{}{path}", self.base);
        let sent = self.http.request(method, &url).json(body).send().await;
        let response =
            sent.map_err(|source| ControlError::Unreachable { url: url.clone(), source })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let words = response.json::<ControlRefusal>().await;
        let reason = words.map_or_else(|_no_words| status.to_string(), |words| words.error);
        Err(ControlError::Refused { url, reason })
    }
}
