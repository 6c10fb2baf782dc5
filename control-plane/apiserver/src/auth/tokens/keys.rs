//! Keys of tokens: one that signs, and those that are believed.
//!
//! A key has one algorithm, by what it is; a token that names another one for it is refused, so
//! nobody can choose how he is checked. The cryptography is ring's, as that of TLS is.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Why a key is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is no SubjectPublicKeyInfo.
    #[error("the public key does not read")]
    Undecodable,
    /// It is of a kind that signs no tokens here.
    #[error("the key must be ECDSA on P-256 or P-384, or RSA of 2048 to 8192 bits")]
    Unsupported,
    /// The private key is no PKCS#8 of the public key's kind.
    #[error("the private key does not read: it must be PKCS#8 of the public key's kind")]
    Private,
    /// The private key is of another key pair.
    #[error("the private key belongs to another public key")]
    Mismatch,
    /// There is none.
    #[error("this server has no keys for tokens")]
    None,
    /// The system gave no randomness.
    #[error("the system gives no random numbers")]
    Random,
}

/// How a key signs (RFC 7518, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Es256,
    Es384,
    Rs256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Es256 => &ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &ECDSA_P384_SHA384_FIXED,
            Self::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        }
    }
}

/// A public key by which tokens are believed.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    id: String,
    algorithm: Algorithm,
    /// The key as ring takes it: a point, or an RSAPublicKey.
    material: Vec<u8>,
    jwk: Value,
}

impl VerifyingKey {
    /// Reads a DER-encoded SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// For what is no such key, or of a kind that is not supported.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let (rest, info) =
            SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Undecodable)?;
        if !rest.is_empty() {
            return Err(KeyError::Undecodable);
        }
        let material = info.subject_public_key.data.to_vec();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let parsed = info.parsed().map_err(|_| KeyError::Undecodable)?;
        let (algorithm, mut jwk) = match parsed {
            PublicKey::EC(point) => {
                let curve = info.algorithm.parameters.as_ref();
                let curve = curve.and_then(|curve| curve.as_oid().ok());
                let (algorithm, curve, size) = match curve {
                    Some(curve) if curve == OID_EC_P256 => (Algorithm::Es256, "P-256", 32),
                    Some(curve) if curve == OID_NIST_EC_P384 => (Algorithm::Es384, "P-384", 48),
                    _ => return Err(KeyError::Unsupported),
                };
                // Uncompressed: a byte that says so, and both coordinates.
                let [4, coordinates @ ..] = point.data() else {
                    return Err(KeyError::Unsupported);
                };
                let (x, y) = coordinates
                    .split_at_checked(size)
                    .filter(|(_, y)| y.len() == size)
                    .ok_or(KeyError::Undecodable)?;
                let jwk = json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)});
                (algorithm, jwk)
            }
            PublicKey::RSA(key) if (2048..=8192).contains(&key.key_size()) => {
                let number = |bytes: &[u8]| {
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    encode(&bytes[zeros..])
                };
                let jwk =
                    json!({"kty": "RSA", "n": number(key.modulus), "e": number(key.exponent)});
                (Algorithm::Rs256, jwk)
            }
            _ => return Err(KeyError::Unsupported),
        };
        // As Kubernetes names keys: from the name the key cannot be had.
        let id = encode(&Sha256::digest(der));
        jwk["use"] = "sig".into();
        jwk["kid"] = id.clone().into();
        jwk["alg"] = algorithm.name().into();
        Ok(Self {
            id,
            algorithm,
            material,
            jwk,
        })
    }

    /// The name of the key in tokens.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The name of its algorithm in tokens.
    pub(super) fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// The key as RFC 7517 has it.
    pub(super) fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// Whether the signature of a message is by this key, under the algorithm that is named.
    pub(super) fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        algorithm == self.algorithm.name()
            && UnparsedPublicKey::new(self.algorithm.verification(), &self.material)
                .verify(message, signature)
                .is_ok()
    }
}

/// The private key of new tokens.
pub struct SigningKey {
    public: VerifyingKey,
    private: Private,
    random: SystemRandom,
}

enum Private {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// Reads a private key (PKCS#8) and the public key that belongs to it
    /// (SubjectPublicKeyInfo), both DER.
    ///
    /// # Errors
    /// For keys that do not read, are not supported, or do not belong together.
    pub fn from_der(private: &[u8], public: &[u8]) -> Result<Self, KeyError> {
        let public = VerifyingKey::from_der(public)?;
        let random = SystemRandom::new();
        let ecdsa = |algorithm| {
            EcdsaKeyPair::from_pkcs8(algorithm, private, &random)
                .map(Private::Ecdsa)
                .map_err(|_| KeyError::Private)
        };
        let private = match public.algorithm {
            Algorithm::Es256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
            Algorithm::Es384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING)?,
            Algorithm::Rs256 => RsaKeyPair::from_pkcs8(private)
                .map(Private::Rsa)
                .map_err(|_| KeyError::Private)?,
        };
        let material = match &private {
            Private::Ecdsa(pair) => pair.public_key().as_ref(),
            Private::Rsa(pair) => pair.public_key().as_ref(),
        };
        if material != public.material {
            return Err(KeyError::Mismatch);
        }
        Ok(Self {
            public,
            private,
            random,
        })
    }

    /// The key by which its tokens are believed.
    #[must_use]
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.private {
            Private::Ecdsa(pair) => pair
                .sign(&self.random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| KeyError::Random),
            Private::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature)
                    .map_err(|_| KeyError::Random)?;
                Ok(signature)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData};

    use super::*;

    pub(crate) fn signing_key() -> SigningKey {
        let pair = rcgen::KeyPair::generate().unwrap();
        SigningKey::from_der(&pair.serialize_der(), &pair.subject_public_key_info()).unwrap()
    }

    #[test]
    fn what_a_key_signs_it_alone_verifies() {
        for (algorithm, name) in [
            (&PKCS_ECDSA_P256_SHA256, "ES256"),
            (&PKCS_ECDSA_P384_SHA384, "ES384"),
        ] {
            let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let (private, public) = (pair.serialize_der(), pair.subject_public_key_info());
            let key = SigningKey::from_der(&private, &public).unwrap();
            let signature = key.sign(b"text").unwrap();
            let public = key.public();
            assert!(public.verifies(name, b"text", &signature));
            assert!(!public.verifies(name, b"test", &signature));
            assert!(!public.verifies("none", b"text", b""));
            assert!(!public.verifies("HS256", b"text", &signature));
            assert!(!signing_key().public().verifies(name, b"text", &signature));
            assert_eq!(public.jwk()["alg"], name);
            assert_eq!(public.jwk()["kid"], public.id());
        }
    }

    #[test]
    fn keys_that_are_of_no_use_are_refused() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let edwards = rcgen::KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let (private, public) = (pair.serialize_der(), pair.subject_public_key_info());
        let of = |private: &[u8], public: &[u8]| SigningKey::from_der(private, public).err();
        assert_eq!(of(&private, &public), None);
        let foreign = of(&private, &other.subject_public_key_info());
        assert!(
            matches!(foreign, Some(KeyError::Private | KeyError::Mismatch)),
            "{foreign:?}"
        );
        assert_eq!(of(b"key", &public), Some(KeyError::Private));
        assert_eq!(of(&private, b"key"), Some(KeyError::Undecodable));
        let edwards = edwards.subject_public_key_info();
        assert!(VerifyingKey::from_der(&edwards).is_err());
    }
}
