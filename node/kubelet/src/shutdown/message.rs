//! Messages of D-Bus, as much of them as logind's few calls need; pure.
//!
//! Source of the format: the D-Bus specification, "Message Format". Everything is little-endian, as
//! a bus passes it on from this machine; what is not is refused.

/// Longest message that is taken; logind's are of some hundred bytes.
const MAX: usize = 64 << 10;
/// The part of a header whose length is fixed.
const FIXED: usize = 16;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bus sent a message that is none: {0}")]
pub(super) struct Malformed(&'static str);

/// Whom a call is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    pub(super) destination: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
    pub(super) member: &'static str,
}

/// An argument of a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument<'a> {
    String(&'a str),
    Int(i32),
}

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An answer to the call with that serial.
    Return(u32),
    /// The name of an error, in answer to that call.
    Error(u32, String),
    /// A member of an interface, which somebody tells of.
    Signal {
        interface: String,
        member: String,
    },
    Other,
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) sender: String,
    pub(super) signature: String,
    pub(super) body: Vec<u8>,
    /// Descriptors that came with it.
    pub(super) descriptors: usize,
}

/// Bytes of a message that is being made.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// A field of the header: its code, the signature of what follows, and that.
    fn field(&mut self, code: u8, signature: u8, value: &str) {
        self.align(8);
        self.0.extend([code, 1, signature, 0]);
        match signature {
            b'g' => {
                self.0.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
                self.0.extend(value.as_bytes());
                self.0.push(0);
            }
            _ => self.string(value),
        }
    }
}

