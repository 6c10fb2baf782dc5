//! The container of a part: sections of records of one size each.
//!
//! ```text
//! u32 number of sections, then for each: u32 offset, u32 size of a record, u32 records
//! ```
//!
//! Numbers are big-endian, so that keys compare as bytes. Reading never panics: what points
//! outside the file is not there.

use std::cmp::Ordering;

/// Builds a part.
#[derive(Default)]
pub(super) struct Builder {
    sections: Vec<(usize, Vec<u8>)>,
}

impl Builder {
    /// Adds a section of records of `size` bytes.
    pub(super) fn section(mut self, size: usize, bytes: Vec<u8>) -> Self {
        self.sections.push((size, bytes));
        self
    }

    pub(super) fn build(self) -> Vec<u8> {
        let mut offset = 4 + 12 * self.sections.len();
        let total: usize = self.sections.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut out = Vec::with_capacity(offset + total);
        out.extend(number(self.sections.len()));
        for (size, bytes) in &self.sections {
            out.extend(number(offset));
            out.extend(number(*size));
            out.extend(number(bytes.len() / size));
            offset += bytes.len();
        }
        for (_, bytes) in self.sections {
            out.extend(bytes);
        }
        out
    }
}

/// A number of four bytes. Parts stay far below 4 GiB; beyond it the part would be refused by
/// its readers, never misread.
pub(super) fn number(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes()
}

/// Reads a number of four bytes.
pub(super) fn read_number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_be_bytes(bytes.try_into().ok()?)).ok()
}

/// Reads a number of two bytes.
pub(super) fn read_port(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// Records of one size.
#[derive(Clone, Copy)]
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    size: usize,
}

/// The section of an index in a part.
pub(super) fn section(part: &[u8], index: usize) -> Option<Records<'_>> {
    let head = 4 + 12 * index;
    if index >= read_number(part, 0)? {
        return None;
    }
    let offset = read_number(part, head)?;
    let size = read_number(part, head + 4)?;
    let length = size.checked_mul(read_number(part, head + 8)?)?;
    let bytes = part.get(offset..offset.checked_add(length)?)?;
    (size > 0).then_some(Records { bytes, size })
}

impl<'a> Records<'a> {
    pub(super) fn len(self) -> usize {
        self.bytes.len() / self.size
    }

    pub(super) fn get(self, index: usize) -> Option<&'a [u8]> {
        let start = index.checked_mul(self.size)?;
        self.bytes.get(start..start.checked_add(self.size)?)
    }

    /// The bytes of some records.
    pub(super) fn range(self, first: usize, count: usize) -> Option<&'a [u8]> {
        let start = first.checked_mul(self.size)?;
        let length = count.checked_mul(self.size)?;
        self.bytes.get(start..start.checked_add(length)?)
    }

    /// Index of the first record that is not less, in a sorted section.
    pub(super) fn lower_bound(self, mut compare: impl FnMut(&[u8]) -> Ordering) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).map(&mut compare) {
                Some(Ordering::Less) => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    /// A record that is equal, in a sorted section.
    pub(super) fn find(self, mut compare: impl FnMut(&[u8]) -> Ordering) -> Option<&'a [u8]> {
        let found = self.get(self.lower_bound(&mut compare))?;
        (compare(found) == Ordering::Equal).then_some(found)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_built_is_read() {
        let part = Builder::default()
            .section(2, vec![0, 1, 0, 3, 0, 5])
            .section(1, b"text".to_vec())
            .section(4, Vec::new())
            .build();
        let first = section(&part, 0).unwrap();
        assert_eq!((first.len(), first.get(1)), (3, Some(&[0, 3][..])));
        assert_eq!(first.find(|r| r.cmp(&[0, 5][..])), Some(&[0, 5][..]));
        assert_eq!(first.find(|r| r.cmp(&[0, 4][..])), None);
        assert_eq!(first.lower_bound(|r| r.cmp(&[0, 4][..])), 2);
        assert_eq!(section(&part, 1).unwrap().range(1, 3), Some(&b"ext"[..]));
        assert_eq!(section(&part, 2).unwrap().len(), 0);
        assert!(section(&part, 3).is_none());
    }

    proptest! {
        #[test]
        fn garbage_is_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for index in 0..4 {
                if let Some(records) = section(&bytes, index) {
                    records.get(records.len());
                    records.range(usize::MAX, 2);
                    records.find(|record| record.cmp(&[7][..]));
                }
            }
        }
    }
}
