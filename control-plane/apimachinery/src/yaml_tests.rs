#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn kinds(text: &str) -> Vec<(usize, String)> {
    let documents = read("f.yaml", text).unwrap();
    documents
        .into_iter()
        .map(|document| {
            (
                document.line,
                document.object["kind"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

fn listed(pairs: &[(usize, &str)]) -> Vec<(usize, String)> {
    pairs
        .iter()
        .map(|(line, kind)| (*line, (*kind).to_owned()))
        .collect()
}

#[test]
fn documents() {
    let table: &[(&str, &[(usize, &str)])] = &[
        ("", &[]),
        ("---\n# nothing\n---\n", &[]),
        ("apiVersion: v1\nkind: A", &[(1, "A")]),
        (
            "# c\n---\n# d\n\napiVersion: v1\nkind: A\n---\napiVersion: v1\nkind: B\n...\n",
            &[(5, "A"), (8, "B")],
        ),
        (
            "--- {apiVersion: v1, kind: A}\n---\t# b\napiVersion: v1\nkind: B\n",
            &[(1, "A"), (3, "B")],
        ),
        (
            "\u{feff}apiVersion: v1\r\nkind: A\r\n---\r\napiVersion: v1\r\nkind: B\r\n",
            &[(1, "A"), (4, "B")],
        ),
        (
            "{\"apiVersion\":\"v1\",\n\t\"kind\":\"A\"}\n{\"apiVersion\":\"v1\",\"kind\":\"B\"}\n",
            &[(1, "A"), (3, "B")],
        ),
        ("{apiVersion: v1, kind: A}", &[(1, "A")]),
        (
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: A}\n- apiVersion: v1\n  kind: BList\n  items: [{apiVersion: v1, kind: B}]\n",
            &[(1, "A"), (1, "B")],
        ),
        ("apiVersion: v1\nkind: List\nitems:\n", &[]),
        (
            "apiVersion: x/v1\nkind: AllowList\nspec: {}\n",
            &[(1, "AllowList")],
        ),
    ];
    for (text, want) in table {
        assert_eq!(kinds(text), listed(want), "{text:?}");
    }
}

#[test]
fn values() {
    let value = read_one(
        "f",
        "a: &x {80: 1, true: yes}\nb: {<<: *x, c: 1.5}\nd: '0644'\ne: |\n  text\nvolumes:\n- configMap: {defaultMode: 0644}\nmode: 0644\n",
    )
    .unwrap();
    assert_eq!(
        value,
        json!({
            "a": {"80": 1, "true": "yes"}, "b": {"80": 1, "true": "yes", "c": 1.5}, "d": "0644", "e": "text\n",
            "volumes": [{"configMap": {"defaultMode": 0o644}}], "mode": "0644",
        })
    );
    assert_eq!(read_one("f", "# only\n").unwrap(), Value::Null);
}

#[test]
fn errors_name_file_and_line() {
    let table = [
        ("apiVersion: v1\nkind: A\n---\na: [\n", "f.yaml:4: "),
        ("a: 1\n---\nb: 1", "f.yaml:1: apiVersion is not set"),
        (
            "apiVersion: v1\nkind: A\n---\n\napiVersion: v1\n",
            "f.yaml:5: kind is not set",
        ),
        (
            "apiVersion: v1\nkind: [A]",
            "f.yaml:1: kind is not a string",
        ),
        ("- a\n", "f.yaml:1: expected an object"),
        ("just text", "f.yaml:1: expected an object"),
        (
            "a: 1\nb: 2\na: 3\n",
            "f.yaml:1: duplicate entry with key \"a\"",
        ),
        (
            "apiVersion: v1\nkind: A\nx: !env HOME\n",
            "f.yaml:1: the tag !env is not supported",
        ),
        ("a: .inf\n", "f.yaml:1: .inf is not a number"),
        (
            "{\"apiVersion\": \"v1\",\n \"kind\": ]\n",
            "f.yaml:2: expected value",
        ),
        ("a:\n  b: 1\n c: 2\n", "f.yaml:3: "),
        ("a: *b\n", "f.yaml:1: unknown anchor"),
    ];
    for (text, want) in table {
        let error = read("f.yaml", text).unwrap_err().to_string();
        assert!(error.starts_with(want), "{text:?}: {error}");
        assert!(!error.contains(" at line"), "{error}");
    }
    assert!(
        read_one("f", "a: 1\n---\nb: 1\n")
            .unwrap_err()
            .to_string()
            .contains("more than one")
    );
}

proptest! {
    #[test]
    fn nothing_panics(text in "[-ab:{}\\[\\]\" \n#&*!|.0-9]{0,40}") {
        let _ = read("f", &text);
    }

    #[test]
    fn json_is_read_as_it_is(value in crate::patch::merge::tests::any_json()) {
        let object = json!({"apiVersion": "v1", "kind": "A", "value": value});
        let documents = read("f", &object.to_string()).unwrap();
        prop_assert_eq!(&documents[0].object, &object);
    }
}

#[test]
fn nesting_is_bounded_before_anything_is_parsed() {
    let deep = |depth: usize| format!("a: 1\nb: {}", "[".repeat(depth));
    let error = read_one("deep.yaml", &deep(100_000)).unwrap_err();
    assert_eq!(error.line, 2);
    assert!(error.reason.contains("nested"), "{error}");
    // What is not a collection does not count.
    let escapes = format!("a: |\n  {}\n", "\\e[31m x[1 ".repeat(500));
    assert!(read_one("text.yaml", &escapes).is_ok());
    let siblings = format!("a: [{}[]]", "[], ".repeat(500));
    assert!(read_one("flat.yaml", &siblings).is_ok());
}

#[test]
fn a_block_at_the_end_keeps_its_last_line_end() {
    for (text, want) in [
        ("a: |\n  b\n", "b\n"),
        ("a: |\n  b", "b"),
        ("a: |\n  b\n\n", "b\n"),
        ("a: |+\n  b\n\n", "b\n\n"),
        ("a: |-\n  b\n", "b"),
        ("---\na: >\n  b\n  c\n", "b c\n"),
    ] {
        let value = read_one("a.yaml", text).unwrap();
        assert_eq!(value["a"], want, "{text:?}");
    }
}
