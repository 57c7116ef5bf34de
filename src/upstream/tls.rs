//! TLS for outgoing connections: whom we trust.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Why no TLS client can be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file with further authorities.
    #[error("{file}: {detail}")]
    CaFile {
        /// Which file.
        file: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The library refuses.
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A client configuration: the system's authorities, or Mozilla's where the system has none, and those of `ca_file`.
///
/// # Errors
/// Where `ca_file` cannot be read or holds no certificate.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a system certificate authority could not be read");
    }
    let _ = roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        // Images without a certificate store (scratch, distroless).
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(file) = ca_file {
        add_file(&mut roots, file)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn add_file(roots: &mut RootCertStore, file: &Path) -> Result<(), TlsError> {
    let fail = |detail: String| TlsError::CaFile { file: file.display().to_string(), detail };
    let mut added = 0_usize;
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| fail(e.to_string()))? {
        let certificate = certificate.map_err(|e| fail(e.to_string()))?;
        roots.add(certificate).map_err(|e| fail(e.to_string()))?;
        added = added.saturating_add(1);
    }
    if added == 0 { Err(fail("no certificate in it".into())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_made_without_a_file() {
        let config = client_config(None).unwrap();
        assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
    }

    #[test]
    fn a_ca_file_must_exist_and_hold_a_certificate() {
        let dir = tempfile::tempdir().unwrap();
        assert!(client_config(Some(&dir.path().join("absent.pem"))).is_err());
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "hello").unwrap();
        assert!(client_config(Some(&empty)).unwrap_err().to_string().contains("no certificate"));
    }

    #[test]
    fn a_ca_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(&file, made.cert.pem()).unwrap();
        assert!(client_config(Some(&file)).is_ok());
    }
}
