//! Who may call: root alone, by the credentials that the kernel keeps of the connection.

use tonic::service::Interceptor;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

/// Lets one user in.
#[derive(Debug, Clone, Copy)]
pub struct Only {
    /// Who.
    pub uid: u32,
}

/// Root.
pub const ROOT: Only = Only { uid: 0 };

impl Interceptor for Only {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        match peer.map(|peer| peer.uid()) {
            Some(uid) if uid == self.uid => Ok(request),
            Some(uid) => Err(Status::permission_denied(format!(
                "uid {uid} may not call terwayd; run as uid {}",
                self.uid
            ))),
            None => Err(Status::permission_denied("the caller's credentials are unknown")),
        }
    }
}
