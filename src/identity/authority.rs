//! The certificate authority and what it issues.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::paths::{create_private_dir, read_if_present, write_private};

/// Years a CA is valid, as with other distributions.
const AUTHORITY_YEARS: i64 = 10;
/// Days a certificate is valid; it is renewed at a start within the last [`RENEW_DAYS`].
const CERTIFICATE_DAYS: i64 = 365;
const RENEW_DAYS: i64 = 90;

/// A certificate with its private key, both in PEM.
#[derive(Clone)]
pub(crate) struct KeyedCertificate {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl KeyedCertificate {
    /// In the form that rustls takes.
    pub(crate) fn for_rustls(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .context("a certificate of ours does not read")?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .context("a private key of ours does not read")?;
        Ok((chain, key))
    }
}

/// What a certificate is for.
pub(crate) enum Purpose<'a> {
    /// A server under these names and addresses.
    Server {
        common_name: &'a str,
        names: &'a [String],
        addresses: &'a [IpAddr],
    },
    /// A client: its user and group.
    Client { user: &'a str, group: &'a str },
}

/// The CA of one cluster, on a server.
pub(crate) struct Authority {
    directory: PathBuf,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads the CA, or makes it at first start.
    pub(crate) fn load_or_create(directory: &Path) -> Result<Self> {
        create_private_dir(directory)?;
        let (certificate_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        let (certificate, key) = match (
            read_if_present(&certificate_path)?,
            read_if_present(&key_path)?,
        ) {
            (Some(certificate), Some(key)) => {
                let key = KeyPair::from_pem(&key)
                    .with_context(|| format!("{} holds no private key", key_path.display()))?;
                (certificate, key)
            }
            (None, key) => {
                // The key is written first: one without a certificate is a first start that was
                // cut off, and is taken up where it stopped.
                let key = match key {
                    Some(key) => KeyPair::from_pem(&key)
                        .with_context(|| format!("{} holds no private key", key_path.display()))?,
                    None => KeyPair::generate()?,
                };
                write_private(&key_path, key.serialize_pem().as_bytes())?;
                let certificate = authority_parameters()?.self_signed(&key)?.pem();
                write_private(&certificate_path, certificate.as_bytes())?;
                (certificate, key)
            }
            (Some(_), None) => bail!(
                "{} is missing but {} is there: restore the key from a backup, or start with another --data-dir",
                key_path.display(),
                certificate_path.display()
            ),
        };
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .with_context(|| format!("{} is no CA certificate", certificate_path.display()))?;
        Ok(Self {
            directory: directory.to_owned(),
            certificate,
            issuer,
        })
    }

    /// The CA's certificate in PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The certificate called `name`: the one on disk while it fits, else a new one.
    pub(crate) fn certificate_for(
        &self,
        name: &str,
        purpose: &Purpose<'_>,
    ) -> Result<KeyedCertificate> {
        let certificate_path = self.directory.join(format!("{name}.crt"));
        let key_path = self.directory.join(format!("{name}.key"));
        if let (Some(certificate), Some(key)) = (
            read_if_present(&certificate_path)?,
            read_if_present(&key_path)?,
        ) && fits(&certificate, &key, purpose)
        {
            return Ok(KeyedCertificate { certificate, key });
        }
        let issued = self.issue(purpose)?;
        write_private(&key_path, issued.key.as_bytes())?;
        write_private(&certificate_path, issued.certificate.as_bytes())?;
        Ok(issued)
    }

    fn issue(&self, purpose: &Purpose<'_>) -> Result<KeyedCertificate> {
        let key = KeyPair::generate()?;
        let certificate = parameters(purpose)?.signed_by(&key, &self.issuer)?;
        Ok(KeyedCertificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Signs a node's request: the node becomes `system:node:NAME` of `system:nodes`, and may
    /// serve under its own name and the addresses it asks for, nothing else that it asks for.
    pub(crate) fn sign_node_request(&self, request: &str, node: &str) -> Result<String> {
        let mut request = CertificateSigningRequestParams::from_pem(request)
            .context("the certificate signing request does not read")?;
        for name in &request.params.subject_alt_names {
            match name {
                SanType::DnsName(name) if name.as_str() == node => {}
                SanType::IpAddress(_) => {}
                other => bail!("a node may not ask for the name {other:?}"),
            }
        }
        let names = std::mem::take(&mut request.params.subject_alt_names);
        let user = format!("system:node:{node}");
        request.params = parameters(&Purpose::Client {
            user: &user,
            group: "system:nodes",
        })?;
        request.params.subject_alt_names = names;
        request
            .params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

/// A key and the request for a node's certificate.
pub(crate) fn node_request(node: &str, addresses: &[IpAddr]) -> Result<(KeyPair, String)> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(vec![node.to_owned()])?;
    parameters
        .subject_alt_names
        .extend(addresses.iter().copied().map(SanType::IpAddress));
    parameters.distinguished_name =
        distinguished_name(&format!("system:node:{node}"), Some("system:nodes"));
    let request = parameters.serialize_request(&key)?.pem()?;
    Ok((key, request))
}

/// SHA-256 of the CA certificate in DER, in hexadecimal: what a join token pins.
pub(crate) fn fingerprint(certificate_pem: &str) -> Result<String> {
    let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
        .context("the CA certificate does not read")?;
    Ok(hex(&Sha256::digest(&der)))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a certificate is worth renewing: it is unreadable, over, or in its last quarter.
pub(crate) fn near_end(certificate_pem: &str) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(certificate_pem.as_bytes()) else {
        return true;
    };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else {
        return true;
    };
    let left = certificate.validity().not_after.timestamp() - jiff::Timestamp::now().as_second();
    left < RENEW_DAYS * 24 * 3600
}

fn fits(certificate_pem: &str, key_pem: &str, purpose: &Purpose<'_>) -> bool {
    let check = || -> Result<()> {
        ensure!(!near_end(certificate_pem));
        KeyPair::from_pem(key_pem)?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der)?;
        let has = certificate
            .subject_alternative_name()?
            .map(|extension| extension.value.general_names.clone())
            .unwrap_or_default();
        if let Purpose::Server {
            names, addresses, ..
        } = purpose
        {
            use x509_parser::extensions::GeneralName;
            for name in *names {
                ensure!(
                    has.iter()
                        .any(|n| matches!(n, GeneralName::DNSName(n) if n == name))
                );
            }
            for address in *addresses {
                let octets = match address {
                    IpAddr::V4(v4) => v4.octets().to_vec(),
                    IpAddr::V6(v6) => v6.octets().to_vec(),
                };
                ensure!(
                    has.iter()
                        .any(|n| matches!(n, GeneralName::IPAddress(n) if *n == octets))
                );
            }
        }
        Ok(())
    };
    check().is_ok()
}

fn authority_parameters() -> Result<CertificateParams> {
    let mut parameters = CertificateParams::default();
    let made = jiff::Timestamp::now().as_second();
    parameters.distinguished_name = distinguished_name(&format!("coracle-ca@{made}"), None);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    valid_for(&mut parameters, jiff::Span::new().years(AUTHORITY_YEARS))?;
    Ok(parameters)
}

fn parameters(purpose: &Purpose<'_>) -> Result<CertificateParams> {
    let mut parameters = CertificateParams::default();
    match purpose {
        Purpose::Server {
            common_name,
            names,
            addresses,
        } => {
            parameters = CertificateParams::new(names.to_vec())
                .context("a name for the serving certificate is no DNS name")?;
            parameters
                .subject_alt_names
                .extend(addresses.iter().copied().map(SanType::IpAddress));
            parameters.distinguished_name = distinguished_name(common_name, None);
            parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }
        Purpose::Client { user, group } => {
            parameters.distinguished_name = distinguished_name(user, Some(group));
            parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
    }
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    valid_for(&mut parameters, jiff::Span::new().days(CERTIFICATE_DAYS))?;
    Ok(parameters)
}

/// Valid from the beginning of yesterday, since clocks of nodes differ, for a span from today.
fn valid_for(parameters: &mut CertificateParams, span: jiff::Span) -> Result<()> {
    let today = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    let at = |date: jiff::civil::Date| {
        rcgen::date_time_ymd(
            i32::from(date.year()),
            date.month().unsigned_abs(),
            date.day().unsigned_abs(),
        )
    };
    parameters.not_before = at(today.yesterday()?);
    parameters.not_after = at(today.checked_add(span)?);
    Ok(())
}

fn distinguished_name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(certificate: &str) -> String {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        certificate.subject().to_string()
    }

    #[test]
    fn a_second_start_finds_the_same_authority_and_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let purpose = Purpose::Client {
            user: "admin",
            group: "system:masters",
        };
        let first = Authority::load_or_create(dir.path()).unwrap();
        let issued = first.certificate_for("admin", &purpose).unwrap();
        let second = Authority::load_or_create(dir.path()).unwrap();
        assert_eq!(first.certificate(), second.certificate());
        let again = second.certificate_for("admin", &purpose).unwrap();
        assert_eq!(issued.certificate, again.certificate);
        assert_eq!(subject(&again.certificate), "O=system:masters, CN=admin");
    }

    #[test]
    fn a_serving_certificate_is_replaced_when_a_name_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let serving = |names: &[String], addresses: &[IpAddr]| {
            authority
                .certificate_for(
                    "apiserver",
                    &Purpose::Server {
                        common_name: "kube-apiserver",
                        names,
                        addresses,
                    },
                )
                .unwrap()
                .certificate
        };
        let one = ["localhost".to_owned()];
        let two = ["localhost".to_owned(), "host.example".to_owned()];
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let first = serving(&one, &[loopback]);
        assert_eq!(first, serving(&one, &[loopback]));
        let wider = serving(&two, &[loopback]);
        assert_ne!(first, wider);
        assert_ne!(
            wider,
            serving(&two, &[loopback, "10.0.0.9".parse().unwrap()])
        );
    }

    #[test]
    fn a_lost_key_is_an_error_and_no_new_authority() {
        let dir = tempfile::tempdir().unwrap();
        Authority::load_or_create(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        let error = Authority::load_or_create(dir.path()).err().unwrap();
        assert!(error.to_string().contains("ca.key is missing"), "{error}");
    }

    #[test]
    fn a_node_gets_its_own_identity_whatever_it_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let (_, request) = node_request("edge-1", &["10.0.0.7".parse().unwrap()]).unwrap();
        let signed = authority.sign_node_request(&request, "edge-2");
        assert!(signed.is_err(), "a request for another node's name");
        let signed = authority.sign_node_request(&request, "edge-1").unwrap();
        assert_eq!(subject(&signed), "O=system:nodes, CN=system:node:edge-1");

        let (_, request) = node_request("kubernetes", &[]).unwrap();
        assert!(authority.sign_node_request(&request, "edge-1").is_err());
        assert!(authority.sign_node_request("no request", "edge-1").is_err());
    }
}
