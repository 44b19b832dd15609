//! Connections are reused, and one that was closed meanwhile is no failure.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;

/// A cloud that says `DONE` to everything.
struct Wire {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// A connection has been closed.
    closed: mpsc::UnboundedReceiver<()>,
}

impl Wire {
    /// It closes a connection after so many answers.
    async fn new(answers: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (closing, closed) = mpsc::unbounded_channel();
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let closing = closing.clone();
                tokio::spawn(async move {
                    serve(stream, answers).await;
                    closing.send(()).unwrap();
                });
            }
        });
        Self { address, connections, closed }
    }

    fn client(&self) -> Client {
        client(&format!("http://{}", self.address))
    }
}

async fn serve(mut stream: TcpStream, answers: usize) {
    let mut request = Vec::new();
    for _ in 0..answers {
        while !request.ends_with(b"\r\n\r\n") {
            if !stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
                return;
            }
        }
        request.clear();
        let body = r#"{"RequestId": "r"}"#;
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn fifty_calls_share_a_connection() {
    let wire = Wire::new(usize::MAX).await;
    let client = wire.client();
    for _ in 0..50 {
        client.attach_eni(&attach(), within(5_000)).await.unwrap();
    }
    assert_eq!(wire.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_call_after_the_cloud_has_closed_an_idle_connection_does_not_fail() {
    let mut wire = Wire::new(1).await;
    let client = wire.client();
    for _ in 0..20 {
        client.attach_eni(&attach(), within(10_000)).await.unwrap();
        wire.closed.recv().await.unwrap();
    }
    assert_eq!(client.last_error(), None);
    assert!(wire.connections.load(Ordering::Relaxed) >= 20, "each was closed after one answer");
}
