//! A server that says who it is and whom it sees.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

use crate::namespace::Namespace;

/// More than all probes of a lab at once.
const BACKLOG: i32 = 4096;

/// Listens by TCP and UDP, IPv4 and IPv6, until it is dropped.
///
/// A TCP client gets the line `<name> <the client's address>`, and then back what it sends. A UDP
/// client gets such a line for each datagram.
#[derive(Debug)]
pub struct Echo {
    tasks: Vec<JoinHandle<()>>,
}

impl Echo {
    /// Starts it on all addresses of a namespace. Nothing is needed inside but the port.
    pub async fn start(place: &Namespace, name: &str, port: u16) -> Result<Self> {
        let sockets = place.run(move || open(port)).await?;
        let sockets =
            sockets.with_context(|| format!("cannot listen on port {port} in {}", place.name()))?;
        let name: Arc<str> = name.into();
        let mut tasks = Vec::new();
        for (listener, datagrams) in sockets {
            tasks.push(tokio::spawn(serve(listener, Arc::clone(&name))));
            tasks.push(tokio::spawn(answer(datagrams, Arc::clone(&name))));
        }
        Ok(Self { tasks })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A listener and a socket for datagrams of each family.
fn open(port: u16) -> io::Result<Vec<(TcpListener, UdpSocket)>> {
    let families = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    families.into_iter().map(|any| open_family(SocketAddr::new(any, port))).collect()
}

fn open_family(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let make = |kind, protocol| {
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        io::Result::Ok(socket)
    };
    let listener = make(Type::STREAM, Protocol::TCP)?;
    listener.listen(BACKLOG)?;
    let datagrams = make(Type::DGRAM, Protocol::UDP)?;
    Ok((TcpListener::from_std(listener.into())?, UdpSocket::from_std(datagrams.into())?))
}

async fn serve(listener: TcpListener, name: Arc<str>) {
    while let Ok((stream, peer)) = listener.accept().await {
        let greeting = greeting(&name, peer);
        // A client that goes away in the middle has what it wanted.
        tokio::spawn(async move { drop(converse(stream, &greeting).await) });
    }
}

async fn converse(mut stream: TcpStream, greeting: &str) -> io::Result<u64> {
    stream.write_all(greeting.as_bytes()).await?;
    let (mut reader, mut writer) = stream.split();
    copy(&mut reader, &mut writer).await
}

async fn answer(socket: UdpSocket, name: Arc<str>) {
    let mut buffer = [0; 64];
    loop {
        // An error is that of an earlier answer (ICMP); the next client does not care.
        if let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
            drop(socket.send_to(greeting(&name, peer).as_bytes(), peer).await);
        }
    }
}

fn greeting(name: &str, peer: SocketAddr) -> String {
    format!("{name} {}\n", peer.ip())
}
