//! Who is asked about names outside the cluster: the resolvers of the machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

/// Where a machine has its resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// More are not looked at, as in resolv.conf(5).
const RESOLVERS: usize = 3;
const PORT: u16 = 53;

/// The resolvers.
pub(super) enum Resolvers {
    /// Those that a file in the form of resolv.conf(5) names.
    File(ResolvConf),
    /// These.
    Given(Arc<[SocketAddr]>),
}

impl Default for Resolvers {
    fn default() -> Self {
        Self::File(ResolvConf::new(RESOLV_CONF.into()))
    }
}

impl Resolvers {
    /// The resolvers as they are now.
    pub(super) fn current(&self) -> Arc<[SocketAddr]> {
        match self {
            Self::File(file) => file.current(),
            Self::Given(resolvers) => resolvers.clone(),
        }
    }
}

/// What tells a file from the next one: inode, change time, size.
type Identity = (u64, i64, i64, u64);

/// A resolv.conf(5) that is read again when it has changed.
pub(super) struct ResolvConf {
    path: PathBuf,
    read: Mutex<Option<(Identity, Arc<[SocketAddr]>)>>,
}

impl ResolvConf {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: Mutex::new(None),
        }
    }

    /// One `stat` for each question that goes outside, which takes a microsecond of the
    /// milliseconds that the question takes; so it is not worth a thread of its own.
    fn current(&self) -> Arc<[SocketAddr]> {
        let mut read = self.read.lock();
        let identity = std::fs::metadata(&self.path)
            .ok()
            .map(|file| (file.ino(), file.mtime(), file.mtime_nsec(), file.size()));
        if let (Some(identity), Some((known, resolvers))) = (identity, read.as_ref())
            && identity == *known
        {
            return resolvers.clone();
        }
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let resolvers: Arc<[SocketAddr]> = parse(&text).into();
        *read = identity.map(|identity| (identity, resolvers.clone()));
        resolvers
    }
}

/// The resolvers that a resolv.conf(5) names; that of the machine itself if it names none.
fn parse(text: &str) -> Vec<SocketAddr> {
    let mut resolvers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            if words.next() != Some("nameserver") {
                return None;
            }
            let address = words.next()?;
            match address.parse::<IpAddr>() {
                Ok(address) => Some(SocketAddr::new(address, PORT)),
                Err(_) => {
                    tracing::debug!(address, "a resolver is not asked: it has no plain address");
                    None
                }
            }
        })
        .take(RESOLVERS)
        .collect();
    if resolvers.is_empty() {
        resolvers.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT));
    }
    resolvers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        for (text, expected) in [
            ("", vec!["127.0.0.1:53"]),
            ("# nameserver 192.0.2.9\nsearch a b\n", vec!["127.0.0.1:53"]),
            (
                "options ndots:2\nnameserver 192.0.2.1 # first\n\tnameserver\t2001:db8::1\n",
                vec!["192.0.2.1:53", "[2001:db8::1]:53"],
            ),
            (
                "nameserver\nnameserver x\nnameserver 192.0.2.1\nnameservers 192.0.2.2\n",
                vec!["192.0.2.1:53"],
            ),
            (
                "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
                vec!["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"],
            ),
        ] {
            let expected: Vec<SocketAddr> = expected.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let file = ResolvConf::new(path.clone());
        let first = |file: &ResolvConf| file.current()[0].ip().to_string();
        assert_eq!(first(&file), "127.0.0.1");
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(first(&file), "192.0.2.1");
        // As whoever manages the file does it.
        std::fs::write(folder.path().join("new"), "nameserver 192.0.2.2\n").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(first(&file), "192.0.2.2");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(first(&file), "127.0.0.1");
    }
}
