//! The heap of stored objects.
//!
//! Objects stay, and what carries them here does not: bodies, trees of JSON, answers. In one heap an
//! object comes to lie between what a request leaves behind, and the room around it goes back to the
//! system no more: it came to three quarters of what the objects themselves take. So objects have a
//! heap of their own, in which nothing lies between them but what other objects left.
//!
//! What is in it are [`Bytes`] that count who refers to them, as an `Arc` does, with thin pointers
//! and small headers: objects are many, and most are small. Beside the bytes are two [`Marks`], which
//! may be set once.
//!
//! Deliberately absent: weak references, and bytes that are written after they were made.

use std::alloc::{Layout, handle_alloc_error};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use dlmalloc::Dlmalloc;
use parking_lot::Mutex;

/// What the heap takes from the system at once: few mappings, and little that is taken for nothing.
const GRANULARITY: usize = 1 << 20;

/// It is locked for the time of one allocation, which waits for nobody else.
static HEAP: Mutex<Dlmalloc> = Mutex::new(
    const {
        let mut heap = Dlmalloc::new();
        assert!(heap.set_granularity(GRANULARITY));
        heap
    },
);

/// Bytes in the heap of stored objects. Cheap to clone: all clones are the same.
pub(crate) struct Bytes(NonNull<Header>);

/// What lies before the bytes.
struct Header {
    references: AtomicU32,
    length: u32,
    marks: [AtomicU64; 2],
}

/// Numbers beside bytes; those of bytes that are not marked yet are zero.
pub(crate) type Marks = [u64; 2];

/// With more references than this somebody forgets them, and the count would come round.
const MOST_REFERENCES: u32 = i32::MAX.unsigned_abs();

// SAFETY: as for `Arc`: whoever has one may read the bytes from any thread, and the last frees them.
unsafe impl Send for Bytes {}
// SAFETY: see above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// Puts a copy of the parts, one after the other, into the heap.
    pub(crate) fn join(parts: &[&[u8]], marks: Marks) -> Self {
        let sizes = parts.iter().map(|part| part.len());
        let total = sizes.fold(0_usize, usize::saturating_add);
        // Values are bounded far below 4 GiB.
        let fits = u32::try_from(total).ok();
        let fits = fits.and_then(|length| Some((length, Self::layout(total)?)));
        let Some((length, layout)) = fits else {
            handle_alloc_error(Layout::new::<Header>());
        };
        // SAFETY: any size and any alignment that a layout has may be asked for.
        let memory = unsafe { HEAP.lock().malloc(layout.size(), layout.align()) };
        let Some(header) = NonNull::new(memory.cast::<Header>()) else {
            handle_alloc_error(layout);
        };
        let fresh = Header {
            references: AtomicU32::new(1),
            length,
            marks: marks.map(AtomicU64::new),
        };
        // SAFETY: the memory is nobody else's, and a header and so many bytes fit into it.
        unsafe {
            header.write(fresh);
            let mut to = header.add(1).cast::<u8>();
            for part in parts {
                to.copy_from_nonoverlapping(NonNull::from(*part).cast(), part.len());
                to = to.add(part.len());
            }
        }
        Self(header)
    }

    /// Of a header and so many bytes.
    fn layout(length: usize) -> Option<Layout> {
        let size = size_of::<Header>().checked_add(length)?;
        Layout::from_size_align(size, align_of::<Header>()).ok()
    }

    pub(crate) fn marks(&self) -> Marks {
        self.header()
            .marks
            .each_ref()
            .map(|mark| mark.load(Ordering::Relaxed))
    }

    /// Sets both marks, unless the first is set; returns whether they are as wanted then. Who reads
    /// them must have been handed the bytes after that.
    pub(crate) fn mark(&self, marks: Marks) -> bool {
        let [first, second] = &self.header().marks;
        let fresh = first.compare_exchange(0, marks[0], Ordering::Relaxed, Ordering::Relaxed);
        if fresh.is_ok() {
            second.store(marks[1], Ordering::Relaxed);
        }
        self.marks() == marks
    }

    fn header(&self) -> &Header {
        // SAFETY: it is there for as long as there is a reference, and what is not atomic in it is
        // not written.
        unsafe { self.0.as_ref() }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let length = self.header().length as usize;
        // SAFETY: so many bytes lie behind the header; for the rest, see `header`.
        unsafe { NonNull::slice_from_raw_parts(self.0.add(1).cast(), length).as_ref() }
    }
}

