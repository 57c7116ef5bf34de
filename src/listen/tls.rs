//! TLS of the public door.

use crate::config::model::ServerTls;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// Why the certificate cannot be used. Names files, never their content.
#[derive(Debug, Error)]
pub enum TlsError {
    /// Unreadable, or not PEM.
    #[error("server.tls: {path}: {detail}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Key and certificate do not belong together, or are of an unknown kind.
    #[error("server.tls: {0}")]
    Config(#[from] rustls::Error),
}

/// The acceptor for a certificate chain and its key.
///
/// # Errors
/// See [`TlsError`].
pub fn acceptor(config: &ServerTls) -> Result<TlsAcceptor, TlsError> {
    let file = |path: &PathBuf, error: rustls::pki_types::pem::Error| TlsError::File {
        path: path.clone(),
        detail: error.to_string(),
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(&config.cert).and_then(Iterator::collect).map_err(|e| file(&config.cert, e))?;
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|e| file(&config.key, e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // Early data can be replayed (RFC 8446 section 8), and a handshake is not idempotent here.
    server.max_early_data_size = 0;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}
