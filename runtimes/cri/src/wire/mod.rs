//! The messages of CRI v1 as Protocol Buffers.
//!
//! A message is a struct whose fields have the numbers of `api.proto` (k8s.io/cri-api); the table is
//! [`messages`], and what a type is on the wire says its [`Field`]. Only what is asked or read is
//! there: fields that are not known are passed over.

mod messages;
mod verbs;

use std::collections::BTreeMap;

use coracle_runtime::protobuf::{self, Value};

pub(crate) use messages::*;
pub(crate) use verbs::*;

/// What is sent and read whole.
pub(crate) trait Message: Default {
    /// Writes its fields.
    fn write(&self, out: &mut Vec<u8>);

    /// Takes a field; none if it is not of that type.
    fn take(&mut self, number: u32, value: Value<'_>) -> Option<()>;

    /// The message as bytes.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// The message of bytes; none if they are none.
    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut message = Self::default();
        while !bytes.is_empty() {
            let (number, value) = protobuf::field(&mut bytes)?;
            message.take(number, value)?;
        }
        Some(message)
    }
}

/// A type that a field may have. What is the type's default is not sent.
trait Field {
    fn put(&self, number: u32, out: &mut Vec<u8>);
    fn take(&mut self, value: Value<'_>) -> Option<()>;
}

macro_rules! numbers {
    ($($type:ty: |$number:ident| $to:expr, |$value:ident| $from:expr;)*) => {$(
        impl Field for $type {
            fn put(&self, number: u32, out: &mut Vec<u8>) {
                let $number = *self;
                match $to {
                    0 => {}
                    value => protobuf::put_number(out, number, value),
                }
            }

            fn take(&mut self, value: Value<'_>) -> Option<()> {
                let Value::Number($value) = value else { return None };
                *self = $from;
                Some(())
            }
        }
    )*};
}

// Numbers with a sign are written with all bits of 64, and cut to their size when they are read.
numbers! {
    bool: |it| u64::from(it), |it| it != 0;
    u32: |it| u64::from(it), |it| it as u32;
    u64: |it| it, |it| it;
    i32: |it| i64::from(it) as u64, |it| it as i32;
    i64: |it| it as u64, |it| it as i64;
}

fn bytes(value: Value<'_>) -> Option<&[u8]> {
    match value {
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

fn text(value: Value<'_>) -> Option<String> {
    // What is said of a program's output may be cut within a character.
    Some(String::from_utf8_lossy(bytes(value)?).into_owned())
}

impl Field for String {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        if !self.is_empty() {
            protobuf::put_bytes(out, number, self.as_bytes());
        }
    }

    fn take(&mut self, value: Value<'_>) -> Option<()> {
        *self = text(value)?;
        Some(())
    }
}

impl Field for Vec<u8> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        if !self.is_empty() {
            protobuf::put_bytes(out, number, self);
        }
    }

    fn take(&mut self, value: Value<'_>) -> Option<()> {
        *self = bytes(value)?.to_vec();
        Some(())
    }
}

impl Field for Vec<String> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        for item in self {
            protobuf::put_bytes(out, number, item.as_bytes());
        }
    }

    fn take(&mut self, value: Value<'_>) -> Option<()> {
        self.push(text(value)?);
        Some(())
    }
}

impl Field for Vec<i64> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        let mut packed = Vec::new();
        for item in self {
            protobuf::put_varint(&mut packed, *item as u64);
        }
        protobuf::put_bytes(out, number, &packed);
    }

    fn take(&mut self, value: Value<'_>) -> Option<()> {
        match value {
            Value::Number(number) => self.push(number as i64),
            Value::Bytes(mut packed) => {
                while !packed.is_empty() {
                    self.push(protobuf::varint(&mut packed)? as i64);
                }
            }
            Value::Fixed => return None,
        }
        Some(())
    }
}

impl Field for BTreeMap<String, String> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        for (key, value) in self {
            let mut entry = Vec::new();
            key.put(1, &mut entry);
            value.put(2, &mut entry);
            protobuf::put_bytes(out, number, &entry);
        }
    }

    fn take(&mut self, value: Value<'_>) -> Option<()> {
        let entry = KeyValue::decode(bytes(value)?)?;
        self.insert(entry.key, entry.value);
        Some(())
    }
}

impl<M: Message> Field for Option<M> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        if let Some(message) = self {
            protobuf::put_bytes(out, number, &message.encode());
        }
    }

    fn take(&mut self, value: Value<'_>) -> Option<()> {
        *self = Some(M::decode(bytes(value)?)?);
        Some(())
    }
}

impl<M: Message> Field for Vec<M> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        for message in self {
            protobuf::put_bytes(out, number, &message.encode());
        }
    }

    fn take(&mut self, value: Value<'_>) -> Option<()> {
        self.push(M::decode(bytes(value)?)?);
        Some(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A message and its bytes as Go's library for `api.proto` writes them.
    fn check<M: Message + PartialEq + std::fmt::Debug>(message: M, bytes: &[u8]) {
        assert_eq!(message.encode(), bytes);
        assert_eq!(M::decode(bytes).unwrap(), message);
    }

    #[test]
    fn messages_are_those_of_the_interface() {
        check(VersionRequest::default(), b"");
        check(
            RunPodSandboxRequest {
                config: Some(PodSandboxConfig {
                    metadata: Some(PodSandboxMetadata {
                        name: "web".into(),
                        attempt: 300,
                        ..Default::default()
                    }),
                    labels: [("a".into(), "b".into())].into(),
                    ..Default::default()
                }),
                runtime_handler: "kata".into(),
            },
            b"\x0a\x12\x0a\x08\x0a\x03web\x20\xac\x02\x32\x06\x0a\x01a\x12\x01b\x12\x04kata",
        );
        check(
            LinuxContainerSecurityContext {
                run_as_user: Some(Int64Value { value: 0 }),
                supplemental_groups: vec![1, 300],
                no_new_privs: true,
                ..Default::default()
            },
            b"\x2a\x00\x42\x03\x01\xac\x02\x58\x01",
        );
        check(
            ContainerStatus {
                user: Some(ContainerUser {
                    linux: Some(LinuxContainerUser {
                        uid: 33,
                        gid: 44,
                        supplemental_groups: vec![44, 300],
                    }),
                }),
                ..Default::default()
            },
            b"\x92\x01\x0b\x0a\x09\x08\x21\x10\x2c\x1a\x03\x2c\xac\x02",
        );
        check(
            ContainerStatus {
                state: container_state::EXITED,
                exit_code: -1,
                reason: "OOMKilled".into(),
                ..Default::default()
            },
            b"\x18\x02\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x52\x09OOMKilled",
        );
    }

    #[test]
    fn what_is_not_known_is_passed_over_and_what_is_wrong_refused() {
        let newer = b"\x12\x0acontainerd\xa5\x01\0\0\0\0\xa2\x06\x02hi";
        let read = VersionResponse::decode(newer).unwrap();
        assert_eq!(read.runtime_name, "containerd");
        for wrong in [&b"\x10\x01"[..], b"\x12\x0aconta", b"\x12"] {
            assert_eq!(VersionResponse::decode(wrong), None, "{wrong:?}");
        }
        // One number by itself, as an older library writes it.
        let one = LinuxContainerSecurityContext::decode(b"\x40\x07").unwrap();
        assert_eq!(one.supplemental_groups, [7]);
    }
}
