//! Finding one's way in JSON without decoding it.

/// The closing quote of the string that opens at `at`; none where it does not end.
pub fn end_of_string(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += 1;
        at += memchr::memchr2(b'"', b'\\', json.get(at..)?)?;
        if json.get(at) == Some(&b'"') {
            return Some(at);
        }
        // What is escaped is passed with its backslash.
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_end_at_the_quote_that_is_not_escaped() {
        for (json, end) in [
            (r#""""#, Some(1)),
            (r#""a""#, Some(2)),
            (r#""\"""#, Some(3)),
            (r#""\\"a"#, Some(3)),
            (r#""\\\"""#, Some(5)),
            ("\"", None),
            (r#""\"#, None),
            (r#""\""#, None),
            ("", None),
        ] {
            assert_eq!(end_of_string(json.as_bytes(), 0), end, "{json}");
        }
    }
}
