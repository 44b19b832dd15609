//! What runs in the lab's containers, static and alone in its image: `wait`, `serve PORT` (answers
//! each TCP connection with the peer's address), `connect HOST:PORT`.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: lab-pod wait | serve PORT | connect HOST:PORT";

#[expect(clippy::print_stderr, reason = "a container's log")]
fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        [] | ["wait"] => wait(),
        ["serve", port] => serve(port),
        ["connect", address] => connect(address),
        _ => Err(io::Error::other(USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-pod: {error}");
            ExitCode::FAILURE
        }
    }
}

fn wait() -> io::Result<()> {
    loop {
        std::thread::park();
    }
}

fn serve(port: &str) -> io::Result<()> {
    let port = port.parse().map_err(|error| io::Error::other(format!("port {port}: {error}")))?;
    // Without IPV6_V6ONLY this takes both families.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        let peer = stream.peer_addr()?;
        // A caller that goes away is its own affair.
        if let Err(error) = writeln!(stream, "{}", peer.ip()) {
            drop(error);
        }
    }
    Ok(())
}

fn connect(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    io::stdout().write_all(answer.as_bytes())
}
