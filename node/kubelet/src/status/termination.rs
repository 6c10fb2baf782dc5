//! The last words of a container: its termination message.
//!
//! Source of the rule: the Kubernetes task "Determine the reason for Pod failure":
//! the end of the file at `terminationMessagePath`, at most 4,096 bytes; where the policy says so
//! and the container failed, else the end of its log, at most 2,048 bytes or 80 lines. Those of all
//! of a Pod's containers have 12 KiB, of which each may use the same share.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::access::open_foreign;

const MAX_MESSAGE: u64 = 4096;
const MAX_LOG: u64 = 2048;
const MAX_LINES: usize = 80;
/// Bytes of the messages of all containers of a Pod.
const MAX_POD: usize = 12 << 10;

/// The message; none if the container left none. Blocking file I/O of a few kilobytes.
pub(crate) fn message(file: &Path, log: Option<&Path>) -> Option<String> {
    let text = end(file, MAX_MESSAGE).map(|(_, text)| text);
    match text.filter(|text| !text.is_empty()) {
        Some(text) => Some(text),
        None => log.and_then(end_of_log),
    }
}

fn end_of_log(path: &Path) -> Option<String> {
    // Lines carry a time stamp and a stream, which do not count.
    let (from, text) = end(path, MAX_LOG * 4)?;
    let skipped = usize::from(from > 0);
    let lines: Vec<&str> = text.lines().skip(skipped).filter_map(content).collect();
    let first = lines.len().saturating_sub(MAX_LINES);
    let mut message = String::new();
    for line in &lines[first..] {
        message.push_str(line);
        message.push('\n');
    }
    let from = message.len().saturating_sub(MAX_LOG as usize);
    let from = message.ceil_char_boundary(from);
    Some(message.split_off(from)).filter(|m| !m.is_empty())
}

/// The last bytes of a file, and where in it they begin.
fn end(path: &Path, most: u64) -> Option<(u64, String)> {
    let mut file = open_foreign(path).ok()?;
    let from = file.metadata().ok()?.len().saturating_sub(most);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some((from, String::from_utf8_lossy(&bytes).into_owned()))
}

/// Cuts a message to its share in a Pod of so many containers.
pub(crate) fn share(message: &str, containers: usize) -> &str {
    &message[..message.floor_char_boundary(MAX_POD / containers.max(1))]
}

fn content(line: &str) -> Option<&str> {
    line.splitn(4, ' ').nth(3)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_file_wins_and_the_log_is_the_fallback() {
        let folder = tempfile::tempdir().unwrap();
        let (file, log) = (folder.path().join("message"), folder.path().join("0.log"));
        assert_eq!(message(&file, Some(&log)), None);
        let text: String = (0..100)
            .map(|n| format!("2026-01-02T03:04:05.000000006Z stderr F line {n}\n"))
            .collect();
        std::fs::write(&log, text).unwrap();
        std::fs::write(&file, "").unwrap();
        assert_eq!(message(&file, None), None);
        let from_log = message(&file, Some(&log)).unwrap();
        assert!(from_log.starts_with("line 20\n"), "{from_log}");
        assert!(from_log.ends_with("line 99\n"));
        let long = "x".repeat(5000) + "last words";
        std::fs::write(&file, &long).unwrap();
        assert_eq!(
            message(&file, Some(&log)).unwrap(),
            long[long.len() - 4096..]
        );
    }

    #[test]
    fn all_containers_of_a_pod_have_the_same_share() {
        let long = "ü".repeat(2048);
        for (containers, bytes) in [(0, 4096), (1, 4096), (3, 4096), (4, 3072), (7, 1754)] {
            assert_eq!(share(&long, containers).len(), bytes, "{containers}");
        }
        assert_eq!(share("bye", 4), "bye");
    }
}
