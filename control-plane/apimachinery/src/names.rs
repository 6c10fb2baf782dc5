//! What strings may stand where: names, labels, keys, ports; and names made by the server.
//!
//! Each check returns the faults as messages, none where the value is good, so that a caller
//! can hang every one of them on a field. The rules are RFC 1035, RFC 1123 and the Kubernetes
//! API conventions; the wording is what people search the web for.

use rand::Rng;

/// Longest DNS label, and longest name part of a qualified name.
pub const LABEL_MAX: usize = 63;
/// Longest DNS subdomain, which is the longest name of most objects.
pub const SUBDOMAIN_MAX: usize = 253;

const LABEL_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FORMAT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// An RFC 1123 label: the names of Namespaces, containers, volumes.
#[must_use]
pub fn dns_label(value: &str) -> Vec<String> {
    let mut faults = too_long(value, LABEL_MAX);
    if !is_label(value) && value.split('.').all(is_label) {
        faults.push("must not contain dots".to_owned());
    } else if !is_label(value) {
        faults.push(pattern(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
            LABEL_FORMAT,
            &["my-name", "123-abc"],
        ));
    }
    faults
}

/// An RFC 1123 subdomain: the names of most objects.
#[must_use]
pub fn dns_subdomain(value: &str) -> Vec<String> {
    let mut faults = too_long(value, SUBDOMAIN_MAX);
    faults.extend(no_subdomain(value));
    faults
}

fn no_subdomain(value: &str) -> Option<String> {
    (!value.split('.').all(is_label)).then(|| {
        pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN_FORMAT,
            &["example.com"],
        )
    })
}

/// A subdomain in which labels may begin with an underscore and have some, as names of SRV records
/// do: the search list of a resolver.
#[must_use]
pub fn dns_subdomain_with_underscore(value: &str) -> Vec<String> {
    let is_label =
        |label: &str| is_label(&label.strip_prefix('_').unwrap_or(label).replace('_', "-"));
    let mut faults = too_long(value, SUBDOMAIN_MAX);
    if !value.split('.').all(is_label) {
        faults.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    faults
}

/// An RFC 1035 label, which starts with a letter.
#[must_use]
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut faults = too_long(value, LABEL_MAX);
    if !is_label(value) || !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        faults.push(pattern(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    faults
}

/// A name with an optional DNS prefix, `example.com/name`: the keys of labels, annotations,
/// taints and extended resources.
#[must_use]
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name = match value.split_once('/') {
        None => value,
        Some((_, name)) if name.contains('/') => {
            faults.push(format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                pattern(QUALIFIED_MESSAGE, QUALIFIED_FORMAT, &["MyName", "my.name", "123-abc"])
            ));
            return faults;
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".to_owned());
            } else {
                let long = too_many_bytes(prefix, SUBDOMAIN_MAX);
                let found = long.into_iter().chain(no_subdomain(prefix));
                faults.extend(found.map(|fault| format!("prefix part {fault}")));
            }
            name
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    }
    faults.extend(too_many_bytes(name, LABEL_MAX).map(|fault| format!("name part {fault}")));
    if !is_qualified(name) {
        faults.push(format!(
            "name part {}",
            pattern(
                QUALIFIED_MESSAGE,
                QUALIFIED_FORMAT,
                &["MyName", "my.name", "123-abc"]
            )
        ));
    }
    faults
}

/// The value of a label.
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    let mut faults = Vec::from_iter(too_many_bytes(value, LABEL_MAX));
    if !value.is_empty() && !is_qualified(value) {
        faults.push(pattern(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    faults
}

/// The name of an environment variable: since Kubernetes 1.34 any printable ASCII but `=`.
#[must_use]
pub fn env_var_name(value: &str) -> Vec<String> {
    let printable = |b: u8| (b' '..=b'~').contains(&b) && b != b'=';
    let fault = if value.is_empty() {
        "environment variable name must be non-empty"
    } else if !value.bytes().all(printable) {
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
    } else {
        return Vec::new();
    };
    vec![fault.to_owned()]
}

/// A key of a ConfigMap or a Secret, which becomes the name of a file.
#[must_use]
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut faults = too_long(value, SUBDOMAIN_MAX);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(allowed) {
        faults.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." | ".." => faults.push(format!("must not be '{value}'")),
        _ if value.starts_with("..") => faults.push("must not start with '..'".to_owned()),
        _ => {}
    }
    faults
}

/// The name of a port of a container or a probe: an IANA service name (RFC 6335).
#[must_use]
pub fn port_name(value: &str) -> Vec<String> {
    let mut faults = too_long(value, 15);
    if value.is_empty()
        || !value
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        faults.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        faults.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        faults.push("must not begin or end with a hyphen".to_owned());
    }
    faults
}

/// The number of a port.
#[must_use]
pub fn port_number(value: i32) -> Vec<String> {
    if (1..=65535).contains(&value) {
        return Vec::new();
    }
    vec!["must be between 1 and 65535, inclusive".to_owned()]
}

