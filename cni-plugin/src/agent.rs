//! One call to the daemon: is the socket to be trusted, is anybody there, and is there an answer
//! in time.

use std::fmt;
use std::future::{Future, ready};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{error, fs};

use hyper_util::rt::TokioIo;
use proto::agent::Failure;
use proto::agent::agent_client::AgentClient;
use proto::failure;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};
use tower::service_fn;

/// The client that a call is made with.
pub(crate) type Client = AgentClient<Channel>;

/// Why a call brought no answer that we asked for.
#[derive(Debug)]
pub(crate) enum CallError {
    /// Nobody answered, or not in time.
    Unreachable(Unreachable),
    /// We did not even ask.
    Distrusted(Distrust),
    /// The daemon says why.
    Failure(Failure),
    /// The daemon failed, and does not say why.
    Untyped(Status),
    /// No runtime, no call.
    Runtime(io::Error),
}

/// A daemon that cannot be spoken to now.
#[derive(Debug)]
pub(crate) struct Unreachable {
    socket: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Connect(io::Error),
    Late(Duration),
    Gone(Status),
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = self.socket.display();
        match &self.why {
            Why::Connect(error) => match error.kind() {
                io::ErrorKind::NotFound => {
                    write!(f, "terwayd is not running: {socket} does not exist")
                }
                io::ErrorKind::ConnectionRefused => {
                    write!(f, "terwayd is not running: nobody listens on {socket}")
                }
                io::ErrorKind::WouldBlock => {
                    write!(f, "terwayd takes no more calls: the backlog of {socket} is full")
                }
                _ => write!(f, "terwayd is not reachable: cannot connect to {socket}"),
            },
            Why::Late(deadline) => {
                write!(f, "terwayd did not answer on {socket} within {deadline:?}")
            }
            Why::Gone(_) => write!(f, "terwayd went away during the call on {socket}"),
        }
    }
}

impl Unreachable {
    /// The cause below, and what happens next.
    pub(crate) fn details(&self) -> String {
        let cause = match &self.why {
            Why::Connect(error) => format!("{error}; "),
            Why::Late(_) => String::new(),
            Why::Gone(status) => format!("{}; ", innermost(status)),
        };
        format!("{cause}the runtime tries again; look at terwayd and its log on this node")
    }
}

/// A socket that somebody other than root may have made.
#[derive(Debug)]
pub(crate) struct Distrust {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    NotASocket,
    Owner(u32),
    DirectoryOwner(u32),
    DirectoryMode(u32),
    Peer(u32),
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.problem {
            Problem::NotASocket => write!(f, "{path} is not a socket"),
            Problem::Owner(uid) => write!(f, "the socket {path} belongs to user {uid}, not root"),
            Problem::DirectoryOwner(uid) => {
                write!(f, "the socket's directory {path} belongs to user {uid}, not root")
            }
            Problem::DirectoryMode(mode) => {
                write!(f, "others may write in the socket's directory {path} (mode {mode:04o})")
            }
            Problem::Peer(uid) => write!(f, "who listens on {path} is user {uid}, not root"),
        }
    }
}

impl Distrust {
    /// What to do.
    pub(crate) fn details(&self) -> String {
        let cure = match self.problem {
            Problem::NotASocket => "let agentSocket name the socket of terwayd",
            Problem::Owner(_) | Problem::Peer(_) => "find out who made it; restart terwayd as root",
            Problem::DirectoryOwner(_) => "chown it to root, mode 0700, and restart terwayd",
            Problem::DirectoryMode(_) => "chmod it to 0700 and restart terwayd",
        };
        format!("terwayd was not called; {cure}")
    }
}

/// Makes one call that ends within `deadline`; the daemon gets the deadline as `grpc-timeout`.
pub(crate) fn call<T, Reply, F>(
    socket: &Path,
    deadline: Duration,
    message: T,
    rpc: impl FnOnce(Client, Request<T>) -> F,
) -> Result<Reply, CallError>
where
    F: Future<Output = Result<Response<Reply>, Status>>,
{
    check(socket)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CallError::Runtime)?;
    let unreachable = |why| CallError::Unreachable(Unreachable { socket: socket.to_owned(), why });
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    let call = async {
        let client = connect(socket).await?;
        rpc(client, request).await.map_err(|status| match failure::from_status(&status) {
            Some(failure) => CallError::Failure(failure),
            // tonic on either side ends an overdue call with one of these two.
            None if matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) => {
                unreachable(Why::Late(deadline))
            }
            // A status with a source was made here, of a broken connection.
            None if error::Error::source(&status).is_some() => unreachable(Why::Gone(status)),
            None => CallError::Untyped(status),
        })
    };
    let answer = runtime.block_on(async { tokio::time::timeout(deadline, call).await });
    // The process ends soon: what the runtime has is given back with everything else.
    std::mem::forget(runtime);
    answer
        .unwrap_or_else(|_elapsed| Err(unreachable(Why::Late(deadline))))
        .map(Response::into_inner)
}

async fn connect(socket: &Path) -> Result<Client, CallError> {
    let unreachable = |why| CallError::Unreachable(Unreachable { socket: socket.to_owned(), why });
    let connect = |error| unreachable(Why::Connect(error));
    let stream = UnixStream::connect(socket).await.map_err(connect)?;
    let peer = stream.peer_cred().map_err(connect)?.uid();
    if !is_trusted(peer, own_uid().map_err(connect)?) {
        return Err(distrusted(socket, Problem::Peer(peer)));
    }
    let mut stream = Some(stream);
    let once = service_fn(move |_: Uri| {
        ready(stream.take().map(TokioIo::new).ok_or(io::Error::from(io::ErrorKind::NotConnected)))
    });
    let channel = Endpoint::from_static("http://terwayd").connect_with_connector(once).await;
    let channel =
        channel.map_err(|error| unreachable(Why::Gone(Status::from_error(error.into()))))?;
    Ok(Client::new(channel))
}

/// Root, or who we are: so that the plugin can be tried out by anybody, against a daemon of their
/// own.
const fn is_trusted(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

fn own_uid() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

/// Whether the socket can only be root's.
fn check(socket: &Path) -> Result<(), CallError> {
    let unreachable = |error| {
        let socket = socket.to_owned();
        CallError::Unreachable(Unreachable { socket, why: Why::Connect(error) })
    };
    let own = own_uid().map_err(unreachable)?;
    let it = fs::metadata(socket).map_err(unreachable)?;
    if !it.file_type().is_socket() {
        return Err(distrusted(socket, Problem::NotASocket));
    }
    if !is_trusted(it.uid(), own) {
        return Err(distrusted(socket, Problem::Owner(it.uid())));
    }
    let Some(dir) = socket.parent() else { return Ok(()) };
    let it = fs::metadata(dir).map_err(unreachable)?;
    if !is_trusted(it.uid(), own) {
        return Err(distrusted(dir, Problem::DirectoryOwner(it.uid())));
    }
    if it.mode() & 0o022 != 0 {
        return Err(distrusted(dir, Problem::DirectoryMode(it.mode() & 0o7777)));
    }
    Ok(())
}

fn distrusted(path: &Path, problem: Problem) -> CallError {
    CallError::Distrusted(Distrust { path: path.to_owned(), problem })
}

/// The last of a chain of causes says most.
fn innermost(status: &Status) -> String {
    let mut last: &dyn error::Error = status;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
