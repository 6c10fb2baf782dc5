use std::io;
use std::os::fd::OwnedFd;

use coracle_runtime::PortBackends;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;

use super::*;
use crate::namespace::machine::{OUTSIDE, UPLINK, on_a_machine_of_its_own, outside};
use crate::rules::ServicePort;
use crate::snapshot::Form;

fn open(dispatcher: Option<Arc<dyn PortDispatcher>>) -> NodePorts {
    let range = |text: &str| text.parse().unwrap();
    let listeners = Listeners::new(
        Form::Virtual,
        range("10.42.0.0/16"),
        range("10.43.0.0/16"),
        &[],
    );
    let listeners = Arc::new(RwLock::new(listeners));
    let here = Here {
        node: [127, 0, 0, 1].into(),
        pods: Some(range("10.42.3.0/24")),
    };
    NodePorts::new([127, 0, 0, 1].into(), here, listeners, dispatcher)
}

/// A port that was free a moment ago.
async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

fn rules_for(port: u16, protocol: Protocol, endpoints: &[SocketAddr]) -> Rules {
    Rules {
        ports: vec![ServicePort {
            namespace: "default".into(),
            service: "web".into(),
            port_name: String::new(),
            port: 80,
            protocol,
            addresses: Vec::new(),
            external_addresses: Vec::new(),
            node_port: Some(port),
            affinity: None,
            endpoints: endpoints.to_vec(),
            local_endpoints: endpoints.to_vec(),
            internal_is_local: false,
            external_is_local: false,
        }],
        ..Rules::default()
    }
}

fn update(node_ports: &mut NodePorts, rules: &Rules) {
    node_ports.update(rules, &[], Form::Virtual);
}

async fn ask(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"x").await?;
    stream.shutdown().await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

async fn answering(text: &'static str) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = String::new();
            let _ = stream.read_to_string(&mut asked).await;
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    (address, tasks)
}

/// Asks until the answer is the expected one; `None` is a refused connection.
async fn until(port: u16, expected: Option<&str>) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while ask(port).await.ok().as_deref() != expected {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{expected:?} did not come"));
}

#[tokio::test]
async fn a_port_follows_its_endpoints() {
    let (one, _one) = answering("one").await;
    let (two, _two) = answering("two").await;
    let port = free_port().await;
    let mut node_ports = open(None);
    update(&mut node_ports, &rules_for(port, Protocol::Tcp, &[one]));
    until(port, Some("one")).await;
    update(&mut node_ports, &rules_for(port, Protocol::Tcp, &[two]));
    until(port, Some("two")).await;
    update(&mut node_ports, &rules_for(port, Protocol::Tcp, &[]));
    until(port, None).await;
    update(&mut node_ports, &rules_for(port, Protocol::Tcp, &[one]));
    until(port, Some("one")).await;
    node_ports.close().await;
    assert!(ask(port).await.is_err());
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_passed_over() {
    let (one, _one) = answering("one").await;
    let gone = SocketAddr::from(([127, 0, 0, 1], free_port().await));
    let port = free_port().await;
    let mut node_ports = open(None);
    update(
        &mut node_ports,
        &rules_for(port, Protocol::Tcp, &[gone, one]),
    );
    until(port, Some("one")).await;
    for _ in 0..20 {
        assert_eq!(ask(port).await.unwrap(), "one");
    }
    node_ports.close().await;
}

#[tokio::test]
async fn datagrams_go_there_and_back() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let endpoint = server.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut datagram = [0; 64];
        while let Ok((length, from)) = server.recv_from(&mut datagram).await {
            let _ = server.send_to(&datagram[..length], from).await;
        }
    });
    let port = free_port().await;
    let mut node_ports = open(None);
    update(
        &mut node_ports,
        &rules_for(port, Protocol::Udp, &[endpoint]),
    );
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(("127.0.0.1", port)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), async {
        let mut reply = [0; 64];
        loop {
            // Refused until the port is open.
            let _ = client.send(b"ahoy").await;
            let wait = Duration::from_millis(100);
            if let Ok(Ok(length)) = tokio::time::timeout(wait, client.recv(&mut reply)).await {
                assert_eq!(&reply[..length], b"ahoy");
                break;
            }
        }
    })
    .await
    .unwrap();
    node_ports.close().await;
}

