//! The heap of stored objects.
//!
//! Objects stay, and what carries them here does not: bodies, trees of JSON, answers. In one heap an
//! object comes to lie between what a request leaves behind, and the room around it goes back to the
//! system no more: it came to three quarters of what the objects themselves take. So objects have a
//! heap of their own, in which nothing lies between them but what other objects left, and what is
//! [`Shared`] in it counts who refers to it as an `Arc` does.
//!
//! Deliberately absent: weak references, and what is written after it was made.

use std::alloc::{Layout, handle_alloc_error};
use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

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

/// Something in the heap of stored objects. Cheap to clone: all clones are the same.
pub struct Shared<T: ?Sized> {
    inner: NonNull<Inner<T>>,
    /// It is as if this were owned.
    owns: PhantomData<Inner<T>>,
}

#[repr(C)]
struct Inner<T: ?Sized> {
    references: AtomicUsize,
    value: T,
}

/// With more references than this somebody forgets them, and the count would come round.
const MOST_REFERENCES: usize = isize::MAX as usize;

// SAFETY: as for `Arc`: whoever has one may read the value from any thread, and the last drops it.
unsafe impl<T: ?Sized + Send + Sync> Send for Shared<T> {}
// SAFETY: see above.
unsafe impl<T: ?Sized + Send + Sync> Sync for Shared<T> {}

/// Memory for that layout, whose size is not zero.
fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: any size and any alignment that a layout has may be asked for.
    let memory = unsafe { HEAP.lock().malloc(layout.size(), layout.align()) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

impl<T> Shared<T> {
    /// Puts a value into the heap.
    #[must_use]
    pub fn new(value: T) -> Self {
        let inner = allocate(Layout::new::<Inner<T>>()).cast::<Inner<T>>();
        let references = AtomicUsize::new(1);
        // SAFETY: the memory is nobody else's, and of that layout.
        unsafe { inner.write(Inner { references, value }) };
        Self {
            inner,
            owns: PhantomData,
        }
    }
}

/// Puts a copy into the heap.
impl From<&[u8]> for Shared<[u8]> {
    fn from(bytes: &[u8]) -> Self {
        let header = Layout::new::<Inner<[u8; 0]>>();
        let size = header.size().checked_add(bytes.len());
        let layout = size.and_then(|size| Layout::from_size_align(size, header.align()).ok());
        // A slice has no more than `isize::MAX` bytes, which leaves no room for a header in the
        // worst of cases.
        let layout = layout.unwrap_or_else(|| handle_alloc_error(header));
        let memory = allocate(layout);
        let whole = NonNull::slice_from_raw_parts(memory, bytes.len());
        // The length of the slice is that of the last field.
        let inner = whole.as_ptr() as *mut Inner<[u8]>;
        // SAFETY: the memory is nobody else's; a header and so many bytes fit into it, and no
        // reference is made before both are there.
        unsafe {
            (&raw mut (*inner).references).write(AtomicUsize::new(1));
            (&raw mut (*inner).value)
                .cast::<u8>()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        Self {
            // SAFETY: it is made of what is not null.
            inner: unsafe { NonNull::new_unchecked(inner) },
            owns: PhantomData,
        }
    }
}

/// Puts a copy into the heap.
impl From<&str> for Shared<str> {
    fn from(text: &str) -> Self {
        let bytes = std::mem::ManuallyDrop::new(Shared::from(text.as_bytes()));
        // SAFETY: the bytes are those of a `str`, which is laid out as they are; the reference
        // passes from the one to the other.
        let inner = unsafe { NonNull::new_unchecked(bytes.inner.as_ptr() as *mut Inner<str>) };
        Self {
            inner,
            owns: PhantomData,
        }
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: it is there for as long as there is a reference, and is not written.
        unsafe { &self.inner.as_ref().value }
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        // SAFETY: see `deref`. Who has a reference can hand on another without more order.
        let count = unsafe { &self.inner.as_ref().references };
        if count.fetch_add(1, Ordering::Relaxed) > MOST_REFERENCES {
            std::process::abort();
        }
        Self {
            inner: self.inner,
            owns: PhantomData,
        }
    }
}

impl<T: ?Sized> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: see `deref`.
        let inner = unsafe { self.inner.as_ref() };
        if inner.references.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // All that others did with it happens before it goes.
        fence(Ordering::Acquire);
        let layout = Layout::for_value(inner);
        // SAFETY: this was the last reference; the memory came from this heap by that layout.
        unsafe {
            self.inner.drop_in_place();
            let memory = self.inner.as_ptr().cast::<u8>();
            HEAP.lock().free(memory, layout.size(), layout.align());
        }
    }
}

impl<T: ?Sized + PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: ?Sized + Eq> Eq for Shared<T> {}

impl<T: ?Sized + PartialOrd> PartialOrd for Shared<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (**self).partial_cmp(&**other)
    }
}

impl<T: ?Sized + Ord> Ord for Shared<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl<T: ?Sized + Hash> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<T: ?Sized> Borrow<T> for Shared<T> {
    fn borrow(&self) -> &T {
        self
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_reference_takes_the_value_along() {
        let within = Arc::new(());
        let first = Shared::new((7_u64, within.clone()));
        let second = first.clone();
        drop(first);
        assert_eq!((second.0, Arc::strong_count(&within)), (7, 2));
        drop(second);
        assert_eq!(Arc::strong_count(&within), 1);
    }

    #[test]
    fn texts_and_bytes_are_what_they_were_made_of() {
        for text in ["", "a", "/pods/default/wörld"] {
            let shared = Shared::from(text);
            assert_eq!((&*shared, &*shared.clone()), (text, text));
            assert_eq!(&*Shared::from(text.as_bytes()), text.as_bytes());
            assert_eq!(format!("{shared} {shared:?}"), format!("{text} {text:?}"));
        }
        assert_eq!(size_of::<Shared<u64>>(), size_of::<Option<Shared<u64>>>());
    }

    #[test]
    fn threads_share_and_end_what_others_made() {
        let all: Vec<Shared<[u8]>> = (0..64_u8)
            .map(|n| Shared::from(&vec![n; 10 + usize::from(n) * 40][..]))
            .collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let own = all.clone();
                scope.spawn(move || {
                    for (n, shared) in own.into_iter().enumerate() {
                        let other = Shared::from(&shared[..]);
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
            let empty = (Shared::from(&[][..]), Vec::new());
            let mut living = vec![empty; 20];
            for (number, (place, length)) in steps.into_iter().enumerate() {
                let bytes = vec![number as u8; length];
                living[place] = (Shared::from(&bytes[..]), bytes);
                for (shared, bytes) in &living {
                    prop_assert_eq!(&shared[..], &bytes[..]);
                }
            }
        }
    }
}