impl Clone for Bytes {
    fn clone(&self) -> Self {
        // Who has a reference can hand on another without more order.
        let before = self.header().references.fetch_add(1, Ordering::Relaxed);
        if before > MOST_REFERENCES {
            std::process::abort();
        }
        Self(self.0)
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        let header = self.header();
        if header.references.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // All that others did with it happens before it goes.
        fence(Ordering::Acquire);
        let Some(layout) = Self::layout(header.length as usize) else {
            return;
        };
        let memory = self.0.as_ptr().cast::<u8>();
        // SAFETY: this was the last reference; the memory came from this heap by that layout.
        unsafe { HEAP.lock().free(memory, layout.size(), layout.align()) };
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || (**self == **other && self.marks() == other.marks())
    }
}

impl Eq for Bytes {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn references(bytes: &Bytes) -> u32 {
        bytes.header().references.load(Ordering::Relaxed)
    }

    #[test]
    fn bytes_are_what_they_were_made_of_and_count_who_refers_to_them() {
        let cases: [&[&[u8]]; 4] = [&[], &[b""], &[b"a"], &[b"one", b"", b" and the other"]];
        for parts in cases {
            let first = Bytes::join(parts, [0; 2]);
            assert_eq!(&first[..], parts.concat());
            let second = first.clone();
            assert_eq!((references(&first), &second[..]), (2, &first[..]));
            assert!(first == second && Bytes::join(parts, [0; 2]) == first);
            drop(first);
            assert_eq!(references(&second), 1);
        }
        let made = |bytes: &[u8], mark| Bytes::join(&[bytes], [mark, 0]);
        assert!(made(b"a", 0) != made(b"b", 0) && made(b"a", 0) != made(b"a", 1));
        assert_eq!(size_of::<Option<Bytes>>(), size_of::<usize>());
    }

    #[test]
    fn marks_are_set_once() {
        let bytes = Bytes::join(&[b"a"], [0; 2]);
        assert_eq!(bytes.marks(), [0; 2]);
        assert!(bytes.clone().mark([7, 3]) && bytes.mark([7, 3]));
        assert!(!bytes.mark([7, 4]) && !bytes.mark([8, 3]));
        assert_eq!(bytes.marks(), [7, 3]);
        assert_eq!(Bytes::join(&[b"a"], [7, 3]).marks(), [7, 3]);
    }

    #[test]
    fn threads_share_and_end_what_others_made() {
        let all: Vec<Bytes> = (0..64_u8)
            .map(|n| Bytes::join(&[&vec![n; 10 + usize::from(n) * 40]], [0; 2]))
            .collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let own = all.clone();
                scope.spawn(move || {
                    for (n, shared) in own.into_iter().enumerate() {
                        let other = Bytes::join(&[&shared], [0; 2]);
                        assert!(shared == other && shared.iter().all(|b| usize::from(*b) == n));
                    }
                });
            }
        });
        drop(all);
    }

    proptest! {
        /// Nothing that lives is touched by what comes and goes around it.
        #[test]
        fn what_lives_stays(steps in proptest::collection::vec((0..20_usize, 0..3000_usize), 1..200)) {
            let mut living = vec![(Bytes::join(&[], [0; 2]), Vec::new()); 20];
            for (number, (place, length)) in steps.into_iter().enumerate() {
                let bytes = vec![number as u8; length];
                living[place] = (Bytes::join(&[&bytes], [0; 2]), bytes);
                for (shared, bytes) in &living {
                    prop_assert_eq!(&shared[..], &bytes[..]);
                }
            }
        }
    }
}
