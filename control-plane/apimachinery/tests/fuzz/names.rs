//! Names and labels: the rules, told once more letter by letter.

use coracle_apimachinery::names;

use crate::draw::text_of;
use crate::fuzz;

const WORDS: &[&str] = &[
    "a",
    "b",
    "z",
    "A",
    "0",
    "9",
    "-",
    "-",
    ".",
    "_",
    "/",
    "x.y/",
    "example.com",
    "..",
    "%",
    " ",
    "ü",
    "\n",
    "\u{0}",
    "=",
    "$",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// What is wrong with a name.
type Rule = fn(&str) -> Vec<String>;

/// Whether a text is such letters, and begins and ends with one of fewer.
fn made_of(text: &str, max: usize, ends: impl Fn(char) -> bool, between: &str) -> bool {
    let (Some(first), Some(last)) = (text.chars().next(), text.chars().last()) else {
        return false;
    };
    text.len() <= max
        && ends(first)
        && ends(last)
        && text.chars().all(|c| ends(c) || between.contains(c))
}

fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn any(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|part| made_of(part, 253, lower, "-"))
}

fn target(bytes: &[u8]) {
    let text = text_of(bytes, WORDS);
    let qualified = |name: &str| made_of(name, 63, any, "-_.");
    let table: [(&str, Rule, bool); 7] = [
        (
            "dns_label",
            names::dns_label,
            made_of(&text, 63, lower, "-"),
        ),
        (
            "dns1035_label",
            names::dns1035_label,
            made_of(&text, 63, lower, "-") && text.starts_with(|c: char| c.is_ascii_lowercase()),
        ),
        ("dns_subdomain", names::dns_subdomain, is_subdomain(&text)),
        (
            "label_value",
            names::label_value,
            text.is_empty() || qualified(&text),
        ),
        (
            "qualified_name",
            names::qualified_name,
            match text.split_once('/') {
                Some((prefix, name)) => is_subdomain(prefix) && qualified(name),
                None => qualified(&text),
            },
        ),
        (
            "path_segment",
            names::path_segment,
            text != "." && text != ".." && !text.contains(['/', '%']),
        ),
        (
            "port_name",
            names::port_name,
            made_of(&text, 15, lower, "-")
                && !text.contains("--")
                && text.chars().any(|c| c.is_ascii_lowercase()),
        ),
    ];
    for (rule, check, want) in table {
        let faults = check(&text);
        assert_eq!(faults.is_empty(), want, "{rule} of {text:?}: {faults:?}");
        assert!(
            faults.iter().all(|fault| fault.len() < 1000),
            "{rule} of {text:?}: {faults:?}"
        );
    }
}

#[test]
fn names_and_labels() {
    fuzz!(target);
}
