//! TLS settings of one host.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::RegistryError;
use crate::settings::HostSettings;

/// Reads the certificates that `settings` name. Blocks on small files.
pub(crate) fn client_config(settings: &HostSettings, insecure: bool) -> Result<ClientConfig, RegistryError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (mut authorities, mut key_pairs) = (settings.root_cas.clone(), Vec::new());
    key_pairs.extend(settings.key_pairs.iter().map(|pair| (pair.certificate.clone(), pair.key.clone())));
    for folder in &settings.tls_config_dirs {
        scan_folder(folder, &mut authorities, &mut key_pairs)?;
    }

    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| RegistryError::Setup(error.to_string()))?;
    let builder = if insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        let mut roots = system_roots().clone();
        let mut named = Vec::new();
        for path in &authorities {
            let certificates = certificates(path)?;
            roots.add_parsable_certificates(certificates.iter().cloned());
            named.extend(certificates);
        }
        if named.is_empty() {
            builder.with_root_certificates(roots)
        } else {
            let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| RegistryError::Setup(error.to_string()))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(NamedCertificates { chains, named }))
        }
    };
    // One certificate can be shown; Docker's layout allows several, of which the first is taken.
    match key_pairs.first() {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| broken(key, &error))?;
            builder.with_client_auth_cert(chain, private).map_err(|error| broken(certificate, &error))
        }
    }
}

/// The system's authorities, read once and only when the first TLS connection is made.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "a system certificate could not be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        roots
    })
}

fn scan_folder(
    folder: &Path,
    authorities: &mut Vec<PathBuf>,
    key_pairs: &mut Vec<(PathBuf, PathBuf)>,
) -> Result<(), RegistryError> {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), NotFound | PermissionDenied) => return Ok(()),
        Err(error) => return Err(broken(folder, &error)),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => authorities.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                key_pairs.push((path, key));
            }
            _ => {}
        }
    }
    Ok(())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect())
        .map_err(|error| broken(path, &error))?;
    if found.is_empty() {
        return Err(broken(path, &"no certificate in it"));
    }
    Ok(found)
}

fn broken(path: &Path, reason: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Certificate { path: path.to_owned(), reason: reason.to_string() }
}

/// Also takes a server's certificate that the settings name itself. One that was made in a single step is its
/// own authority, which chains refuse as a server's; other clients take it, and it is exactly what was named.
#[derive(Debug)]
struct NamedCertificates {
    chains: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for NamedCertificates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::{CertificateError, Error};
        match self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // Dates are looked at before this is found, so an expired certificate is not excused.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if self.named.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Takes any certificate, as `insecure = true` asks. Signatures are still checked, so that the connection is
/// at least with one and the same peer.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
