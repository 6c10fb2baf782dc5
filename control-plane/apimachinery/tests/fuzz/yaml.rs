//! YAML: JSON is a part of it, and what is read can be written and read again.

use coracle_apimachinery::yaml;

use crate::draw::{Draw, text_of};
use crate::fuzz;

const WORDS: &[&str] = &[
    "a",
    "b: ",
    "- ",
    "\n",
    "\n",
    "\n  ",
    "  ",
    ": ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "'",
    "\"",
    "|\n",
    ">-\n",
    "&x ",
    "*x",
    "<<: ",
    "!!str ",
    "# c\n",
    "---\n",
    "...\n",
    "0644",
    "0x1f",
    "1e3",
    ".inf",
    "~",
    "null",
    "yes",
    "true",
    "2026-01-01",
    "\\u0041",
    "\t",
    "%YAML 1.1\n",
    "defaultMode: ",
    "volumes:\n",
    "ü",
];

fn text(bytes: &[u8]) {
    let text = text_of(bytes, WORDS);
    let Ok(value) = yaml::read_one("fuzz", &text) else {
        return;
    };
    // A member of that name cannot be told from a merge in what is written, and no object of
    // Kubernetes may have one.
    if value.to_string().contains("\"<<\":") {
        return;
    }
    let written = serde_yaml::to_string(&value).unwrap();
    let again = yaml::read_one("fuzz", &written)
        .unwrap_or_else(|error| panic!("{text:?} was written {written:?}: {error}"));
    assert_eq!(again, value, "{text:?} was written {written:?}");
}

fn json(bytes: &[u8]) {
    let value = Draw::new(bytes).members(4);
    for text in [
        value.to_string(),
        format!("{value:#}"),
        serde_yaml::to_string(&value).unwrap(),
    ] {
        let read = yaml::read_one("fuzz", &text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(read, value, "{text}");
    }
}

#[test]
fn yaml_of_any_text() {
    fuzz!(text);
}

#[test]
fn yaml_of_json() {
    fuzz!(json);
}
