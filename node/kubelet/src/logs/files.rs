//! The files of one log, and where its last lines begin.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::access::open_foreign;

/// Bytes that are read at once when looking for the last lines.
const BLOCK: u64 = 64 << 10;

/// The parts of a log from the oldest to the current one; only those that exist.
pub(crate) fn parts(current: &Path) -> Vec<PathBuf> {
    let name = current.file_name().and_then(|name| name.to_str());
    let (Some(folder), Some(name)) = (current.parent(), name) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut parts: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            // Compressed parts cannot be searched by line.
            name.is_some_and(|name| name.starts_with(&prefix) && !name.ends_with(".gz"))
        })
        .collect();
    // Their names end with the time.
    parts.sort();
    if current.exists() {
        parts.push(current.to_owned());
    }
    parts
}

/// Removes all parts of a log. What cannot be removed goes with its Pod.
pub(crate) fn remove(current: &Path) {
    for part in parts(current) {
        if let Err(error) = std::fs::remove_file(&part) {
            tracing::debug!(%error, path = %part.display(), "cannot remove a log");
        }
    }
}

/// Where the last `lines` lines of a log begin: how many parts to skip, and the offset in the
/// first one that is read.
pub(crate) fn tail(parts: &[PathBuf], lines: u64) -> io::Result<(usize, u64)> {
    let mut wanted = lines;
    for (index, part) in parts.iter().enumerate().rev() {
        let mut file = open_foreign(part)?;
        let length = file.metadata()?.len();
        if wanted == 0 {
            // Nothing, but what is written from now on.
            return Ok((index, length));
        }
        if let Some(offset) = last_lines(&mut file, length, &mut wanted)? {
            return Ok((index, offset));
        }
    }
    Ok((0, 0))
}

/// The offset of the last `wanted` lines; none, with `wanted` lowered, if there are fewer.
fn last_lines(file: &mut File, length: u64, wanted: &mut u64) -> io::Result<Option<u64>> {
    let mut end = length;
    let mut block = Vec::new();
    // The line break at the very end ends the last line, it does not begin one.
    let mut at_end = true;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.resize(usize::try_from(end - start).unwrap_or(0), 0);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            if at_end {
                at_end = false;
                if *byte == b'\n' {
                    continue;
                }
            }
            if *byte == b'\n' {
                *wanted -= 1;
                if *wanted == 0 {
                    return Ok(Some(start + index as u64 + 1));
                }
            }
        }
        end = start;
    }
    if length > 0 {
        // The first line has no line break before it.
        *wanted -= 1;
        if *wanted == 0 {
            return Ok(Some(0));
        }
    }
    Ok(None)
}
