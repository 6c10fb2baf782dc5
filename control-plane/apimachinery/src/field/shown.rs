//! Values and details as errors show them: whole as a rule, and cut where nobody would read on.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::sync::Arc;

use serde_json::{Map, Number, Value};

/// Bytes of a value or of a detail: many a template of Pods is shown as a whole.
pub(super) const LONGEST: usize = 32 * 1024;
/// Bytes of a string. Lists of many items may have one, of which each item has an error.
const LONGEST_STRING: usize = 8 * 1024;
/// What stands for the rest of a text that is cut.
pub(super) const CUT: &str = "...";

/// A value as an error shows it: as JSON, which is how Kubernetes shows values of every sort,
/// quoted strings included. Of a long one no more is copied than is shown, and clones share it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown(pub(super) Arc<str>);

impl From<Value> for Shown {
    fn from(value: Value) -> Self {
        Self::cut(&value, LONGEST)
    }
}

impl Shown {
    fn cut(value: &Value, longest: usize) -> Self {
        let mut shown = Cut::new(longest);
        // What fails is what comes after the cut.
        let _ = write!(shown, "{value}");
        Self(shown.text.into())
    }
}

impl From<&str> for Shown {
    fn from(value: &str) -> Self {
        // By so much longer, no character and no quote at the end hides that it is cut.
        let end = value.floor_char_boundary(LONGEST_STRING + 4);
        Self::cut(&Value::from(&value[..end]), LONGEST_STRING)
    }
}

impl From<String> for Shown {
    fn from(value: String) -> Self {
        Self::from(value.as_str())
    }
}

impl From<Cow<'_, str>> for Shown {
    fn from(value: Cow<'_, str>) -> Self {
        Self::from(&*value)
    }
}

/// What else becomes JSON.
macro_rules! shown_from {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Shown {
            fn from(value: $kind) -> Self {
                Self::from(Value::from(value))
            }
        })*
    };
}

shown_from!(
    bool, i8, i16, i32, i64, isize, u8, u16, u32, u64, usize, f32, f64
);
shown_from!(Number, Map<String, Value>);

impl<T: Into<Value>> From<Option<T>> for Shown {
    fn from(value: Option<T>) -> Self {
        Self::from(Value::from(value))
    }
}

impl<T: Into<Value>> From<Vec<T>> for Shown {
    fn from(value: Vec<T>) -> Self {
        Self::from(Value::from(value))
    }
}

impl<T: Clone + Into<Value>> From<&[T]> for Shown {
    fn from(value: &[T]) -> Self {
        Self::from(Value::from(value))
    }
}

/// The text, or as much of it as is shown.
pub(super) fn cut(text: String, longest: usize) -> String {
    if text.len() <= longest {
        return text;
    }
    // The rest is given back: what is kept is to be small.
    let end = text.floor_char_boundary(longest);
    format!("{}{CUT}", &text[..end])
}

/// A text that ends where it would become too long.
pub(super) struct Cut {
    pub(super) text: String,
    longest: usize,
}

impl Cut {
    pub(super) fn new(longest: usize) -> Self {
        Self {
            text: String::new(),
            longest,
        }
    }
}

impl Write for Cut {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = self.longest.saturating_sub(self.text.len());
        if part.len() <= room {
            self.text.push_str(part);
            return Ok(());
        }
        self.text.push_str(&part[..part.floor_char_boundary(room)]);
        self.text.push_str(CUT);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_seen() {
        for length in LONGEST_STRING - 4..LONGEST_STRING + 8 {
            for character in ["a", "\u{e9}", "\u{20ac}", "\u{1f600}"] {
                let text = character.repeat(length / character.len());
                let Shown(shown) = Shown::from(text.as_str());
                let whole = format!("{text:?}");
                if whole.len() <= LONGEST_STRING {
                    assert_eq!(&*shown, whole);
                } else {
                    assert!(shown.ends_with(CUT), "{character} {length}");
                    assert!(whole.starts_with(&shown[..shown.len() - CUT.len()]));
                }
            }
        }
    }
}