/// Takes ports whose endpoints are all its own, and answers every connection with its name.
#[derive(Default)]
struct OneProcess {
    endpoints: Mutex<Vec<SocketAddr>>,
    fails: Mutex<bool>,
    offers: Mutex<Vec<PortBackends>>,
    withdrawn: Mutex<Vec<u16>>,
    serving: Mutex<Option<Arc<Notify>>>,
}

impl OneProcess {
    fn crash(&self) {
        if let Some(stop) = self.serving.lock().take() {
            stop.notify_one();
        }
    }
}

#[async_trait::async_trait]
impl PortDispatcher for OneProcess {
    async fn dispatch(
        &self,
        socket: &OwnedFd,
        backends: PortBackends,
    ) -> io::Result<Option<BoxFuture<'static, ()>>> {
        self.crash();
        self.offers.lock().push(backends.clone());
        if *self.fails.lock() {
            return Err(io::Error::other("the process does not listen"));
        }
        let own = self.endpoints.lock().clone();
        if !backends.endpoints.iter().all(|e| own.contains(e)) {
            return Ok(None);
        }
        let stop = Arc::new(Notify::new());
        *self.serving.lock() = Some(stop.clone());
        let listener = TcpListener::from_std(socket.try_clone()?.into())?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.notified() => return,
                    Ok((mut stream, _)) = listener.accept() => {
                        let mut asked = String::new();
                        let _ = stream.read_to_string(&mut asked).await;
                        let _ = stream.write_all(b"process").await;
                    }
                }
            }
        });
        Ok(Some(Box::pin(async move {
            task.join_next().await;
        })))
    }

    async fn withdraw(&self, port: u16) {
        self.crash();
        self.withdrawn.lock().push(port);
    }
}

#[tokio::test]
async fn a_port_goes_to_the_process_that_has_all_its_endpoints_and_comes_back() {
    let (one, _one) = answering("one").await;
    let (two, _two) = answering("two").await;
    let port = free_port().await;
    let process = Arc::new(OneProcess::default());
    process.endpoints.lock().push(one);
    let mut node_ports = open(Some(process.clone()));
    let mut rules = rules_for(port, Protocol::Tcp, &[one]);
    rules.ports[0].affinity = Some(60);
    update(&mut node_ports, &rules);
    until(port, Some("process")).await;
    let taken = PortBackends {
        port,
        endpoints: vec![one],
        affinity: true,
    };
    assert_eq!(*process.offers.lock(), [taken]);
    // Not all of these are its own, and then none is.
    update(
        &mut node_ports,
        &rules_for(port, Protocol::Tcp, &[one, two]),
    );
    until(port, Some("two")).await;
    until(port, Some("one")).await;
    update(&mut node_ports, &rules_for(port, Protocol::Tcp, &[one]));
    until(port, Some("process")).await;
    // The process is gone, and the agent does it.
    process.crash();
    until(port, Some("one")).await;
    assert_eq!(process.offers.lock().len(), 3);
    // New endpoints are a new chance.
    *process.fails.lock() = true;
    update(&mut node_ports, &rules_for(port, Protocol::Tcp, &[two]));
    until(port, Some("two")).await;
    *process.fails.lock() = false;
    update(&mut node_ports, &rules_for(port, Protocol::Tcp, &[one]));
    until(port, Some("process")).await;
    assert!(process.withdrawn.lock().is_empty());
    update(&mut node_ports, &rules_for(port, Protocol::Tcp, &[]));
    until(port, None).await;
    assert_eq!(*process.withdrawn.lock(), [port]);
    node_ports.close().await;
}

#[tokio::test]
async fn closing_takes_dispatched_ports_back() {
    let (one, _one) = answering("one").await;
    let port = free_port().await;
    let process = Arc::new(OneProcess::default());
    process.endpoints.lock().push(one);
    let mut node_ports = open(Some(process.clone()));
    update(&mut node_ports, &rules_for(port, Protocol::Tcp, &[one]));
    until(port, Some("process")).await;
    node_ports.close().await;
    assert_eq!(*process.withdrawn.lock(), [port]);
    until(port, None).await;
}

