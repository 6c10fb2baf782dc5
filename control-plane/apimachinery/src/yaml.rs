//! Manifests: YAML of several documents, or JSON, as files and request bodies hold them.
//!
//! What comes out is untyped JSON; whether it is a good object is for others to say. Numbers and
//! booleans as keys become strings, and modes of files may be octal, as in `kubectl`.

use serde_json::{Map, Value};
use serde_yaml::Value as Yaml;

/// Brackets are nested at most so deep: the scanner's work grows with the depth at every token, and
/// what is deeper could not be decoded anyway.
const MAX_DEPTH: usize = 128;

/// One object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The line on which its document starts, from 1. The items of a `List` share it.
    pub line: usize,
    /// The object: it has an `apiVersion` and a `kind`.
    pub object: Value,
}

/// Why a manifest cannot be read. Displayed as `app.yaml:7: reason`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}:{line}: {reason}")]
pub struct Error {
    /// The file, or whatever the caller named it.
    pub source_name: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, where it is known.
    pub column: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

/// Reads every object of a manifest. Empty documents are skipped, and kinds that end in `List`
/// are replaced by their items.
pub fn read(source_name: &str, text: &str) -> Result<Vec<Document>, Error> {
    let mut documents = Vec::new();
    for (line, value) in read_documents(source_name, text)? {
        flatten(value, &mut |object| {
            documents.push(Document {
                line,
                object: checked(object)?,
            });
            Ok(())
        })
        .map_err(|reason: String| Error {
            source_name: source_name.to_owned(),
            line,
            column: None,
            reason,
        })?;
    }
    Ok(documents)
}

/// Reads a single document, such as the body of a request, whatever it is.
pub fn read_one(source_name: &str, text: &str) -> Result<Value, Error> {
    let mut documents = read_documents(source_name, text)?;
    match (documents.pop(), documents.pop()) {
        (None, _) => Ok(Value::Null),
        (Some((_, value)), None) => Ok(value),
        (Some((line, _)), Some(_)) => Err(Error {
            source_name: source_name.to_owned(),
            line,
            column: None,
            reason: "there is more than one document".to_owned(),
        }),
    }
}

/// Every document that is not empty, with its first line.
fn read_documents(source_name: &str, text: &str) -> Result<Vec<(usize, Value)>, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let fault = |(line, column): Position, reason: String| Error {
        source_name: source_name.to_owned(),
        line,
        column,
        reason,
    };
    let json_error = match text.trim_start().strip_prefix('{') {
        None => None,
        Some(members) => match read_json(text) {
            Ok(documents) => return Ok(documents),
            // It may be YAML in the flow style. If it is not that either, and looks like JSON,
            // then the fault in the JSON is the one to show.
            Err(error) => members.trim_start().starts_with('"').then_some(error),
        },
    };
    let mut documents = Vec::new();
    for (first_line, chunk) in chunks(text) {
        let value = parse(&chunk).map_err(|((line, column), reason)| match &json_error {
            Some(error) => fault(
                (error.line(), Some(error.column())),
                without_position(error),
            ),
            None => fault((first_line + line - 1, column), reason),
        })?;
        if !value.is_null() {
            // Blank lines and comments before an object are not where people look for it.
            let blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
            documents.push((first_line + chunk.lines().take_while(blank).count(), value));
        }
    }
    Ok(documents)
}

/// JSON documents one after the other.
fn read_json(text: &str) -> Result<Vec<(usize, Value)>, serde_json::Error> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let (mut documents, mut start) = (Vec::new(), 0);
    while let Some(value) = stream.next() {
        let rest = &text[start..];
        let first = start + rest.len() - rest.trim_start().len();
        documents.push((text[..first].matches('\n').count() + 1, value?));
        start = stream.byte_offset();
    }
    Ok(documents)
}

/// The documents of a YAML stream, with the lines on which they start. `---` in the first column
/// is a marker wherever it stands (YAML 1.2, 9.1.2), in block scalars too.
fn chunks(text: &str) -> Vec<(usize, String)> {
    let mut chunks = vec![(1, String::new())];
    for (index, line) in text.lines().enumerate() {
        let marker = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        let line = match marker {
            Some(rest) => {
                chunks.push((index + 1, String::new()));
                // Content may follow the marker; tabs before it would be refused as indentation.
                format!("    {}", rest.trim_start())
            }
            None => line.to_owned(),
        };
        if let Some((_, chunk)) = chunks.last_mut() {
            chunk.push_str(&line);
            chunk.push('\n');
        }
    }
    // The last line ends only where it does so in the text: a block scalar keeps the difference.
    if !text.ends_with('\n')
        && let Some((_, chunk)) = chunks.last_mut()
    {
        chunk.pop();
    }
    chunks
}

