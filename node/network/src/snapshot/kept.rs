//! What a snapshot says of Services and names, for the next agent.
//!
//! An agent that begins knows nothing of either until it has heard from the control plane, which
//! may be out of reach. Guests that have lived on are told meanwhile what they were told before.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use coracle_runtime::Protocol;

use super::{Answer, Contents, NAMES, SERVICES, Snapshot, Socket, Virtual, address, number};

/// Services and names of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    services: BTreeMap<Socket, Virtual>,
    names: BTreeMap<String, Answer>,
}

impl Kept {
    /// Those that were published last; none if there is no file, or another version's.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let snapshot = Snapshot::open(&file).ok()?;
        Some(Self {
            services: snapshot.services(),
            names: snapshot.names(),
        })
    }

    /// Puts them in the place of what is there.
    pub(crate) fn put_into(self, contents: Contents) -> Contents {
        let Self { services, names } = self;
        Contents {
            services,
            names,
            ..contents
        }
    }
}

impl Snapshot {
    /// All Services.
    fn services(&self) -> BTreeMap<Socket, Virtual> {
        let count = self.sections[SERVICES].1;
        let service = |index| {
            let record = self.record(SERVICES, index)?;
            Some((socket(record)?, self.virtual_of(record)?))
        };
        (0..count).filter_map(service).collect()
    }

    /// All names.
    fn names(&self) -> BTreeMap<String, Answer> {
        let count = self.sections[NAMES].1;
        let name = |index| {
            let record = self.record(NAMES, index)?;
            let name = self.text(number(record, 0)?, number(record, 4)?)?;
            let name = String::from_utf8(name.to_vec()).ok()?;
            Some((name, self.answer_of(record)?))
        };
        (0..count).filter_map(name).collect()
    }
}

/// The socket by which a record is found.
fn socket(record: &[u8]) -> Option<Socket> {
    let port = record.get(16..18)?.try_into().ok()?;
    let protocol = match record.get(18)? {
        0 => Protocol::Tcp,
        _ => Protocol::Udp,
    };
    Some((address(record, 0)?, u16::from_be_bytes(port), protocol))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::{Form, General};
    use super::*;

    #[test]
    fn services_and_names_are_kept_and_nothing_else() {
        let contents = || {
            Contents::new(General {
                form: Form::Virtual,
                domain: "cluster.local".into(),
                virtual_ranges: Vec::new(),
                gateway: "10.42.0.1".parse().unwrap(),
                dns: None,
                authority: None,
            })
        };
        let endpoint: SocketAddr = "10.42.0.2:8080".parse().unwrap();
        let service = |elsewhere: bool| Virtual {
            affinity: true,
            endpoints: if elsewhere {
                Vec::new()
            } else {
                vec![endpoint]
            },
            elsewhere,
        };
        let mut before = contents();
        for (address, port, protocol) in [
            ("10.43.0.9", 80, Protocol::Tcp),
            ("10.43.0.9", 53, Protocol::Udp),
            ("fd00::9", 443, Protocol::Tcp),
        ] {
            let socket = (address.parse().unwrap(), port, protocol);
            before.services.insert(socket, service(port == 53));
        }
        let address = vec!["10.43.0.9".parse().unwrap()];
        before.names = BTreeMap::from([
            ("a.cluster.local".into(), Answer::Addresses(address)),
            ("b.cluster.local".into(), Answer::Alias("a.example".into())),
        ]);
        let listener = ("10.42.0.2".parse().unwrap(), 8080, Protocol::Tcp);
        before.listeners.insert(listener, endpoint);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        assert_eq!(Kept::of(&path), None);
        before.publish(&path).unwrap();
        let now = Kept::of(&path).unwrap().put_into(contents());
        before.listeners.clear();
        assert_eq!(now, before);
        std::fs::write(&path, "nonsense").unwrap();
        assert_eq!(Kept::of(&path), None);
    }
}
