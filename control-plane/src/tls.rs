//! TLS of the listeners: the certificate chain and key in use, and how a new pair replaces them.
//!
//! `serve.rs` loads the pair at the start, and refreshes it every few seconds and on request. A new pair applies to
//! connections from then on; open ones continue. A pair that cannot be used is reported in the log, by `/readyz` and by
//! the doctor, and the previous pair stays in use. There is one provider of cryptography.

pub(crate) mod validity;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;
use crate::error::{Error, ErrorKind, Result};
use validity::CertificateValidity;

/// Maximum size of a file. A chain of certificates has a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The certificate and key in use.
pub(crate) struct CertificateReloader {
    files: TlsFiles,
    /// The configuration that both listeners use for each new connection.
    config: RustlsConfig,
    state: Mutex<CertificateState>,
}

/// The state of the pair in use and of its files.
#[derive(Debug, Clone)]
pub(crate) struct CertificateState {
    /// The validity of the leaf certificate in use. `None` when it cannot be read.
    pub(crate) validity: Option<CertificateValidity>,
    /// The reason why the present files cannot be used. `None` when they are in use.
    pub(crate) refused: Option<String>,
    used: blake3::Hash,
}

/// The result of checking the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CertificateRefresh {
    /// The files' content is already in use.
    Unchanged,
    /// The files are new, and in use from now on.
    Taken,
    /// The files cannot be used.
    Refused,
}

/// The contents of both files.
struct CertificatePair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl CertificateReloader {
    /// Reads both files and checks that they belong together.
    ///
    /// # Errors
    /// `tls_invalid`.
    pub(crate) fn load_files(files: &TlsFiles) -> Result<Self> {
        let pair = CertificatePair::read_pair(files)?;
        let (config, validity) = pair.server_config(files)?;
        let state = CertificateState { validity, refused: None, used: pair.content_hash() };
        Ok(Self { files: files.clone(), config: RustlsConfig::from_config(config), state: Mutex::new(state) })
    }

    /// The configuration for a listener. It follows every refresh.
    pub(crate) fn rustls_config(&self) -> RustlsConfig {
        self.config.clone()
    }

    pub(crate) fn current_state(&self) -> CertificateState {
        self.lock_state().clone()
    }

    /// Reads the files again, and uses them if they are a new pair. Their content is compared. So a renamed file, a
    /// link with a new target and an overwritten file are all noticed.
    pub(crate) fn refresh_files(&self) -> CertificateRefresh {
        let found = CertificatePair::read_pair(&self.files).and_then(|pair| {
            let hash = pair.content_hash();
            if hash == self.lock_state().used {
                return Ok((hash, None));
            }
            Ok((hash, Some(pair.server_config(&self.files)?)))
        });
        match found {
            Ok((_, None)) => self.note_unchanged(),
            Ok((used, Some((config, validity)))) => {
                self.config.reload_from_config(config);
                *self.lock_state() = CertificateState { validity, refused: None, used };
                tracing::info!("a new certificate is in use");
                CertificateRefresh::Taken
            }
            Err(error) => self.refuse_pair(error.detail),
        }
    }

    fn note_unchanged(&self) -> CertificateRefresh {
        if self.lock_state().refused.take().is_some() {
            tracing::info!("the certificate's files are again those in use");
        }
        CertificateRefresh::Unchanged
    }

    /// Reports the problem once, not at every check.
    fn refuse_pair(&self, why: String) -> CertificateRefresh {
        let mut state = self.lock_state();
        if state.refused.as_ref() != Some(&why) {
            tracing::warn!(why, "the new certificate cannot be used; the previous one stays in use");
            state.refused = Some(why);
        }
        CertificateRefresh::Refused
    }

    fn lock_state(&self) -> MutexGuard<'_, CertificateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for CertificateReloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateReloader")
            .field("files", &self.files)
            .field("state", &self.current_state())
            .finish_non_exhaustive()
    }
}

impl CertificatePair {
    fn read_pair(files: &TlsFiles) -> Result<Self> {
        Ok(Self { certificate: read_certificate_file(&files.certificate)?, key: read_certificate_file(&files.key)? })
    }