/// The name of an HTTP header, in a probe.
#[must_use]
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    {
        return Vec::new();
    }
    vec![pattern(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A name that can stand in a URL path: the least that any object's name must be.
#[must_use]
pub fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ['/', '%']
        .into_iter()
        .filter(|&c| value.contains(c))
        .map(|c| format!("may not contain '{c}'"))
        .collect()
}

/// A name for the prefix of a generated name: what is checked of `metadata.generateName`, where
/// a trailing hyphen is usual. `check` is the rule for names of the kind.
#[must_use]
pub fn prefix(value: &str, check: fn(&str) -> Vec<String>) -> Vec<String> {
    match value.strip_suffix('-') {
        // A letter stands in for the random suffix.
        Some(stem) if !stem.is_empty() => check(&format!("{stem}a")),
        _ => check(value),
    }
}

/// The alphabet of generated suffixes: no vowels and no look-alikes, so that no words arise.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Random characters at the end of a generated name.
const SUFFIX_LEN: usize = 5;

/// `length` random characters that are safe in every name.
pub fn random_suffix<R: Rng + ?Sized>(length: usize, rng: &mut R) -> String {
    (0..length)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect()
}

/// A name from `metadata.generateName`: the base, cut so that the name stays a DNS label, and
/// five random characters.
pub fn generate_name<R: Rng + ?Sized>(base: &str, rng: &mut R) -> String {
    let mut end = base.len().min(LABEL_MAX - SUFFIX_LEN);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], random_suffix(SUFFIX_LEN, rng))
}

fn is_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

fn is_qualified(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn too_long(value: &str, max: usize) -> Vec<String> {
    if value.len() <= max {
        return Vec::new();
    }
    vec![format!("must be no more than {max} characters")]
}

/// The same of keys and values of labels, where Kubernetes names another unit.
fn too_many_bytes(value: &str, max: usize) -> Option<String> {
    (value.len() > max).then(|| format!("must be no more than {max} bytes"))
}

fn pattern(message: &str, format: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{format}')");
    }
    let examples: Vec<String> = examples
        .iter()
        .map(|example| format!("'{example}', "))
        .collect();
    format!(
        "{message} (e.g. {}regex used for validation is '{format}')",
        examples.join(" or ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]) {
        for value in good {
            assert_eq!(rule(value), Vec::<String>::new(), "{value:?} is good");
        }
        for value in bad {
            assert!(!rule(value).is_empty(), "{value:?} is bad");
        }
    }

    #[test]
    fn rules() {
        let (long, longest) = ("a".repeat(64), "a".repeat(63));
        check(
            dns_label,
            &["a", "0", "a-b", "a--b", &longest],
            &["", "-a", "a-", "A", "a.b", "a_b", "ü", &long],
        );
        check(
            dns_subdomain,
            &["a", "a.b", "0.1", "a-b.c"],
            &["", ".", "a.", ".a", "a..b", "a.-b", "A.b"],
        );
        check(
            dns_subdomain_with_underscore,
            &["a", "_tcp.a", "b_c.d"],
            &["", "__a", "a_", "_", "a..b", "A"],
        );
        check(
            dns1035_label,
            &["a", "a1", "a-1"],
            &["", "1a", "-a", "a-", "a.b"],
        );
        check(
            qualified_name,
            &["a", "A.b_c-d", "example.com/A", "0/0"],
            &[
                "", "/a", "a/", "a/b/c", "-a", "a-", "Ex.com/a", "a b", &long,
            ],
        );
        check(
            label_value,
            &["", "a", "A_b.c-d", "1"],
            &["-a", "a-", "a b", "a/b", &long],
        );
        check(
            env_var_name,
            &["A", "a.b-c d", "1"],
            &["", "A=B", "ü", "a\nb"],
        );
        check(
            config_map_key,
            &["a", ".a", "a..b", "_"],
            &["", ".", "..", "..a", "a/b", "a b"],
        );
        check(
            port_name,
            &["http", "p0", "a-b"],
            &["", "80", "-a", "a-", "a--b", "A", "abcdefghijklmnop"],
        );
        check(http_header_name, &["X-A"], &["", "a b", "a:b"]);
        check(path_segment, &["a", "a:b", ""], &[".", "..", "a/b", "a%b"]);
        check(|v| prefix(v, dns_label), &["a-", "a"], &["-", "A-", ""]);
    }

    #[test]
    fn wording() {
        assert_eq!(
            dns_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(
            port_name("abcdefghijklmnop"),
            ["must be no more than 15 characters"]
        );
        let long = "a".repeat(64);
        assert_eq!(dns_label(&long), ["must be no more than 63 characters"]);
        assert_eq!(label_value(&long), ["must be no more than 63 bytes"]);
        assert_eq!(
            env_var_name("A=B"),
            [
                "a valid environment variable name must consist only of printable ASCII characters other than '='"
            ]
        );
    }

    #[test]
    fn generated_names() {
        let mut rng = rand::rng();
        let name = generate_name("web-", &mut rng);
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert!(dns_label(&name).is_empty());
        assert_eq!(generate_name(&"a".repeat(80), &mut rng).len(), LABEL_MAX);
        assert_eq!(
            generate_name(&"ü".repeat(80), &mut rng).chars().count(),
            29 + SUFFIX_LEN
        );
    }
}
