//! TLS of the listeners: certificate chain and key from PEM files, one provider of cryptography.

use std::path::Path;
use std::sync::Arc;

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Tls;
use crate::error::{Error, Result};

/// Reads both files and makes sure that they belong together.
pub(super) fn load(files: &Tls) -> Result<RustlsConfig> {
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(|chain| chain.collect::<Result<Vec<_>, _>>())
        .map_err(|error| invalid(&files.certificate, &error))?;
    if chain.is_empty() {
        return Err(invalid(&files.certificate, &"it holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| invalid(&files.key, &error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| invalid(&files.certificate, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(RustlsConfig::from_config(Arc::new(config)))
}

fn invalid(file: &Path, why: &dyn std::fmt::Display) -> Error {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Error::new(422, "tls_invalid", format!("TLS: '{name}' is not usable: {why}"))
        .try_next("give a PEM certificate chain (leaf first) and its PEM private key")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
    }

    #[test]
    fn a_pair_loads_and_anything_else_is_named() {
        let tls = |certificate, key| Tls { certificate: fixture(certificate), key: fixture(key) };
        assert!(load(&tls("localhost.crt", "localhost.key")).is_ok());
        for (certificate, key) in [("localhost.key", "localhost.key"), ("localhost.crt", "localhost.crt"), ("no", "no")]
        {
            let error = load(&tls(certificate, key)).unwrap_err();
            assert_eq!(error.code, "tls_invalid", "{certificate} {key}");
        }
    }
}