#[tokio::test]
async fn a_port_of_a_pod_is_opened_and_closed() {
    let (one, _one) = answering("one").await;
    let port = free_port().await;
    let mut node_ports = open(None);
    let text = format!("TCP 127.0.0.1 {port} {} -> {}", one.port(), one.ip());
    let published = crate::host_ports::tests::published(&text);
    node_ports.update(&Rules::default(), &[published], Form::Virtual);
    until(port, Some("one")).await;
    node_ports.update(&Rules::default(), &[], Form::Virtual);
    until(port, None).await;
    node_ports.close().await;
}

type Candidates = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

#[tokio::test]
async fn who_calls_from_elsewhere_stays_on_the_node() {
    let endpoint = |address: &&str| -> SocketAddr { format!("{address}:80").parse().unwrap() };
    let (here, there) = ("192.0.2.8", "192.0.2.9");
    let local: &[&str] = &["192.0.2.8"];
    let all: &[&str] = &["192.0.2.8", "192.0.2.9"];
    let mut port = rules_for(30080, Protocol::Tcp, &[endpoint(&here), endpoint(&there)])
        .ports
        .remove(0);
    port.local_endpoints = vec![endpoint(&here)];
    let candidates = |port: &ServicePort, client: &str| -> Vec<SocketAddr> {
        let ports = open(None);
        let (_sender, target) = watch::channel(Target::of(port).unwrap());
        let forwarder = Forwarder {
            address: endpoint(&"127.0.0.1"),
            here: ports.here,
            listeners: ports.listeners.clone(),
            target,
        };
        let client = client.parse().unwrap();
        let mut candidates = forwarder.candidates(Protocol::Tcp, client);
        candidates.sort();
        candidates
    };
    let table: [Candidates; 4] = [
        ("127.0.0.1", all, local),
        ("10.42.3.7", all, local),
        ("10.42.4.7", local, local),
        ("198.51.100.7", local, local),
    ];
    for (client, of_both, of_local) in table {
        let sockets =
            |addresses: &[&str]| -> Vec<SocketAddr> { addresses.iter().map(endpoint).collect() };
        port.external_is_local = true;
        assert_eq!(candidates(&port, client), sockets(of_both), "{client}");
        port.external_is_local = false;
        assert_eq!(candidates(&port, client), sockets(all), "{client}");
        let mut only = port.clone();
        only.external_is_local = true;
        only.endpoints = only.local_endpoints.clone();
        assert_eq!(candidates(&only, client), sockets(of_local), "{client}");
    }
    // With none on the node there is nobody for who is elsewhere.
    port.external_is_local = true;
    port.local_endpoints.clear();
    assert_eq!(candidates(&port, "198.51.100.7"), []);
    assert_eq!(candidates(&port, "127.0.0.1").len(), 2);
}

#[test]
fn who_calls_from_any_address_of_the_machine_is_here() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let here = Here {
            node: "192.0.2.8".parse().unwrap(),
            pods: Some("10.42.3.0/24".parse().unwrap()),
        };
        for client in ["127.0.0.1", "::1", "::ffff:192.0.2.8", "10.42.3.7"] {
            assert!(here.contains(client.parse().unwrap()), "{client}");
        }
        assert!(here.contains(UPLINK.into()));
        assert!(!here.contains(OUTSIDE.into()));
        // Without a way there.
        assert!(!here.contains("2001:db8::1".parse().unwrap()));
    });
}

#[tokio::test]
async fn a_process_does_not_get_a_port_that_leads_some_elsewhere() {
    let (one, _one) = answering("one").await;
    let (two, _two) = answering("two").await;
    let port = free_port().await;
    let process = Arc::new(OneProcess::default());
    process.endpoints.lock().extend([one, two]);
    let mut node_ports = open(Some(process.clone()));
    let mut rules = rules_for(port, Protocol::Tcp, &[one, two]);
    update(&mut node_ports, &rules);
    until(port, Some("process")).await;
    // The test calls from the node itself, which goes to both.
    rules.ports[0].external_is_local = true;
    rules.ports[0].local_endpoints = vec![one];
    update(&mut node_ports, &rules);
    until(port, Some("two")).await;
    until(port, Some("one")).await;
    assert_eq!(*process.withdrawn.lock(), [port]);
    rules.ports[0].local_endpoints = vec![one, two];
    update(&mut node_ports, &rules);
    until(port, Some("process")).await;
    node_ports.close().await;
}
