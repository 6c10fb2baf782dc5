//! Keys of the tokens of service accounts: one is made at first start, beside the CA and as much
//! the cluster's as that one is; others may be named.
//!
//! The key that is made is ECDSA on P-256. Who needs RS256 for relying parties elsewhere names a
//! key of his own.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use coracle_apiserver::{SigningKey, TokenConfig, VerifyingKey};
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use crate::cli::ServiceAccountOptions;
use crate::paths::{read_if_present, write_private};

/// The signing key in the folder of keys, as kubeadm names it.
const KEY: &str = "sa.key";

/// What tokens are made and believed by.
pub(crate) fn token_config(pki: &Path, options: &ServiceAccountOptions) -> Result<TokenConfig> {
    let signing = match &options.service_account_signing_key_file {
        Some(file) => {
            let pem = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            signing_key(&pem).with_context(|| format!("{} is no signing key", file.display()))?
        }
        None => load_or_create(&pki.join(KEY))?,
    };
    let mut verifying = Vec::new();
    for file in &options.service_account_key_file {
        let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let keys = verifying_keys(&pem)
            .with_context(|| format!("{} cannot be used for tokens", file.display()))?;
        verifying.extend(keys);
    }
    Ok(TokenConfig {
        issuers: options.service_account_issuer.clone(),
        audiences: options.api_audiences.clone(),
        signing,
        verifying,
    })
}

fn load_or_create(file: &Path) -> Result<SigningKey> {
    let pem = match read_if_present(file)? {
        Some(pem) => pem,
        None => {
            let pem = KeyPair::generate()?.serialize_pem();
            write_private(file, pem.as_bytes())?;
            pem
        }
    };
    signing_key(&pem).with_context(|| format!("{} is no signing key", file.display()))
}

fn signing_key(pem: &str) -> Result<SigningKey> {
    let pair = KeyPair::from_pem(pem).context("it must be a private key in PEM, as PKCS#8")?;
    let (private, public) = (pair.serialize_der(), pair.subject_public_key_info());
    Ok(SigningKey::from_der(&private, &public)?)
}

/// All keys of a file, public ones and those of private ones.
fn verifying_keys(pem: &[u8]) -> Result<Vec<VerifyingKey>> {
    let mut keys = Vec::new();
    for public in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
        keys.push(VerifyingKey::from_der(&public?)?);
    }
    for private in PrivatePkcs8KeyDer::pem_slice_iter(pem) {
        let pair = KeyPair::try_from(&private?)?;
        keys.push(VerifyingKey::from_der(&pair.subject_public_key_info())?);
    }
    ensure!(!keys.is_empty(), "there is no key in it");
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn options() -> ServiceAccountOptions {
        ServiceAccountOptions {
            service_account_issuer: vec![crate::defaults::SERVICE_ACCOUNT_ISSUER.to_owned()],
            service_account_signing_key_file: None,
            service_account_key_file: Vec::new(),
            api_audiences: Vec::new(),
        }
    }

    #[test]
    fn a_second_start_signs_with_the_same_key_which_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        token_config(dir.path(), &options()).unwrap();
        let file = dir.path().join(KEY);
        let first = std::fs::read(&file).unwrap();
        token_config(dir.path(), &options()).unwrap();
        assert_eq!(first, std::fs::read(&file).unwrap());
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn keys_of_files_are_read_and_what_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (one, two) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut named = options();
        named.service_account_signing_key_file = Some(write("new", one.serialize_pem()));
        let both = format!("{}{}", one.public_key_pem(), two.serialize_pem());
        named.service_account_key_file = vec![write("old", both)];
        let config = token_config(dir.path(), &named).unwrap();
        assert_eq!(config.verifying.len(), 2);
        assert!(!dir.path().join(KEY).exists());

        for text in [
            "",
            "text",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            named.service_account_key_file = vec![write("none", text.to_owned())];
            let error = token_config(dir.path(), &named).err().unwrap();
            assert!(error.to_string().contains("none"), "{error:#}");
        }
    }
}
