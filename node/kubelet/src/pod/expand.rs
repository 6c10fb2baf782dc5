//! `$(VAR)` references in commands, arguments and values.
//!
//! The syntax is that of the Pod API reference: `$(NAME)` is replaced by the value if the name
//! is known and left as it stands if not; `$$` is a `$` that begins no reference.

/// Expands the references in `input`; `lookup` knows the names.
pub(crate) fn expand<'a>(input: &str, mut lookup: impl FnMut(&str) -> Option<&'a str>) -> String {
    let mut output = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        output.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            output.push('$');
            rest = tail;
            continue;
        }
        let reference = after.strip_prefix('(').and_then(|s| s.split_once(')'));
        match reference {
            Some((name, tail)) => {
                match lookup(name) {
                    Some(value) => output.push_str(value),
                    None => output.extend(["$(", name, ")"]),
                }
                rest = tail;
            }
            None => {
                output.push('$');
                rest = after;
            }
        }
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_the_api_says() {
        let lookup = |name: &str| match name {
            "A" => Some("one"),
            "B_2" => Some("$(A)"),
            "EMPTY" => Some(""),
            _ => None,
        };
        let table = [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "one"),
            ("x$(A)y$(A)", "xoneyone"),
            ("$(B_2)", "$(A)"),
            ("$(EMPTY)!", "!"),
            ("$(NONE)", "$(NONE)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$one"),
            ("$$$$(A)", "$$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$(unfinished $(A)", "$(unfinished $(A)"),
            ("ü$(A)ü", "üoneü"),
        ];
        for (input, expected) in table {
            assert_eq!(expand(input, lookup), expected, "{input}");
        }
    }
}
