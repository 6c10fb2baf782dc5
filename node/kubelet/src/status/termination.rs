//! The last words of a container: its termination message.
//!
//! Source of the rule: the Kubernetes task "Determine the reason for Pod failure":
//! the file at `terminationMessagePath`, at most 4,096 bytes; where the policy says so and the
//! container failed, else the end of its log, at most 2,048 bytes or 80 lines.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::access::open_foreign;

const MAX_MESSAGE: u64 = 4096;
const MAX_LOG: u64 = 2048;
const MAX_LINES: usize = 80;

/// The message; none if the container left none. Blocking file I/O of a few kilobytes.
pub(crate) fn message(file: &Path, log: Option<&Path>) -> Option<String> {
    let text = open_foreign(file).ok().and_then(|file| {
        let mut bytes = Vec::new();
        file.take(MAX_MESSAGE).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    });
    match text.filter(|text| !text.is_empty()) {
        Some(text) => Some(text),
        None => log.and_then(end_of_log),
    }
}

fn end_of_log(path: &Path) -> Option<String> {
    let mut file = open_foreign(path).ok()?;
    let length = file.metadata().ok()?.len();
    // Lines carry a time stamp and a stream, which do not count.
    let from = length.saturating_sub(MAX_LOG * 4);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_LOG * 4).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let skipped = usize::from(from > 0);
    let lines: Vec<&str> = text.lines().skip(skipped).filter_map(content).collect();
    let first = lines.len().saturating_sub(MAX_LINES);
    let mut message = String::new();
    for line in &lines[first..] {
        message.push_str(line);
        message.push('\n');
    }
    let mut from = message.len().saturating_sub(MAX_LOG as usize);
    while !message.is_char_boundary(from) {
        from += 1;
    }
    Some(message.split_off(from)).filter(|m| !m.is_empty())
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
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        assert_eq!(message(&file, Some(&log)).unwrap().len(), 4096);
    }
}
