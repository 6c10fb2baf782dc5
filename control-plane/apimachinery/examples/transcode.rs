//! Turns objects from one wire format into another, for checks against other implementations
//! (`tests/clients/go/wire`). It reads cases and writes answers until its input ends.
//!
//! A case is a letter, a length of four bytes and the object. The letter says what to do: `p`
//! makes JSON of protobuf, `P` protobuf of JSON, `c` JSON of CBOR, `C` CBOR of JSON, `y` JSON of
//! YAML. An answer is `+` or `-`, a length of four bytes, and the object or what is wrong with it.
//!
//! So are other texts read and printed: `q` a quantity, `l` a label selector, `f` a field
//! selector, `n` a name, for which the answer is what each rule says of it. `j`, `m` and `s` apply
//! a JSON patch, a merge patch and a strategic one: `{"document": …, "patch": …}`. `a` writes
//! an object to one with managed fields: `{"live": …, "object": …, "manager": …, "apply": …, "force": …}`.

use std::io::{self, Read, Write};

use coracle_apimachinery::apply::Set;
use coracle_apimachinery::gvk::{GroupVersion, GroupVersionKind};
use coracle_apimachinery::managed::{self, Managers, Versions, Write as ManagedWrite};
use coracle_apimachinery::patch::{json, merge, strategic};
use coracle_apimachinery::quantity::Quantity;
use coracle_apimachinery::schema::{Node, Schema};
use coracle_apimachinery::selector::{FieldSelector, Selector};
use coracle_apimachinery::{cbor, names, protobuf, yaml};
use serde_json::Value;

const LIMIT: usize = 1 << 26;

fn main() -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    loop {
        let mut head = [0; 5];
        match input.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let [what, length @ ..] = head;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        input.read_exact(&mut body)?;
        let done = transcode(what, &body);
        let (sign, answer) = match &done {
            Ok(bytes) => (b'+', bytes.as_slice()),
            Err(error) => (b'-', error.as_bytes()),
        };
        let length = u32::try_from(answer.len()).map_err(io::Error::other)?;
        output.write_all(&[sign])?;
        output.write_all(&length.to_be_bytes())?;
        output.write_all(answer)?;
        output.flush()?;
    }
}

fn transcode(what: u8, body: &[u8]) -> Result<Vec<u8>, String> {
    match what {
        b'p' => shown(protobuf::to_json(body, LIMIT)),
        b'P' => shown(protobuf::Kind::of(body).and_then(|kind| kind.encode(body))),
        b'c' => shown(cbor::to_json(body, LIMIT)),
        b'C' => shown(cbor::from_json(body)),
        b'a' => write(body).map(|written| written.to_string().into_bytes()),
        b'j' | b'm' | b's' => patch(what, body).map(|patched| patched.to_string().into_bytes()),
        _ => read(
            what,
            std::str::from_utf8(body).map_err(|error| error.to_string())?,
        ),
    }
}

fn shown<T, E: ToString>(done: Result<T, E>) -> Result<T, String> {
    done.map_err(|error| error.to_string())
}

fn read(what: u8, text: &str) -> Result<Vec<u8>, String> {
    let printed = match what {
        b'q' => shown(text.parse::<Quantity>())?.to_string(),
        b'l' => shown(Selector::parse(text))?.to_string(),
        b'f' => shown(FieldSelector::parse(text))?.to_string(),
        b'y' => shown(yaml::read_one("body", text))?.to_string(),
        b'n' => {
            let rules: [fn(&str) -> Vec<String>; 6] = [
                names::dns_label,
                names::dns1035_label,
                names::dns_subdomain,
                names::qualified_name,
                names::label_value,
                names::config_map_key,
            ];
            rules.map(|rule| rule(text).join("; ")).join("\n")
        }
        _ => return Err("the letter is none that is known".to_owned()),
    };
    Ok(printed.into_bytes())
}

/// Only one version is served.
struct One;

impl Versions for One {
    fn structure(&self, _: &str) -> Option<Node<'_>> {
        None
    }

    fn convert(&self, _: &Value, _: &str, _: &str) -> Option<Value> {
        None
    }
}

/// The type of an object.
fn type_of(object: &Value) -> Result<(String, Node<'static>), String> {
    let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
    let version = GroupVersion::parse(&text("apiVersion")).ok_or("no apiVersion")?;
    let kind = GroupVersionKind::new(version.group, version.version, text("kind"));
    let schema = Schema::built_in().kind(&kind).ok_or("no such kind")?;
    Ok((text("apiVersion"), schema))
}

/// Applies an object, or updates another to it.
fn write(body: &[u8]) -> Result<Value, String> {
    let mut case: Value = shown(serde_json::from_slice(body))?;
    let (mut live, object) = (case["live"].take(), case["object"].take());
    let entries = live["metadata"]
        .as_object_mut()
        .and_then(|metadata| metadata.remove("managedFields"))
        .unwrap_or_else(|| Value::Array(Vec::new()));
    let entries: Vec<_> = shown(serde_json::from_value(entries))?;
    let mut managers = shown(Managers::read(&entries))?;
    let (api_version, structure) = type_of(&object)?;
    let write = ManagedWrite {
        api_version: &api_version,
        structure,
        versions: &One,
        reset: &Set::default(),
        only: None,
        manager: case["manager"].as_str().unwrap_or_default(),
        subresource: "",
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    let (mut written, managers) = if case["apply"] == true {
        let force = case["force"] == true;
        let applied = shown(managed::apply(live, &object, managers, &write, force))?;
        (applied.object, applied.managers)
    } else {
        shown(managed::update(&mut managers, &live, &object, &write))?;
        (object, managers)
    };
    if let Some(entries) = managers.write() {
        written["metadata"]["managedFields"] = shown(serde_json::to_value(entries))?;
    }
    Ok(written)
}

fn patch(what: u8, body: &[u8]) -> Result<Value, String> {
    let mut case: Value = shown(serde_json::from_slice(body))?;
    let (document, patch) = (case["document"].take(), case["patch"].take());
    match what {
        b'j' => shown(
            json::Patch::parse(patch.to_string().as_bytes())
                .and_then(|patch| patch.apply(document)),
        ),
        b'm' => shown(merge::apply(document, &patch)),
        _ => {
            let (_, schema) = type_of(&document)?;
            shown(strategic::apply(document, patch, schema))
        }
    }
}