/// A call of a method, as it is sent.
pub(super) fn call(serial: u32, method: Method, arguments: &[Argument<'_>]) -> Vec<u8> {
    let mut body = Bytes::default();
    let mut signature = String::new();
    for argument in arguments {
        match argument {
            Argument::String(text) => {
                signature.push('s');
                body.string(text);
            }
            Argument::Int(number) => {
                signature.push('i');
                body.align(4);
                body.0.extend(number.to_le_bytes());
            }
        }
    }
    let mut message = Bytes(vec![b'l', METHOD_CALL, 0, 1]);
    message.u32(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
    message.u32(serial);
    // The length of the fields, which is known when they are there.
    message.u32(0);
    message.field(1, b'o', method.path);
    message.field(2, b's', method.interface);
    message.field(3, b's', method.member);
    message.field(6, b's', method.destination);
    if !signature.is_empty() {
        message.field(8, b'g', &signature);
    }
    let fields = u32::try_from(message.0.len() - FIXED).unwrap_or(u32::MAX);
    message.0[12..FIXED].copy_from_slice(&fields.to_le_bytes());
    message.align(8);
    message.0.extend(body.0);
    message.0
}

/// Reads values, each at its own alignment.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed("too long"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed("cut off"))?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.align(4);
        let bytes = self.take(4)?.try_into();
        Ok(u32::from_le_bytes(bytes.map_err(|_| Malformed("cut off"))?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.align(8);
        let bytes = self.take(8)?.try_into();
        Ok(u64::from_le_bytes(bytes.map_err(|_| Malformed("cut off"))?))
    }

    pub(super) fn string(&mut self) -> Result<String, Malformed> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    pub(super) fn signature(&mut self) -> Result<String, Malformed> {
        let length = usize::from(self.byte()?);
        self.text(length)
    }

    fn text(&mut self, length: usize) -> Result<String, Malformed> {
        let text = self.take(length)?;
        if self.byte()? != 0 {
            return Err(Malformed("a string without an end"));
        }
        let text = std::str::from_utf8(text).map_err(|_| Malformed("no UTF-8"))?;
        Ok(text.to_owned())
    }
}

/// The first message of what has come, and its length; none while it is not whole.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Message, usize)>, Malformed> {
    let Some(fixed) = bytes.get(..FIXED) else {
        return Ok(None);
    };
    if fixed[0] != b'l' || fixed[3] != 1 {
        return Err(Malformed("of another byte order or version"));
    }
    let mut reader = Reader::new(fixed);
    reader.at = 4;
    let body = reader.u32()? as usize;
    let _serial = reader.u32()?;
    let fields = reader.u32()? as usize;
    if body > MAX || fields > MAX {
        return Err(Malformed("too long"));
    }
    let from = (FIXED + fields).next_multiple_of(8);
    let (Some(header), Some(body)) = (bytes.get(..FIXED + fields), bytes.get(from..from + body))
    else {
        return Ok(None);
    };
    let length = from + body.len();
    Ok(Some((message(fixed[1], header, body)?, length)))
}

fn message(kind: u8, header: &[u8], body: &[u8]) -> Result<Message, Malformed> {
    let (mut interface, mut member, mut error) = (String::new(), String::new(), String::new());
    let (mut sender, mut signature) = (String::new(), String::new());
    let (mut answers, mut descriptors) = (0, 0);
    let mut reader = Reader::new(header);
    reader.at = FIXED;
    loop {
        reader.align(8);
        if reader.at >= header.len() {
            break;
        }
        let code = reader.byte()?;
        let of = reader.signature()?;
        match (code, &*of) {
            (2, "s") => interface = reader.string()?,
            (3, "s") => member = reader.string()?,
            (4, "s") => error = reader.string()?,
            (5, "u") => answers = reader.u32()?,
            (7, "s") => sender = reader.string()?,
            (8, "g") => signature = reader.signature()?,
            (9, "u") => descriptors = reader.u32()?,
            (_, "s" | "o") => drop(reader.string()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.u32()?),
            _ => return Err(Malformed("an unknown field")),
        }
    }
    Ok(Message {
        kind: match kind {
            METHOD_RETURN => Kind::Return(answers),
            ERROR => Kind::Error(answers, error),
            SIGNAL => Kind::Signal { interface, member },
            _ => Kind::Other,
        },
        sender,
        signature,
        body: body.to_owned(),
        descriptors: descriptors as usize,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// A message as a bus sends it: an answer, or a signal of that interface and member.
    pub(crate) fn sent(
        (answers, signal): (u32, Option<(&str, &str)>),
        sender: &str,
        signature: &str,
        body: &[u8],
        descriptors: u32,
    ) -> Vec<u8> {
        let kind = if signal.is_some() {
            SIGNAL
        } else {
            METHOD_RETURN
        };
        let mut message = Bytes(vec![b'l', kind, 1, 1]);
        message.u32(u32::try_from(body.len()).unwrap());
        message.u32(7);
        message.u32(0);
        let number = |message: &mut Bytes, code: u8, value: u32| {
            message.align(8);
            message.0.extend([code, 1, b'u', 0]);
            message.u32(value);
        };
        match signal {
            Some((interface, member)) => {
                message.field(1, b'o', "/org/freedesktop/login1");
                message.field(2, b's', interface);
                message.field(3, b's', member);
            }
            None => number(&mut message, 5, answers),
        }
        message.field(7, b's', sender);
        message.field(8, b'g', signature);
        if descriptors > 0 {
            number(&mut message, 9, descriptors);
        }
        let fields = u32::try_from(message.0.len() - FIXED).unwrap();
        message.0[12..FIXED].copy_from_slice(&fields.to_le_bytes());
        message.align(8);
        message.0.extend(body);
        message.0
    }

    #[test]
    fn a_call_is_spelled_as_the_specification_says() {
        let hello = Method {
            destination: "a.b",
            path: "/a",
            interface: "a.b",
            member: "C",
        };
        let expected = b"l\x01\x00\x01\x0c\x00\x00\x00\x05\x00\x00\x00\x48\x00\x00\x00\
            \x01\x01o\x00\x02\x00\x00\x00/a\x00\x00\x00\x00\x00\x00\
            \x02\x01s\x00\x03\x00\x00\x00a.b\x00\x00\x00\x00\x00\
            \x03\x01s\x00\x01\x00\x00\x00C\x00\x00\x00\x00\x00\x00\x00\
            \x06\x01s\x00\x03\x00\x00\x00a.b\x00\x00\x00\x00\x00\
            \x08\x01g\x00\x02si\x00\
            \x01\x00\x00\x00x\x00\x00\x00\xff\xff\xff\xff";
        let sent = call(5, hello, &[Argument::String("x"), Argument::Int(-1)]);
        assert_eq!(sent, expected);
    }

    #[test]
    fn messages_are_read_when_they_are_whole() {
        let signal = sent((0, Some(("i", "m"))), ":1.2", "b", &[1, 0, 0, 0], 0);
        let answer = sent((3, None), ":1.2", "h", &[0, 0, 0, 0], 1);
        let both = [&signal[..], &answer].concat();
        for length in 0..signal.len() {
            assert_eq!(read(&both[..length]).unwrap(), None);
        }
        let (first, length) = read(&both).unwrap().unwrap();
        let (interface, member) = ("i".to_owned(), "m".to_owned());
        assert_eq!(first.kind, Kind::Signal { interface, member });
        assert_eq!((&*first.sender, length), (":1.2", signal.len()));
        assert_eq!(Reader::new(&first.body).u32(), Ok(1));
        let (second, _) = read(&both[length..]).unwrap().unwrap();
        assert_eq!((second.kind, second.descriptors), (Kind::Return(3), 1));
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_comes() {
        let mut long = sent((3, None), "", "", &[], 0);
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(&long), Err(Malformed("too long")));
        assert!(read(b"B\x01\x00\x01............").is_err());
    }

    proptest! {
        #[test]
        fn nothing_that_comes_is_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (at, byte) in [(0, b'l'), (3, 1), (6, 0), (7, 0), (14, 0), (15, 0)] {
                if let Some(of) = bytes.get_mut(at) {
                    *of = byte;
                }
            }
            let _ = read(&bytes);
        }
    }
}
