//! Echoes what it reads on a TCP port, one connection at a time, for as long as it runs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> std::io::Result<()> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "7000".into());
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept()?;
        match echo(stream) {
            Ok(bytes) => println!("{peer}: {bytes} bytes"),
            Err(error) => eprintln!("{peer}: {error}"),
        }
    }
}

fn echo(mut stream: TcpStream) -> std::io::Result<u64> {
    let mut buffer = [0; 4096];
    let mut total = 0;
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(total);
        }
        stream.write_all(&buffer[..read])?;
        total += read as u64;
    }
}