    fn content_hash(&self) -> blake3::Hash {
        let length = u64::try_from(self.certificate.len()).unwrap_or(u64::MAX);
        blake3::Hasher::new().update(&length.to_le_bytes()).update(&self.certificate).update(&self.key).finalize()
    }

    fn server_config(&self, files: &TlsFiles) -> Result<(Arc<ServerConfig>, Option<CertificateValidity>)> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| tls_invalid(&files.certificate, &error))?;
        let leaf = chain.first().ok_or_else(|| tls_invalid(&files.certificate, &"it holds no certificate"))?;
        let validity = CertificateValidity::from_der(leaf);
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| tls_invalid(&files.key, &error))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| tls_invalid(&files.certificate, &error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok((Arc::new(config), validity))
    }
}

fn read_certificate_file(path: &PathBuf) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| tls_invalid(path, &error))?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| tls_invalid(path, &error))?;
    Ok(bytes)
}

fn tls_invalid(file: &Path, why: &dyn std::fmt::Display) -> Error {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Error::new(ErrorKind::TlsInvalid, format!("TLS: '{name}' is not usable: {why}"))
        .try_next("give a PEM certificate chain (leaf first) and its PEM private key")
}

#[cfg(test)]
mod tests {
    use super::validity::ValidityPhase;
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
    }

    fn tls(certificate: &str, key: &str) -> TlsFiles {
        TlsFiles { certificate: fixture(certificate), key: fixture(key) }
    }

    #[test]
    fn a_pair_loads_and_anything_else_is_named() {
        assert!(CertificateReloader::load_files(&tls("localhost.crt", "localhost.key")).is_ok());
        for (certificate, key) in [
            ("localhost.key", "localhost.key"),
            ("localhost.crt", "localhost.crt"),
            ("localhost.crt", "renewed.key"),
            ("no", "no"),
        ] {
            let error = CertificateReloader::load_files(&tls(certificate, key)).unwrap_err();
            assert_eq!(error.code(), "tls_invalid", "{certificate} {key}");
        }
    }

    #[test]
    fn the_end_of_a_certificate_is_known() {
        let validity = |name: &str| {
            let pair = CertificateReloader::load_files(&tls(&format!("{name}.crt"), &format!("{name}.key"))).unwrap();
            pair.current_state().validity.unwrap()
        };
        // 2025-04-01T00:00:00Z
        assert_eq!(validity("expired").until, 1_743_465_600_000);
        assert_eq!(validity("expired").phase_at(1_743_465_600_001), ValidityPhase::Expired);
        // 2027-01-01T00:00:00Z, and an end in 2126, which takes the long form of a time.
        assert_eq!(validity("localhost").phase_at(1_798_761_600_000), ValidityPhase::Valid);
    }

    #[test]
    fn a_new_pair_is_taken_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles { certificate: dir.path().join("c"), key: dir.path().join("k") };
        let put = |certificate: &str, key: &str| {
            std::fs::copy(fixture(certificate), &files.certificate).unwrap();
            std::fs::copy(fixture(key), &files.key).unwrap();
        };
        put("localhost.crt", "localhost.key");
        let pair = CertificateReloader::load_files(&files).unwrap();
        let before = pair.current_state();
        assert_eq!(pair.refresh_files(), CertificateRefresh::Unchanged);

        put("renewed.crt", "localhost.key");
        assert_eq!(
            (pair.refresh_files(), pair.refresh_files()),
            (CertificateRefresh::Refused, CertificateRefresh::Refused)
        );
        assert!(pair.current_state().refused.is_some_and(|why| why.contains("'c'")), "{pair:?}");
        assert_eq!(pair.current_state().used, before.used);
        std::fs::remove_file(&files.key).unwrap();
        assert_eq!(pair.refresh_files(), CertificateRefresh::Refused);
        assert!(pair.current_state().refused.is_some_and(|why| why.contains("'k'")), "{pair:?}");
        put("localhost.crt", "localhost.key");
        assert_eq!((pair.refresh_files(), pair.current_state().refused), (CertificateRefresh::Unchanged, None));

        put("renewed.crt", "renewed.key");
        assert_eq!(
            (pair.refresh_files(), pair.refresh_files()),
            (CertificateRefresh::Taken, CertificateRefresh::Unchanged)
        );
        assert_ne!(pair.current_state().used, before.used);
    }
}
