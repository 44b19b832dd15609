//! HTTPS for the API: a certificate that the lab makes itself, and the authority to trust for it.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::actions::Product;
use super::service::Ecs;

/// A server's certificate and the authority that signed it, both made anew.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    authority: String,
}

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Names or keys.
    #[error("cannot make a certificate for {names:?}")]
    Certificate {
        /// What it was to be for.
        names: Vec<String>,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The certificate is no use to a server.
    #[error("cannot serve TLS")]
    Server(#[from] rustls::Error),
}

impl Tls {
    /// For a server that is called by these names or addresses.
    pub fn new(names: &[String]) -> Result<Self, TlsError> {
        let refused = |source| TlsError::Certificate { names: names.to_vec(), source };
        let (certificate, key, authority) = certify(names).map_err(refused)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), authority })
    }

    /// The authority's certificate in PEM: what a client has to trust.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// A certificate for `names`, its key, and its authority in PEM.
fn certify(names: &[String]) -> Result<(rcgen::Certificate, KeyPair, String), rcgen::Error> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "the lab's authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let mut server = CertificateParams::new(names.to_vec())?;
    // Its subject is not its issuer's: else it would pass for signed by itself.
    server.distinguished_name.push(DnType::CommonName, "the lab's cloud");
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &issuer)?;
    Ok((certificate, key, issuer.pem()))
}

impl Ecs {
    /// Serves one API by HTTPS on a socket that is bound already, until the cloud stops.
    pub fn serve_api_tls(&self, listener: TcpListener, product: Product, tls: &Tls) {
        let (ecs, acceptor) = (self.clone(), tls.acceptor.clone());
        let greet = move |stream, _peer: SocketAddr| {
            let (ecs, acceptor) = (ecs.clone(), acceptor.clone());
            async move {
                match acceptor.accept(stream).await {
                    Ok(stream) => ecs.connection(stream, product).await,
                    Err(error) => tracing::debug!(%error, "no TLS"),
                }
            }
        };
        self.spawn(self.clone().accept(listener, greet));
    }
}
