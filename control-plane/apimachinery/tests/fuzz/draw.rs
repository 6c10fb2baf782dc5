//! Choices made by the bytes of an input. When they run out every choice is the first: whoever
//! draws puts there what ends.

use serde_json::{Map, Value, json};

pub(crate) struct Draw<'a> {
    bytes: &'a [u8],
}

impl<'a> Draw<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else {
            return 0;
        };
        self.bytes = rest;
        *first
    }

    /// A number below another, which is at most 65,536.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let high = if end > 256 { self.byte() } else { 0 };
        usize::from(u16::from_be_bytes([high, self.byte()])) % end
    }

    /// Whether something happens, of so many times once.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    pub(crate) fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.below(of.len())]
    }

    /// Words behind one another, and now and then any character.
    pub(crate) fn text(&mut self, words: &[&str]) -> String {
        let mut text = String::new();
        for _ in 0..self.below(12) {
            if self.once_in(24) {
                let code = u32::from_be_bytes([0, self.byte() % 0x11, self.byte(), self.byte()]);
                text.extend(char::from_u32(code));
            } else {
                text.push_str(self.pick::<&str>(words));
            }
        }
        text
    }

    /// JSON of every shape, over few keys.
    pub(crate) fn json(&mut self, depth: usize) -> Value {
        match self.below(if depth > 0 { 8 } else { 5 }) {
            0 => Value::Null,
            1 => self.once_in(2).into(),
            2 => json!(self.pick(&[0, 1, -1, 7, i64::MAX, i64::MIN])),
            3 => json!(self.pick(&[0.0, -1.5, 1e300, 1e-300])),
            4 => json!(self.pick(&["", "a", "b", "ü\u{0}\"\\", "~/", "-"])),
            5 => (0..self.below(4)).map(|_| self.json(depth - 1)).collect(),
            _ => self.members(depth - 1),
        }
    }

    /// An object of JSON.
    pub(crate) fn members(&mut self, depth: usize) -> Value {
        let count = self.below(5);
        let members = (0..count).map(|_| {
            let key = *self.pick(&["a", "b", "c", "", "~", "/", "0", "$patch"]);
            (key.to_owned(), self.json(depth))
        });
        Value::Object(members.collect::<Map<_, _>>())
    }

    /// Other bytes than these, in a few places.
    pub(crate) fn damaged(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                break;
            }
            let at = self.below(65_536) % bytes.len();
            match self.below(5) {
                0 => bytes[at] = self.byte(),
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes.truncate(at),
                3 => {
                    bytes.remove(at);
                }
                _ => {
                    let tail = bytes.split_off(at);
                    bytes.push(self.byte());
                    bytes.extend(tail);
                }
            }
        }
        bytes
    }
}

/// The text that an input is, or that is drawn of it.
pub(crate) fn text_of(bytes: &[u8], words: &[&str]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => Draw::new(bytes).text(words),
    }
}
