//! A guest that meets the network in every way that WASI has; the test says how, by the first
//! argument, and what it should find.
//!
//! Build: `rustc --edition 2024 --target wasm32-wasip2 -C opt-level=s -C lto -C strip=symbols
//! -C panic=abort network.rs`

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["meet", server, datagrams, nowhere, refused] => meet(server, datagrams, nowhere, refused),
        ["dial", ref addresses @ ..] => dial(addresses),
        ["hoard"] => hoard(),
        ["listen"] => listen(),
        ["echo", address] => echo(address),
        _ => panic!("wrong arguments: {args:?}"),
    }
}

/// The name and port of a TCP server, the address of a UDP server, a name that does not exist,
/// and an address that nobody serves.
fn meet(server: &str, datagrams: &str, nowhere: &str, refused: &str) {
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

/// Tries to reach every address.
fn dial(addresses: &[&str]) {
    for text in addresses {
        let address: SocketAddr = text.parse().unwrap();
        let tcp = TcpStream::connect(address).map(drop);
        println!("{text} over TCP: {}", outcome(tcp));
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let udp = UdpSocket::bind(any).and_then(|socket| socket.send_to(b"ping", address));
        println!("{text} over UDP: {}", outcome(udp.map(drop)));
    }
}

fn outcome(result: Result<()>) -> String {
    match result {
        Ok(()) => "reached".into(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Opens sockets until it may not.
fn hoard() {
    let mut held = Vec::new();
    while let Ok(socket) = UdpSocket::bind("0.0.0.0:0") {
        held.push(socket);
    }
    println!("{} sockets", held.len());
    println!("then TCP: {}", TcpListener::bind("0.0.0.0:0").is_ok());
    held.pop();
    println!("after one less: {}", TcpListener::bind("0.0.0.0:0").is_ok());
}

/// Listens in all ways, for as long as it runs.
fn listen() {
    let _four = TcpListener::bind("127.0.0.1:4000").unwrap();
    // Not every machine has it.
    let _six = TcpListener::bind("[::1]:4001");
    let _datagrams = UdpSocket::bind("127.0.0.1:4002").unwrap();
    let taken = TcpListener::bind("127.0.0.1:4000").unwrap_err().kind();
    assert_eq!(taken, ErrorKind::AddrInUse);
    let taken = TcpListener::bind("0.0.0.0:4000").unwrap_err().kind();
    assert_eq!(taken, ErrorKind::AddrInUse);
    let taken = UdpSocket::bind("127.0.0.1:4002").unwrap_err().kind();
    assert_eq!(taken, ErrorKind::AddrInUse);
    drop(TcpListener::bind("0.0.0.0:4004").unwrap());
    drop(TcpListener::bind("0.0.0.0:4004").unwrap());
    let all = TcpListener::bind("0.0.0.0:4003").unwrap();
    println!("listening");
    for stream in all.incoming() {
        let stream = stream.unwrap();
        println!("{} called", stream.peer_addr().unwrap());
    }
}

/// Answers datagrams with what they say.
fn echo(address: &str) {
    let socket = UdpSocket::bind(address).unwrap();
    let mut bytes = [0; 16];
    loop {
        let (length, from) = socket.recv_from(&mut bytes).unwrap();
        println!("{} from {from}", String::from_utf8_lossy(&bytes[..length]));
        socket.send_to(&bytes[..length], from).unwrap();
    }
}
