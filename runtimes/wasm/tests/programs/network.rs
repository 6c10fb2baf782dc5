//! A guest that meets the network in every way that WASI has; the test says what it should find.
//!
//! Build: `rustc --edition 2024 --target wasm32-wasip2 -C opt-level=s -C lto -C strip=symbols
//! -C panic=abort network.rs`
//!
//! Arguments: the name and port of a TCP server, the address of a UDP server, a name that does
//! not exist, and an address that nobody serves.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, server, datagrams, nowhere, refused] = &args[..] else {
        panic!("wrong arguments: {args:?}");
    };

    let addresses: Vec<_> = server.to_socket_addrs().unwrap().collect();
    println!("resolved {addresses:?}");
    let mut stream = TcpStream::connect(server).unwrap();
    println!("connected to {}", stream.peer_addr().unwrap());
    stream.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    println!("read {}", String::from_utf8_lossy(&answer));

    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.send_to(b"ping", datagrams).unwrap();
    let mut answer = [0; 16];
    let (length, from) = socket.recv_from(&mut answer).unwrap();
    println!("received {} from {from}", String::from_utf8_lossy(&answer[..length]));

    println!("unknown name fails: {}", nowhere.to_socket_addrs().is_err());
    println!("refused: {:?}", TcpStream::connect(refused).unwrap_err().kind());
    let foreign = TcpListener::bind("10.99.99.99:80").unwrap_err();
    println!("foreign address: {:?}", foreign.kind());

    let local = TcpListener::bind("127.0.0.1:4000").unwrap();
    println!("local listener at {}", local.local_addr().unwrap());
}
