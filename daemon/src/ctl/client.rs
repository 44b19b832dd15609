//! The way to the daemon, and what to say when there is none.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::debug::debug_client::DebugClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tower::service_fn;

/// For any answer; all come from memory or from a dump of the kernel's.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// There is no daemon.
    #[error(
        "terwayd is not running: nobody listens on {}; start it, or name its socket with --socket",
        .0.display()
    )]
    Down(PathBuf),
    /// It is not ours to ask.
    #[error("{} is for root alone; run terwayctl as root", .0.display())]
    Closed(PathBuf),
    /// Something else about the socket.
    #[error("{} cannot be connected to", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon has nothing to show yet.
    #[error("{0}")]
    NotYet(String),
    /// The daemon could not answer.
    #[error("terwayd did not answer: {0}")]
    Refused(String),
    /// The answer could not be printed.
    #[error("the answer cannot be printed")]
    Print(#[source] io::Error),
}

impl CtlError {
    /// 69 (`EX_UNAVAILABLE`) when the daemon is not there, 1 else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Down(_) | Self::NotYet(_) => 69,
            _ => 1,
        }
    }
}

pub(super) async fn connect(path: &Path) -> Result<DebugClient<Channel>, CtlError> {
    // Tried here first: what the transport says of a failed connector is not for people.
    let stream = UnixStream::connect(path).await.map_err(|error| no_way(path, error))?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = service_fn(move |_uri| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    let endpoint = Endpoint::from_static("http://terwayd").timeout(TIMEOUT);
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.map_err(|error| no_way(path, io::Error::other(error)))?;
    Ok(DebugClient::new(channel))
}

fn no_way(path: &Path, source: io::Error) -> CtlError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => CtlError::Down(path),
        io::ErrorKind::PermissionDenied => CtlError::Closed(path),
        _ => CtlError::Connect { path, source },
    }
}

pub(super) fn said<T>(answer: Result<Response<T>, Status>) -> Result<T, CtlError> {
    match answer {
        Ok(response) => Ok(response.into_inner()),
        Err(status) if status.code() == Code::Unavailable => {
            Err(CtlError::NotYet(status.message().to_owned()))
        }
        Err(status) => Err(CtlError::Refused(status.message().to_owned())),
    }
}
