//! The tests of the workspace, as their sources name them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A test that says what it asserts.
pub(crate) struct Test {
    /// Below the root of the workspace.
    pub(crate) file: String,
    /// Lines before it that begin with `Must:`.
    pub(crate) musts: usize,
}

/// Folders whose sources have tests.
const FOLDERS: &[&str] = &["control-plane", "node", "runtimes", "src", "tests"];

/// Every test with lines that begin with `Must:`, by its name. No two have one name.
pub(crate) fn tests(root: &Path) -> BTreeMap<String, Test> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        sources(&root.join(folder), &mut files);
    }
    let mut found: BTreeMap<String, Test> = BTreeMap::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let file = path.strip_prefix(root).unwrap().to_str().unwrap();
        for (name, musts) in tests_of(&text) {
            let test = Test {
                file: file.to_owned(),
                musts,
            };
            if let Some(other) = found.insert(name.clone(), test) {
                panic!("{name} is in {} and in {file}", other.file);
            }
        }
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Names of tests and how many demands the comments before them list, where there are any.
fn tests_of(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let (mut musts, mut is_test) = (0, false);
    for line in text.lines().map(str::trim) {
        if line.starts_with("/// Must: ") {
            musts += 1;
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ") {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            if is_test && musts > 0 {
                found.push((name.to_owned(), musts));
            }
            (musts, is_test) = (0, false);
        } else if !line.starts_with("///") && !line.starts_with("#[") {
            (musts, is_test) = (0, false);
        }
    }
    found
}

#[test]
fn tests_are_found_with_what_they_say_that_they_assert() {
    let text = "/// Must: a\n/// Must: b, which\n/// goes on\n#[tokio::test]\nasync fn one() {}\n\n\
                #[test]\nfn two() {}\n\n/// Must: c\nfn three() {}\n/// Must: d\n#[test]\nfn four()";
    let want = [("one".to_owned(), 2), ("four".to_owned(), 1)];
    assert_eq!(tests_of(text), want);
}
