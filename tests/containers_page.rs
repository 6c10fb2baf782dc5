//! The page of containers, held against the sources of the tests that it names.

use std::path::Path;

const PAGE: &str = include_str!("CONTAINERS.md");

/// The tests that a row names, each with its file: `` `a`, `b` in `file.rs`; `c` in `other.rs` ``.
fn named(row: &str) -> Vec<(&str, &str)> {
    let shown_by = row.trim_end_matches([' ', '|']).rsplit(" | ").next();
    let groups = shown_by.unwrap_or_default().split("; ");
    let groups = groups.filter_map(|group| group.split_once(" in `"));
    groups
        .flat_map(|(names, file)| {
            let file = file.split('`').next().unwrap_or_default();
            names
                .split(", ")
                .map(move |name| (name.trim_matches('`'), file))
        })
        .collect()
}

/// Whether a file has a test of that name: by its attribute, or in the list of the `main.rs` beside it
/// where a suite is its own harness.
fn is_test(path: &Path, name: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(path) else {
        return false;
    };
    let Some((before, _)) = text.split_once(&format!("fn {name}(")) else {
        return false;
    };
    let lines_before = before.rsplit('\n').skip(1);
    let mut attributes = lines_before.take_while(|line| line.trim().starts_with(['#', '/']));
    let module = path.file_stem().unwrap().to_str().unwrap();
    let listed = std::fs::read_to_string(path.with_file_name("main.rs"));
    let entry = format!(" {module}::{name},");
    attributes.any(|line| line.contains("test]") || line.contains("test("))
        || listed.is_ok_and(|list| list.contains(&entry))
}

#[test]
fn every_test_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows: Vec<_> = PAGE.lines().filter(|line| line.starts_with("| ")).collect();
    let named: Vec<_> = rows.iter().flat_map(|row| named(row)).collect();
    for row in rows {
        let (files, groups) = (row.matches(".rs`").count(), row.matches(" in `").count());
        assert_eq!(files, groups, "a file without its tests: {row}");
    }
    assert!(named.len() > 100, "{} are named", named.len());
    let missing = named
        .iter()
        .filter(|(name, file)| !is_test(&root.join(file), name));
    let missing: Vec<_> = missing
        .map(|(name, file)| format!("{name} in {file}"))
        .collect();
    assert!(missing.is_empty(), "no tests:\n{}", missing.join("\n"));
}

#[test]
fn rows_are_taken_apart() {
    let row = "| exec | works | `a`, `b` in `x/y.rs`; `c` in `z.rs`; a part alone |";
    let expected = [("a", "x/y.rs"), ("b", "x/y.rs"), ("c", "z.rs")];
    assert_eq!(named(row), expected);
    assert_eq!(named("| cp | works: in `part` | no test of its own |"), []);
}
