//! How deep an expression is, told before it is parsed: the parser recurses, and so do those who
//! read what it makes.
//!
//! Counted are brackets, and within each pair of them the operators that nest in each other. It is
//! at least as many as the parser will nest; `&&` and `||` are balanced and begin anew.

/// The deepest expression: the bound of the language's reference implementation.
pub(super) const LIMIT: usize = 250;

/// One pair of brackets, or what is outside all of them.
#[derive(Default)]
struct Level {
    chain: usize,
    choices: usize,
}

impl Level {
    fn depth(&self) -> usize {
        1 + self.chain + self.choices
    }
}

/// What keeps an expression from being parsed, if anything.
pub(super) fn check(source: &str) -> Result<(), String> {
    let (mut outer, mut level): (Vec<Level>, _) = (Vec::new(), Level::default());
    let (mut rest, mut below) = (source, 0);
    while let Some(first) = rest.chars().next() {
        if let Some(opening) = opening_quote(rest) {
            rest = skip_literal(&rest[opening.length..], &opening)?;
            continue;
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            if word == "in" {
                level.chain += 1;
            }
            rest = after;
            continue;
        }
        let mut length = first.len_utf8();
        match first {
            '/' if rest.starts_with("//") => length = rest.find('\n').unwrap_or(rest.len()),
            '&' | '|' | ':' => level.chain = 0,
            ',' => level = Level::default(),
            '?' => {
                level.chain = 0;
                level.choices += 1;
            }
            '.' | '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!' => level.chain += 1,
            '(' | '[' | '{' => {
                level.chain += 1;
                below += level.depth();
                outer.push(std::mem::take(&mut level));
            }
            ')' | ']' | '}' => {
                if let Some(around) = outer.pop() {
                    below -= around.depth();
                    level = around;
                }
            }
            _ => {}
        }
        if below + level.depth() > LIMIT {
            return Err(format!("expression recursion limit exceeded: {LIMIT}"));
        }
        rest = &rest[length..];
    }
    Ok(())
}

/// How a literal text begins.
struct Opening {
    length: usize,
    quote: char,
    triple: bool,
    raw: bool,
}

/// The opening of a literal, with the prefixes that make it raw or bytes.
fn opening_quote(source: &str) -> Option<Opening> {
    let prefix = source
        .find(|c: char| !matches!(c, 'r' | 'R' | 'b' | 'B'))
        .filter(|length| *length <= 2)?;
    let quote = source[prefix..]
        .chars()
        .next()
        .filter(|c| matches!(c, '"' | '\''))?;
    let triple = source[prefix..].starts_with(&quote.to_string().repeat(3));
    Some(Opening {
        length: prefix + if triple { 3 } else { 1 },
        quote,
        triple,
        raw: source[..prefix].contains(['r', 'R']),
    })
}

/// What comes after a literal whose opening has been read.
fn skip_literal<'a>(source: &'a str, opening: &Opening) -> Result<&'a str, String> {
    let closing = if opening.triple { 3 } else { 1 };
    let closing = opening.quote.to_string().repeat(closing);
    let mut characters = source.char_indices();
    while let Some((i, c)) = characters.next() {
        if c == '\\' && !opening.raw {
            // After an escape that is none the parser reads on as if no text had begun.
            if skip_escape(&mut characters).is_none() {
                break;
            }
        } else if matches!(c, '\n' | '\r') && !opening.triple {
            break;
        } else if source[i..].starts_with(&closing) {
            return Ok(&source[i + closing.len()..]);
        }
    }
    Err(format!(
        "ERROR: <input>: Syntax error: token recognition error at: '{closing}'"
    ))
}

/// Skips an escape, its backslash read; `None` for what is none.
fn skip_escape(characters: &mut std::str::CharIndices<'_>) -> Option<()> {
    let (_, kind) = characters.next()?;
    let (digits, radix) = match kind {
        'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`' => (0, 16),
        'x' | 'X' => (2, 16),
        'u' => (4, 16),
        'U' => (8, 16),
        '0'..='3' => (2, 8),
        _ => return None,
    };
    for _ in 0..digits {
        characters.next().filter(|(_, c)| c.is_digit(radix))?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nests_is_counted() {
        let table = [
            ("a".repeat(1000), true),
            ("a.".repeat(249) + "a", true),
            ("a.".repeat(250) + "a", false),
            ("a.b && ".repeat(2000) + "true", true),
            ("f(a.b, c.d) || ".repeat(2000) + "true", true),
            ("(".repeat(125), false),
            ("(".repeat(124), true),
            ("a ? b : ".repeat(300) + "c", false),
            ("a in ".repeat(300) + "b", false),
            ("!".repeat(300) + "a", false),
            (format!("'{}'", "(".repeat(500)), true),
            (format!("r'\\' + {}", "(".repeat(500)), false),
            (
                format!("'''\n{}''' // {}", "'(".repeat(500), "(".repeat(500)),
                true,
            ),
            (format!("'\\'{}'", "(".repeat(500)), true),
            ("'a".to_owned(), false),
            ("'\\n\\x41\\u00e9\\U0001f600\\101'".to_owned(), true),
            (format!("'\\q{}'", "a.".repeat(300)), false),
            ("'\\x4'".to_owned(), false),
            ("'\\".to_owned(), false),
            ("'a\n'".to_owned(), false),
            (")".repeat(5) + &"(".repeat(500), false),
        ];
        for (source, want) in table {
            assert_eq!(check(&source).is_ok(), want, "{source}");
        }
    }
}
