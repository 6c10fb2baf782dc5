//! Listeners on `localhost`, which processes of one Pod tell each other and nobody else.
//!
//! A Pod whose guests listen there has a small file, `localhost/<Pod address>`, of one line per
//! listener: protocol, address as the guest knows it, socket that serves it. Writers lock it. A
//! process that dies leaves its lines; whoever follows one is refused, as nothing listens there
//! any more. The agent removes the file with the Pod's address.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use coracle_runtime::Protocol;
use rustix::fs::FlockOperation;

/// Listeners of a Pod that are remembered.
const LIMIT: usize = 64;

type Line = (Protocol, SocketAddr, SocketAddr);

fn path(folder: &Path, pod: Ipv4Addr) -> PathBuf {
    folder.join("localhost").join(pod.to_string())
}

/// Removes what a Pod has left.
pub(crate) fn forget(folder: &Path, pod: Ipv4Addr) -> io::Result<()> {
    match fs::remove_file(path(folder, pod)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The socket that serves an address of a Pod's localhost.
pub(super) fn find(
    folder: &Path,
    pod: Ipv4Addr,
    protocol: Protocol,
    local: SocketAddr,
) -> Option<SocketAddr> {
    let file = File::open(path(folder, pod)).ok()?;
    rustix::fs::flock(&file, FlockOperation::LockShared).ok()?;
    let lines = read(file).ok()?;
    let mut found = lines.iter().filter(|line| (line.0, line.1) == (protocol, local));
    found.next().map(|line| line.2)
}

/// Says that an address is served by another socket now, or by none. `last` is what this
/// process had said: the line of another one is left alone.
pub(super) fn tell(
    folder: &Path,
    pod: Ipv4Addr,
    protocol: Protocol,
    local: SocketAddr,
    last: Option<SocketAddr>,
    actual: Option<SocketAddr>,
) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path(folder, pod))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    let mut lines = read(&file)?;
    lines.retain(|line| {
        let same = (line.0, line.1) == (protocol, local);
        !(same && (actual.is_some() || Some(line.2) == last))
    });
    if let Some(actual) = actual {
        lines.insert(0, (protocol, local, actual));
    }
    lines.truncate(LIMIT);
    let bytes = serde_json::to_vec(&lines)?;
    file.rewind()?;
    file.write_all(&bytes)?;
    file.set_len(bytes.len() as u64)
}

fn read(mut file: impl Read) -> io::Result<Vec<Line>> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    // What cannot be read was cut off by the death of its writer.
    Ok(serde_json::from_slice(&text).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("localhost")).unwrap();
        let (pod, other) = (Ipv4Addr::new(10, 42, 0, 2), Ipv4Addr::new(10, 42, 0, 3));
        let local: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let (one, two) = ("127.128.0.5:1", "127.128.0.5:2");
        let (one, two): (SocketAddr, SocketAddr) = (one.parse().unwrap(), two.parse().unwrap());
        let find = |pod| find(folder.path(), pod, Protocol::Tcp, local);
        let tell = |last, actual| {
            tell(folder.path(), pod, Protocol::Tcp, local, last, actual).unwrap();
        };
        assert_eq!(find(pod), None);
        tell(None, Some(one));
        assert_eq!((find(pod), find(other)), (Some(one), None));
        // Another process takes the address over; the first one's withdrawal changes nothing.
        tell(None, Some(two));
        tell(Some(one), None);
        assert_eq!(find(pod), Some(two));
        tell(Some(two), None);
        assert_eq!(find(pod), None);
        tell(None, Some(one));
        fs::write(path(folder.path(), pod), "[[\"TCP\",\"127.0").unwrap();
        assert_eq!(find(pod), None);
        tell(None, Some(two));
        assert_eq!(find(pod), Some(two));
        forget(folder.path(), pod).unwrap();
        forget(folder.path(), pod).unwrap();
        assert_eq!(find(pod), None);
    }
}
