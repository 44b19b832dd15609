//! Connects by TCP and says what came of it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::join_all;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time;

use crate::namespace::Namespace;

/// One attempt to reach an [`Echo`](super::Echo).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Where it went.
    pub target: SocketAddr,
    /// The address that the kernel sent from, if it got that far.
    pub source: Option<IpAddr>,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A server answered.
    Reached {
        /// From the first packet to the server's line.
        latency: Duration,
        /// Its name.
        server: String,
        /// The client's address as the server saw it.
        seen_as: String,
    },
    /// Somebody said no: reset, unreachable.
    Failed(String),
    /// Nobody said anything.
    TimedOut,
}

impl Probe {
    /// Whether the server of this name answered.
    pub fn reached(&self, name: &str) -> bool {
        matches!(&self.answer, Answer::Reached { server, .. } if server == name)
    }
}

/// Probes one target from a namespace.
pub async fn probe(place: &Namespace, target: SocketAddr, limit: Duration) -> Result<Probe> {
    let mut probes = probe_all(place, &[target], limit).await?;
    probes.pop().ok_or_else(|| anyhow::anyhow!("one target gives one probe"))
}

/// Probes all targets at once; the answers are in their order.
pub async fn probe_all(
    place: &Namespace,
    targets: &[SocketAddr],
    limit: Duration,
) -> Result<Vec<Probe>> {
    let list = targets.to_vec();
    let connections = place.run(move || list.into_iter().map(begin).collect::<Vec<_>>()).await?;
    let probes =
        targets.iter().zip(connections).map(|(target, begun)| finish(*target, begun, limit));
    Ok(join_all(probes).await)
}

/// A connection on its way.
struct Begun {
    stream: TcpStream,
    at: Instant,
}

#[expect(clippy::disallowed_methods, reason = "a latency is measured")]
fn begin(target: SocketAddr) -> io::Result<Begun> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let at = Instant::now();
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
        _ => Ok(Begun { stream: TcpStream::from_std(socket.into())?, at }),
    }
}

async fn finish(target: SocketAddr, begun: io::Result<Begun>, limit: Duration) -> Probe {
    let begun = match begun {
        Ok(begun) => begun,
        Err(error) => {
            return Probe { target, source: None, answer: Answer::Failed(error.to_string()) };
        }
    };
    // The kernel has chosen the source by now, whether or not the target answers.
    let source = begun.stream.local_addr().ok().map(|address| address.ip());
    let answer = match time::timeout(limit, greeted(begun)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::Failed(error.to_string()),
        Err(_elapsed) => Answer::TimedOut,
    };
    Probe { target, source, answer }
}

async fn greeted(begun: Begun) -> io::Result<Answer> {
    let Begun { stream, at } = begun;
    stream.writable().await?;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    let latency = at.elapsed();
    let (server, seen_as) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
    let (server, seen_as) = (server.to_owned(), seen_as.to_owned());
    Ok(Answer::Reached { latency, server, seen_as })
}
