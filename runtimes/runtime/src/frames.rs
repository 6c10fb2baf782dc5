//! Frames on the Unix sockets between an agent and its processes.
//!
//! A frame is a length (u32, little endian) and that many bytes of JSON. The agent opens with a
//! greeting; a process answers with the version of their protocol that both speak, so that an
//! agent of the next release can adopt processes of this one. Every request carries a number that
//! its response repeats; events come unasked, in order with the responses. What is said is each
//! runtime's own.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// No frame is longer: enough for the listeners of 10,000 Pods.
const MAX_FRAME: usize = 16 << 20;
/// Bytes before the JSON.
const HEAD: usize = 4;

/// A request or a response with its number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Numbered<T> {
    /// Its number; 0 is the greeting's.
    pub id: u64,
    /// What it says.
    pub body: T,
}

/// A frame from a process to its agent.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromProcess<R, E> {
    /// An answer.
    Response(Numbered<R>),
    /// What happened.
    Event(E),
}

/// Encodes a frame.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEAD];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - HEAD;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a frame of {length} bytes is past the bound of {MAX_FRAME}"),
        ));
    }
    frame[..HEAD].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

fn length(head: [u8; HEAD]) -> io::Result<usize> {
    let length = u32::from_le_bytes(head) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes is past the bound of {MAX_FRAME}"),
        ));
    }
    Ok(length)
}

/// Takes the first frame from bytes that have come so far; `None` while it is not whole.
pub fn decode<T: DeserializeOwned>(bytes: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some(head) = bytes.first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let end = HEAD + length(*head)?;
    let Some(body) = bytes.get(HEAD..end) else {
        return Ok(None);
    };
    let message = serde_json::from_slice(body)?;
    bytes.drain(..end);
    Ok(Some(message))
}

/// Writes one frame.
pub async fn send<T: Serialize>(
    writer: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    writer.write_all(&encode(message)?).await
}

/// Reads one frame; `None` at the end of the stream.
pub async fn receive<T: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let mut head = [0; HEAD];
    match reader.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut body = vec![0; length(head)?];
    reader.read_exact(&mut body).await?;
    Ok(Some(serde_json::from_slice(&body)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_survives_the_wire() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let sent = Numbered { id: 7, body: "x" };
        send(&mut near, &sent).await.unwrap();
        drop(near);
        let received: Option<Numbered<String>> = receive(&mut far).await.unwrap();
        assert_eq!(received.unwrap().id, 7);
        let end: Option<Numbered<String>> = receive(&mut far).await.unwrap();
        assert!(end.is_none());
    }

    #[tokio::test]
    async fn a_frame_past_the_bound_is_refused_before_it_is_read() {
        let (mut near, mut far) = tokio::io::duplex(64);
        near.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
        let result: io::Result<Option<Numbered<u32>>> = receive(&mut far).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let result: io::Result<Option<u32>> = decode(&mut u32::MAX.to_le_bytes().to_vec());
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn garbage_is_an_error() {
        let (mut near, mut far) = tokio::io::duplex(64);
        near.write_all(&3u32.to_le_bytes()).await.unwrap();
        near.write_all(b"{]!").await.unwrap();
        let result: io::Result<Option<Numbered<u32>>> = receive(&mut far).await;
        assert!(result.is_err());
    }

    #[test]
    fn frames_are_taken_as_they_come() {
        let mut wire = encode(&"first").unwrap();
        wire.extend(encode(&"second").unwrap());
        let mut came = Vec::new();
        let mut taken = Vec::new();
        for byte in wire {
            came.push(byte);
            taken.extend(decode::<String>(&mut came).unwrap());
        }
        assert_eq!(taken, ["first", "second"]);
        assert!(came.is_empty());
    }
}
