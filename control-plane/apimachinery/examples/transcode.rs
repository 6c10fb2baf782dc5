//! Turns objects from one wire format into another, for checks against other implementations
//! (`tests/clients/go/wire`). It reads cases and writes answers until its input ends.
//!
//! A case is a letter, a length of four bytes and the object. The letter says what to do: `p`
//! makes JSON of protobuf, `P` protobuf of JSON, `c` JSON of CBOR, `C` CBOR of JSON. An answer
//! is `+` or `-`, a length of four bytes, and the object or what is wrong with it.

use std::io::{self, Read, Write};

use coracle_apimachinery::{cbor, protobuf};

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
        b'p' => protobuf::to_json(body, LIMIT).map_err(|error| error.to_string()),
        b'P' => protobuf::Kind::of(body)
            .and_then(|kind| kind.encode(body))
            .map_err(|error| error.to_string()),
        b'c' => cbor::to_json(body, LIMIT).map_err(|error| error.to_string()),
        b'C' => cbor::from_json(body).map_err(|error| error.to_string()),
        _ => Err("the letter is none of p, P, c, C".to_owned()),
    }
}
