//! The kernel side of an ENI: what the pool needs of the datapath.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use model::{EniId, IpPair};

use crate::datapath::{Datapath, DatapathError, EniLink, EniSpec};

/// The kernel side of an ENI: what the pool needs of the [`Datapath`].
pub trait Links: Send + Sync + 'static {
    /// As [`Datapath::set_eni`].
    fn set_eni(
        &self,
        eni: EniSpec,
        wait: Duration,
    ) -> BoxFuture<'_, Result<EniLink, DatapathError>>;
    /// As [`Datapath::remove_eni`].
    fn remove_eni(&self, id: EniId) -> BoxFuture<'_, Result<(), DatapathError>>;
    /// As [`Datapath::bury`].
    fn bury(&self, addresses: Vec<IpPair>) -> BoxFuture<'_, Result<(), DatapathError>>;
    /// As [`Datapath::users`].
    fn users(
        &self,
        addresses: Vec<IpAddr>,
    ) -> BoxFuture<'_, Result<BTreeSet<IpAddr>, DatapathError>>;
    /// As [`Datapath::eni_users`].
    fn eni_users(&self, id: EniId) -> BoxFuture<'_, Result<BTreeSet<IpAddr>, DatapathError>>;
}

impl Links for Datapath {
    fn set_eni(
        &self,
        eni: EniSpec,
        wait: Duration,
    ) -> BoxFuture<'_, Result<EniLink, DatapathError>> {
        Self::set_eni(self, eni, wait).boxed()
    }

    fn remove_eni(&self, id: EniId) -> BoxFuture<'_, Result<(), DatapathError>> {
        async move { Self::remove_eni(self, &id).await }.boxed()
    }

    fn bury(&self, addresses: Vec<IpPair>) -> BoxFuture<'_, Result<(), DatapathError>> {
        async move { Self::bury(self, &addresses).await }.boxed()
    }

    fn users(
        &self,
        addresses: Vec<IpAddr>,
    ) -> BoxFuture<'_, Result<BTreeSet<IpAddr>, DatapathError>> {
        Self::users(self, addresses).boxed()
    }

    fn eni_users(&self, id: EniId) -> BoxFuture<'_, Result<BTreeSet<IpAddr>, DatapathError>> {
        async move { Self::eni_users(self, &id).await }.boxed()
    }
}