/// A line, and a column where it is known, from 1.
type Position = (usize, Option<usize>);

fn parse(text: &str) -> Result<Value, (Position, String)> {
    let fault = |error: serde_yaml::Error| {
        // What is missing at the end is missed on the last line.
        let lines = text.lines().count().max(1);
        let location = error.location();
        let line = location.as_ref().map_or(1, |at| at.line().clamp(1, lines));
        let column = location
            .filter(|at| at.line() <= lines)
            .map(|at| at.column().max(1));
        ((line, column), without_position(&error))
    };
    let only_comments = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(only_comments) {
        return Ok(Value::Null);
    }
    if let Some(line) = too_deep(text) {
        let reason = format!("brackets are nested more than {MAX_DEPTH} deep");
        return Err(((line, None), reason));
    }
    let mut yaml: Yaml = serde_yaml::from_str(text).map_err(fault)?;
    yaml.apply_merge().map_err(fault)?;
    let mut value = to_json(yaml).map_err(|reason| ((1, None), reason))?;
    octal_modes(&mut value, false);
    Ok(value)
}

/// The line on which `[` and `{` are nested too deep, counting those that can begin a collection:
/// not the ones in the middle of a word, as text in a block scalar has them.
fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut line) = (0_usize, 1);
    let mut before = b' ';
    for &byte in text.as_bytes() {
        match byte {
            b'[' | b'{' if before.is_ascii_whitespace() || b"[{,:-?\"'!&".contains(&before) => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Some(line);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'\n' => line += 1,
            _ => {}
        }
        before = byte;
    }
    None
}

/// The message of a parser; its position is told apart, and in lines of the file.
fn without_position(error: &dyn std::error::Error) -> String {
    error
        .to_string()
        .split(" at line ")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn to_json(yaml: Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::String(value) => Value::String(value),
        Yaml::Number(value) => number(&value)?,
        Yaml::Sequence(items) => {
            Value::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                let key = match key {
                    Yaml::String(key) => key,
                    Yaml::Bool(key) => key.to_string(),
                    Yaml::Number(key) => key.to_string(),
                    Yaml::Null => "null".to_owned(),
                    _ => return Err("a key is not a string".to_owned()),
                };
                if map.contains_key(&key) {
                    return Err(format!("duplicate entry with key {key:?}"));
                }
                map.insert(key, to_json(value)?);
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => return Err(format!("the tag {} is not supported", tagged.tag)),
    })
}

fn number(number: &serde_yaml::Number) -> Result<Value, String> {
    if let Some(value) = number.as_i64() {
        return Ok(value.into());
    }
    if let Some(value) = number.as_u64() {
        return Ok(value.into());
    }
    let value = number.as_f64().and_then(serde_json::Number::from_f64);
    value
        .map(Value::Number)
        .ok_or_else(|| format!("{number} is not a number that JSON has"))
}

/// In YAML 1.1, which manifests are written in, `0644` is a number in octal; in YAML 1.2 it is a
/// string. The modes of volumes are the one place where people rely on it, and where a string
/// would never be right.
fn octal_modes(value: &mut Value, in_volumes: bool) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let octal = match value.as_str() {
                    Some(text) if in_volumes && (key == "defaultMode" || key == "mode") => text
                        .strip_prefix('0')
                        .and_then(|digits| i64::from_str_radix(digits, 8).ok()),
                    _ => None,
                };
                match octal {
                    Some(mode) => *value = mode.into(),
                    None => octal_modes(value, in_volumes || key == "volumes"),
                }
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| octal_modes(item, in_volumes)),
        _ => {}
    }
}

/// Hands on the object, or the items of a list of objects.
fn flatten(value: Value, push: &mut dyn FnMut(Value) -> Result<(), String>) -> Result<(), String> {
    let is_list = value["kind"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("List"));
    match value {
        Value::Object(mut map)
            if is_list
                && map
                    .get("items")
                    .is_some_and(|items| items.is_array() || items.is_null()) =>
        {
            match map.remove("items") {
                Some(Value::Array(items)) => {
                    items.into_iter().try_for_each(|item| flatten(item, push))
                }
                _ => Ok(()),
            }
        }
        value => push(value),
    }
}

fn checked(object: Value) -> Result<Value, String> {
    if !object.is_object() {
        return Err("expected an object with apiVersion and kind".to_owned());
    }
    for field in ["apiVersion", "kind"] {
        match &object[field] {
            Value::String(text) if !text.is_empty() => {}
            Value::Null | Value::String(_) => return Err(format!("{field} is not set")),
            _ => return Err(format!("{field} is not a string")),
        }
    }
    Ok(object)
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
