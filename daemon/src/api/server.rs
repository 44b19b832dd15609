//! A gRPC server on a Unix socket: one service of ours, health and reflection beside it.

use std::convert::Infallible;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tonic_health::ServingStatus;

use super::access::Only;
use super::gate::{Gate, State};

/// Why a server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The descriptors of our services are not what reflection reads.
    #[error("gRPC reflection cannot be set up")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport.
    #[error("the gRPC server failed")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until `stop`; what is in hand then is answered.
pub async fn serve<S>(
    listener: UnixListener,
    service: S,
    access: Only,
    gate: Gate,
    stop: CancellationToken,
) -> Result<(), ServeError>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let (reporter, health) = tonic_health::server::health_reporter();
    let follow = async {
        let mut changes = gate.watch();
        loop {
            let status = match &*changes.borrow_and_update() {
                State::Serving(_) => ServingStatus::Serving,
                State::Starting(_) | State::Refused(_) | State::Stopping => {
                    ServingStatus::NotServing
                }
            };
            reporter.set_service_status(S::NAME, status).await;
            reporter.set_service_status("", status).await;
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let server = Server::builder()
        .layer(InterceptorLayer::new(access))
        .add_service(service)
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned());
    tokio::select! {
        // Holds nothing but the reporter: may be dropped.
        () = follow => Ok(()),
        end = server => Ok(end?),
    }
}
