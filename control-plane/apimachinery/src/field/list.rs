//! The errors of one object, as many as an answer has room for.

use std::collections::BTreeSet;
use std::{ops, slice, vec};

use super::{Error, ErrorType, Path};

/// Bytes of the errors of a list. Each has well over a hundred as a rule, and nobody reads as many
/// as come to this; a body of a few megabytes can have a million of them, each with a long path.
const MOST: usize = 128 * 1024;
/// What an error takes beside its texts.
const OF_EACH: usize = 64;

/// Errors in the order in which they were found: as many as an answer has room for, and a last one
/// that says how many more there were.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorList {
    errors: Vec<Error>,
    size: usize,
}

impl ErrorList {
    /// Adds an error, or counts it.
    pub fn push(&mut self, error: Error) {
        if let Some(last) = self.errors.last_mut()
            && last.omitted > 0
        {
            last.omitted += error.count();
            return;
        }
        self.size += error.size();
        let shown = error.omitted == 0 && self.size <= MOST;
        let count = error.count();
        self.errors
            .push(if shown { error } else { Error::omitted(count) });
    }

    /// Adds an error as often as it was found, at no more cost than the list has room for.
    pub fn push_times(&mut self, error: &Error, times: usize) {
        for done in 0..times {
            if let Some(last) = self.errors.last_mut()
                && last.omitted > 0
            {
                last.omitted += error.count() * (times - done);
                return;
            }
            self.push(error.clone());
        }
    }

    /// How many there are, with those that are only counted.
    pub fn len(&self) -> usize {
        self.errors.iter().map(Error::count).sum()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }
}

impl Error {
    fn omitted(count: usize) -> Self {
        Self {
            omitted: count,
            ..Self::new(ErrorType::TooMany, &Path::root(), None, String::new())
        }
    }

    /// Of how many errors this tells.
    fn count(&self) -> usize {
        self.omitted.max(1)
    }

    fn size(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |value| value.0.len());
        OF_EACH + self.field.as_str().len() + value + self.detail.len()
    }
}

impl Extend<Error> for ErrorList {
    fn extend<I: IntoIterator<Item = Error>>(&mut self, errors: I) {
        for error in errors {
            self.push(error);
        }
    }
}

impl FromIterator<Error> for ErrorList {
    fn from_iter<I: IntoIterator<Item = Error>>(errors: I) -> Self {
        let mut list = Self::default();
        list.extend(errors);
        list
    }
}

impl From<Vec<Error>> for ErrorList {
    fn from(errors: Vec<Error>) -> Self {
        Self::from_iter(errors)
    }
}

impl From<Error> for ErrorList {
    fn from(error: Error) -> Self {
        Self::from_iter([error])
    }
}

impl ops::Deref for ErrorList {
    type Target = [Error];

    fn deref(&self) -> &[Error] {
        &self.errors
    }
}

impl IntoIterator for ErrorList {
    type Item = Error;
    type IntoIter = vec::IntoIter<Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.into_iter()
    }
}

impl<'a> IntoIterator for &'a ErrorList {
    type Item = &'a Error;
    type IntoIter = slice::Iter<'a, Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.iter()
    }
}

/// Many faults as one message: the single one as it is, several in brackets without repeats.
pub fn aggregate(errors: &[Error]) -> String {
    let mut seen = BTreeSet::new();
    let mut messages: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let message = error.to_string();
        if seen.insert(message.clone()) {
            messages.push(message);
        }
    }
    match messages.len() {
        1 => messages.swap_remove(0),
        _ => format!("[{}]", messages.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregates() {
        let at = Path::new("a");
        let (one, two) = (Error::required(&at, ""), Error::forbidden(&at, "b"));
        assert_eq!(aggregate(std::slice::from_ref(&one)), "a: Required value");
        assert_eq!(
            aggregate(&[one.clone(), two, one]),
            "[a: Required value, a: Forbidden: b]"
        );
    }

    /// The shapes in which a few megabytes ask for gigabytes: many errors, and something long that
    /// each of them repeats.
    #[test]
    fn many_errors_are_counted() {
        let long = "x".repeat(16 * 1024);
        let at = Path::new("spec").child("list");
        type Make<'a> = &'a dyn Fn(usize) -> Error;
        let table: [(&str, usize, Make<'_>); 4] = [
            ("none is long", 200_000, &|i| {
                Error::required(&at.index(i), "")
            }),
            ("values", 5_000, &|i| {
                Error::invalid(&at.index(i), long.as_str(), "must be short")
            }),
            ("details", 5_000, &|i| {
                Error::forbidden(&at.index(i), long.as_str())
            }),
            ("paths", 200_000, &|i| {
                Error::required(&at.key(&long[..1_000]).index(i), "")
            }),
        ];
        for (name, count, error) in table {
            let errors: ErrorList = (0..count).map(error).collect();
            assert_eq!(errors.len(), count, "{name}");
            let text = aggregate(&errors);
            let bytes = text.len();
            assert!((MOST / 4..2 * MOST).contains(&bytes), "{name}: {bytes}");
            let more = count - (errors.into_iter().count() - 1);
            let last = format!(", Too many errors: {more} more are not shown]");
            assert!(text.ends_with(&last), "{name}: {more}");
        }
    }

    #[test]
    fn errors_are_found_many_times() {
        let error = Error::required(&Path::new("a"), "");
        for times in [0, 1, 3, 10_000] {
            let mut errors = ErrorList::default();
            errors.push_times(&error, times);
            assert_eq!(errors, ErrorList::from(vec![error.clone(); times]));
        }
        let mut errors = ErrorList::default();
        errors.push_times(&error, 1 << 40);
        errors.push_times(&error, 1 << 40);
        assert_eq!(errors.len(), 1 << 41);
    }

    #[test]
    fn what_is_counted_stays_counted() {
        let at = Path::new("a");
        let full: ErrorList = (0..10_000)
            .map(|i| Error::required(&at.index(i), ""))
            .collect();
        let mut errors = ErrorList::from(Error::required(&at, ""));
        errors.extend(full.clone());
        assert_eq!(errors.len(), 10_001);
        errors.push(Error::required(&at, ""));
        errors.extend(full);
        assert_eq!(errors.len(), 20_002);
    }
}
