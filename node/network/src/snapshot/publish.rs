//! The agent's side of the snapshot.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{HEADER, HEADER_SIZE, MAGIC, Part};

/// Writes the snapshot. One process has one publisher for a folder.
#[derive(Debug)]
pub(crate) struct Publisher {
    folder: PathBuf,
    header: File,
    generations: [u64; Part::ALL.len()],
}

impl Publisher {
    /// Opens the folder, going on from the generations that an earlier agent has reached, so
    /// that processes which outlived it see news. Generation 0 is: nothing published.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        // Guest processes may have given up the agent's user.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let path = folder.join(HEADER);
        let mut generations = [0; Part::ALL.len()];
        let known = match fs::read(&path) {
            Ok(bytes) if bytes.len() == HEADER_SIZE && bytes.starts_with(&MAGIC) => Some(bytes),
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(bytes) = known {
            for part in Part::ALL {
                if let Some(Ok(bytes)) = bytes
                    .get(part.offset()..part.offset() + 8)
                    .map(<[u8; 8]>::try_from)
                {
                    generations[part as usize] = u64::from_ne_bytes(bytes);
                }
            }
        } else {
            // Never truncated in place: a reader may have it mapped.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&MAGIC)?;
            file.write_all(&[0; HEADER_SIZE - MAGIC.len()])?;
            persist(file, &path)?;
        }
        let header = OpenOptions::new().write(true).open(&path)?;
        Ok(Self {
            folder: folder.to_owned(),
            header,
            generations,
        })
    }

    /// Path of the header, by which readers open the snapshot.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(HEADER)
    }

    /// Publishes a part. Blocks on the file system.
    pub(crate) fn publish(&mut self, part: Part, bytes: &[u8]) -> io::Result<()> {
        let last = self.generations[part as usize];
        let next = last + 1;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(bytes)?;
        persist(file, &self.folder.join(part.file(next)))?;
        // Eight aligned bytes; should a reader ever see half of them, it finds no such file
        // and looks again.
        self.header
            .write_all_at(&next.to_ne_bytes(), part.offset() as u64)?;
        self.generations[part as usize] = next;
        if last > 0 {
            match fs::remove_file(self.folder.join(part.file(last - 1))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn persist(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
