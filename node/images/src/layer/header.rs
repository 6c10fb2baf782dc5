//! Entries of an archive that say something of the next one: long names and extended headers.

use std::io::{self, Read};

use tar::EntryType;

/// Bytes of all long names and extended headers of one entry, which are in memory together. What a
/// file system takes of names and attributes is a tenth of that.
const LIMIT: u64 = 1 << 20;
/// Prefix of extended attributes, as tools that build images write them.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// What was said of the next entry.
#[derive(Debug, Default)]
pub(super) struct Extended {
    /// Bytes that said it.
    read: u64,
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) modified: Option<(i64, u32)>,
    pub(super) attributes: Vec<(String, Vec<u8>)>,
}

impl Extended {
    /// Reads an entry that is about the next one; says whether it was one.
    pub(super) fn take<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> io::Result<bool> {
        match entry.header().entry_type() {
            EntryType::GNULongName => self.path = Some(self.name(entry)?),
            EntryType::GNULongLink => self.link = Some(self.name(entry)?),
            EntryType::XHeader => {
                let bytes = self.bytes(entry)?;
                self.records(&bytes)?;
            }
            // It holds for the rest of an archive, and what it may say (a comment) is nothing here.
            EntryType::XGlobalHeader => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads all of an entry. There may be any number of such before the one that they are about.
    fn bytes(&mut self, entry: &mut impl Read) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let left = LIMIT.saturating_sub(self.read);
        entry.take(left + 1).read_to_end(&mut bytes)?;
        self.read += bytes.len() as u64;
        if self.read > LIMIT {
            return Err(io::Error::other("a name or an extended header is too long"));
        }
        Ok(bytes)
    }

    fn name(&mut self, entry: &mut impl Read) -> io::Result<Vec<u8>> {
        let mut name = self.bytes(entry)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn records(&mut self, bytes: &[u8]) -> io::Result<()> {
        for record in tar::PaxExtensions::new(bytes) {
            let record = record?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number(value)?),
                b"uid" => self.uid = Some(number(value)?),
                b"gid" => self.gid = Some(number(value)?),
                b"mtime" => self.modified = time(value),
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(io::Error::other("sparse files are not supported"));
                }
                key => {
                    let name = key.strip_prefix(ATTRIBUTE);
                    if let Some(Ok(name)) = name.map(std::str::from_utf8) {
                        self.attributes.push((name.to_owned(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn number(value: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| io::Error::other("an extended header holds no number where one belongs"))
}

/// Seconds with a fraction; what cannot be read is no time.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    Some((seconds.parse().ok()?, digits.parse().ok()?))
}
