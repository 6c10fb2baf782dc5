//! Files of environment variables, of which a container may have one (`fileKeyRef`, KEP-3721).
//!
//! The format is the part of a shell's that has one meaning: `NAME='value'`, where the value may go over
//! lines and stands for itself.

/// The value of a variable in a file; none if the file has none or an empty one.
pub(crate) fn value(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let line = line.trim_start_matches(BLANK);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let broken =
            |what: &str| format!("invalid environment variable format at line {number}: {what}");
        let (name, rest) = line.split_once('=').ok_or_else(|| broken("missing '='"))?;
        if name.trim_end_matches(BLANK).is_empty() {
            return Err(broken("empty variable name"));
        }
        if name.ends_with(BLANK) {
            return Err(broken("whitespace before '=' is not allowed"));
        }
        if rest.starts_with(BLANK) {
            // To a shell the value ends there.
            match name == key {
                true => return Ok(None),
                false => continue,
            }
        }
        let quoted = rest.strip_prefix('\'');
        let mut rest = quoted.ok_or_else(|| broken("value must be enclosed in single quotes"))?;
        let mut value = String::new();
        let after = loop {
            if let Some((last, after)) = rest.split_once('\'') {
                value.push_str(last);
                break after;
            }
            value.push_str(rest);
            value.push('\n');
            let next = lines.next();
            (rest, _) = next.ok_or_else(|| broken("unclosed single quote"))?;
        };
        let after = after.trim_start_matches(BLANK);
        if !after.is_empty() && !after.starts_with('#') {
            return Err(broken("unexpected content after closing quote"));
        }
        if name == key {
            return Ok(Some(value).filter(|value| !value.is_empty()));
        }
    }
    Ok(None)
}

const BLANK: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_for_themselves() {
        let text = "# made by init\n\n  A='1 $x'\t# one\nB='two\nlines'\nNONE=''\nE= 'x'\nC='3'\n";
        for (key, expected) in [
            ("A", Some("1 $x")),
            ("B", Some("two\nlines")),
            ("C", Some("3")),
            ("NONE", None),
            ("E", None),
            ("D", None),
        ] {
            assert_eq!(value(text, key), Ok(expected.map(str::to_owned)), "{key}");
        }
    }

    #[test]
    fn what_a_shell_might_read_otherwise_is_refused() {
        for (text, named) in [
            ("A", "line 1: missing '='"),
            ("\n='x'", "line 2: empty variable name"),
            ("A ='x'", "whitespace before '='"),
            ("A=x", "enclosed in single quotes"),
            ("A='x'y", "after closing quote"),
            ("A='x\ny", "line 1: unclosed single quote"),
        ] {
            let error = value(text, "A").err().unwrap_or_default();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
