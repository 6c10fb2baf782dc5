use coracle_runtime::{Attachment, PodIdentity};

use super::*;

mod others;
mod restarts;

fn config(folder: &Path) -> NodeNetworkConfig {
    NodeNetworkConfig {
        directory: folder.to_owned(),
        node_name: "one".into(),
        node_address: "192.0.2.1".parse().unwrap(),
        cluster: "c1".into(),
        cluster_range: "10.42.0.0/16".parse().unwrap(),
        service_range: "10.43.0.0/16".parse().unwrap(),
        domain: "cluster.local".into(),
        node_port_address: "127.0.0.1".parse().unwrap(),
        aliases: Vec::new(),
        cluster_dns: Some("10.43.0.10".parse().unwrap()),
        authority: None,
        form: FormChoice::Virtual,
    }
}

fn open(folder: &Path) -> Arc<NodeNetwork> {
    NodeNetwork::open(config(folder)).unwrap()
}

#[test]
fn dns_is_found_under_its_services_address_by_both_protocols() {
    let folder = tempfile::tempdir().unwrap();
    let network = open(folder.path());
    let known = "10.43.0.10:53".parse().unwrap();
    let [udp, tcp] = [Protocol::Udp, Protocol::Tcp].map(|p| network.dial(p, known).unwrap());
    assert!(udp == tcp && udp.ip().is_loopback() && udp.port() != 0);
}

#[test]
fn dns_keeps_its_port_across_restarts_unless_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let known = "10.43.0.10:53".parse().unwrap();
    let port = |network: &NodeNetwork| network.dial(Protocol::Udp, known).unwrap().port();
    // Another test may take a port in the moment in which it is free.
    let kept = (0..5).any(|_| {
        let first = port(&open(folder.path()));
        port(&open(folder.path())) == first
    });
    assert!(kept);
    // The first one has not ended.
    let (first, second) = (open(folder.path()), open(folder.path()));
    assert_ne!(port(&first), port(&second));
    let recorded = std::fs::read_to_string(folder.path().join("dns-port")).unwrap();
    assert_eq!(recorded.trim(), port(&second).to_string());
    std::fs::write(folder.path().join("dns-port"), "nonsense").unwrap();
    assert_ne!(port(&open(folder.path())), 0);
}

#[tokio::test]
async fn whoever_wants_an_address_waits_for_the_range() {
    let folder = tempfile::tempdir().unwrap();
    let pod = PodIdentity {
        namespace: "default".into(),
        name: "a".into(),
        uid: "a".into(),
    };
    let network = open(folder.path());
    assert_eq!(network.namespace(), None);
    let (address, ()) = tokio::join!(
        network.attach(&pod, Attachment::Address, &[], None),
        async {
            network.use_range("10.42.3.0/24".parse().unwrap()).unwrap();
        }
    );
    let attached = address.unwrap();
    assert_eq!(attached.address.to_string(), "10.42.3.2");
    drop(network);
    assert_eq!(
        open(folder.path())
            .attach(&pod, Attachment::Address, &[], None)
            .await
            .unwrap(),
        attached
    );
}

mod namespaced {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::TcpListener as Blocking;

    use coracle_runtime::{GuestNetwork, NetworkError, SandboxId};

    use super::*;
    use crate::namespace::inside;
    use crate::namespace::machine::{
        connect, connect_inside, listen, on_a_machine_of_its_own, ours,
    };
    use crate::{Alias, SnapshotNetwork};

    const TCP: Protocol = Protocol::Tcp;

    fn config(folder: &Path, cluster: &str) -> NodeNetworkConfig {
        NodeNetworkConfig {
            cluster: cluster.into(),
            form: FormChoice::Auto,
            ..super::config(folder)
        }
    }

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn at(address: IpAddr, port: u16) -> SocketAddr {
        SocketAddr::new(address, port)
    }

    fn publish(network: &NodeNetwork) {
        let contents = network.contents(&Rules::default(), &Zone::unknown("cluster.local"));
        contents.publish(&network.snapshot_path()).unwrap();
    }

    /// A Pod with what its guest process has.
    struct Pod {
        address: IpAddr,
        network: SnapshotNetwork,
    }

    async fn pod(network: &NodeNetwork, uid: &str) -> Pod {
        let identity = PodIdentity {
            namespace: "default".into(),
            name: uid.into(),
            uid: uid.into(),
        };
        let address = network
            .attach(&identity, Attachment::Address, &[], None)
            .await
            .unwrap()
            .address;
        let path = network.snapshot_path();
        let network = SnapshotNetwork::open(&path, &[address]).unwrap();
        Pod { address, network }
    }

    impl Pod {
        /// Binds as the guest's sockets do.
        fn listen(&self, pods: &File, local: &str) -> Blocking {
            let local = socket(local);
            let wanted = self.network.bind(TCP, local).unwrap();
            let listener = listen(pods, wanted).unwrap();
            let actual = listener.local_addr().unwrap();
            let (view, _) = self.network.bound(TCP, local, actual);
            self.network.listening(TCP, view, Some(actual));
            listener
        }

        fn call(&self, pods: &File, remote: SocketAddr) -> io::Result<std::net::TcpStream> {
            let peer = self
                .network
                .connect(TCP, remote)
                .map_err(io::Error::other)?;
            connect_inside(pods, peer.source, peer.actual)
        }

        /// Whom the guest sees call.
        fn caller(&self, listener: &Blocking) -> Result<SocketAddr, NetworkError> {
            self.network.peer(TCP, listener.accept().unwrap().1)
        }
    }

    fn with_runtime(test: impl AsyncFnOnce() + Send + 'static) {
        on_a_machine_of_its_own(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(test());
        });
    }

    #[test]
    fn pods_with_containers_come_back_and_go() {
        with_runtime(async || {
            let folder = tempfile::tempdir().unwrap();
            let open = || NodeNetwork::open(config(folder.path(), "c1")).unwrap();
            let identity = |uid: &str| PodIdentity {
                namespace: "default".into(),
                name: uid.into(),
                uid: uid.into(),
            };
            let attach = async |network: &NodeNetwork, uid: &str, wanted| {
                network
                    .attach(&identity(uid), wanted, &[], None)
                    .await
                    .unwrap()
            };
            let network = open();
            network.use_range("10.42.3.0/24".parse().unwrap()).unwrap();
            let links = network.pod_links().unwrap().to_owned();
            let there = || {
                let links = ours("")
                    .0
                    .into_iter()
                    .filter(|name| name.starts_with(&links));
                let files = ours("")
                    .1
                    .into_iter()
                    .filter(|name| name.contains("-10.42."));
                (links.count(), files.count())
            };
            let guest = attach(&network, "guest", Attachment::Address).await;
            assert_eq!(guest.namespace, None);
            let stays = attach(&network, "stays", Attachment::Netns).await;
            assert_eq!(stays.address.to_string(), "10.42.3.128");
            let goes = attach(&network, "goes", Attachment::Netns).await.address;
            assert_eq!(there(), (2, 2));
            let inside = File::open(stays.namespace.as_ref().unwrap()).unwrap();
            let server = listen(&inside, socket("0.0.0.0:80")).unwrap();
            drop(network);
            // While no agent runs a Pod is forgotten.
            let records = folder.path().join("addresses");
            std::fs::remove_file(records.join(goes.to_string())).unwrap();
            let network = open();
            assert_eq!(there(), (1, 1));
            drop(connect(None, at(stays.address, 80)).unwrap());
            server.accept().unwrap();
            let again = attach(&network, "stays", Attachment::Address).await;
            assert_eq!(again, stays);
            network.release("stays").await.unwrap();
            network.release("stays").await.unwrap();
            assert_eq!(there(), (0, 0));
            assert!(connect(None, at(stays.address, 80)).is_err());
            network.tear_down().unwrap();
        });
    }

    #[test]
    fn guests_meet_under_their_own_addresses_and_keep_their_localhosts() {
        with_runtime(async || {
            let folder = tempfile::tempdir().unwrap();
            let network = NodeNetwork::open(config(folder.path(), "c1")).unwrap();
            assert_eq!(
                (network.form(), network.fallback()),
                (Form::Namespaced, None)
            );
            let pods = File::open(network.namespace().unwrap()).unwrap();
            network.use_range("10.42.3.0/24".parse().unwrap()).unwrap();
            let (a, b) = (pod(&network, "a").await, pod(&network, "b").await);

            let server = b.listen(&pods, "0.0.0.0:80");
            let stream = a.call(&pods, at(b.address, 80)).unwrap();
            let caller = b.caller(&server).unwrap();
            assert_eq!(caller, stream.local_addr().unwrap());
            assert_eq!(caller.ip(), a.address);
            let refused = a.call(&pods, at(b.address, 81)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

            // The machine dials a Pod as it is called.
            let dialled = network.dial(TCP, at(b.address, 80)).unwrap();
            assert_eq!(dialled, at(b.address, 80));
            connect(None, dialled).unwrap();
            b.caller(&server).unwrap();

            // Localhost leads to listeners on localhost and on everything, and is called from.
            b.call(&pods, socket("127.0.0.1:80")).unwrap();
            assert_eq!(
                b.caller(&server).unwrap().ip(),
                IpAddr::from([127, 0, 0, 1])
            );
            let own = a.listen(&pods, "127.0.0.1:9000");
            a.call(&pods, socket("127.0.0.1:9000")).unwrap();
            assert_eq!(a.caller(&own).unwrap().ip(), IpAddr::from([127, 0, 0, 1]));
            // Both may have the same one; nobody gets at the other's.
            let other = b.listen(&pods, "127.0.0.1:9000");
            b.call(&pods, own.local_addr().unwrap()).unwrap();
            b.caller(&other).unwrap();
            assert!(a.call(&pods, at(b.address, 9000)).is_err());
            let source = Some(at(other.local_addr().unwrap().ip(), 0));
            connect_inside(&pods, source, own.local_addr().unwrap()).unwrap();
            assert!(matches!(a.caller(&own), Err(NetworkError::AccessDenied(_))));

            // Another process of the Pod finds its localhost by the snapshot.
            network.set_listeners(vec![Listener {
                sandbox: SandboxId("a".into()),
                pod_ips: vec![a.address],
                protocol: TCP,
                address: socket("127.0.0.1:9000"),
                actual: own.local_addr().unwrap(),
            }]);
            publish(&network);
            let process = SnapshotNetwork::open(&network.snapshot_path(), &[a.address]).unwrap();
            let peer = process.connect(TCP, socket("127.0.0.1:9000")).unwrap();
            assert_eq!(peer.actual, own.local_addr().unwrap());

            let table = network.namespace().unwrap();
            let table = table.file_name().unwrap().to_str().unwrap();
            network.tear_down().unwrap();
            assert_eq!(ours(table), (Vec::new(), Vec::new(), false));
        });
    }

    #[test]
    fn guests_reach_a_socket_that_is_on_the_machines_loopback() {
        with_runtime(async || {
            let folder = tempfile::tempdir().unwrap();
            let real = Blocking::bind("127.0.0.1:0").unwrap();
            let known = socket("192.0.2.9:6443");
            let network = NodeNetwork::open(NodeNetworkConfig {
                aliases: vec![Alias {
                    protocol: Protocol::Tcp,
                    known,
                    actual: real.local_addr().unwrap(),
                }],
                ..config(folder.path(), "c1")
            })
            .unwrap();
            network.use_range("10.42.3.0/24".parse().unwrap()).unwrap();
            assert_eq!(network.dial(TCP, known), real.local_addr().ok());
            let a = pod(&network, "a").await;
            let serving = network.clone();
            let range = network.config.cluster_range;
            let relays = tokio::spawn(async move { serving.aliases.serve(range).await });
            let pods = File::open(network.namespace().unwrap()).unwrap();
            let asked = tokio::task::spawn_blocking(move || {
                let mut stream = a.call(&pods, known).unwrap();
                stream.write_all(b"ahoy").unwrap();
                let mut heard = [0; 4];
                real.accept().unwrap().0.read_exact(&mut heard).unwrap();
                heard
            });
            assert_eq!(&asked.await.unwrap(), b"ahoy");
            relays.abort();
        });
    }

    /// Calls until somebody answers, or nobody does, as is said.
    async fn until(answers: bool, address: SocketAddr) -> Option<tokio::net::TcpStream> {
        let tried = async {
            loop {
                let stream = tokio::net::TcpStream::connect(address).await.ok();
                if stream.is_some() == answers {
                    return stream;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let tried = tokio::time::timeout(Duration::from_secs(20), tried).await;
        tried.unwrap_or_else(|_| panic!("{address} answers: {}", !answers))
    }

    #[test]
    fn who_listens_by_ipv6_is_called_at_the_pods_address() {
        with_runtime(async || {
            let folder = tempfile::tempdir().unwrap();
            let network = NodeNetwork::open(config(folder.path(), "c1")).unwrap();
            network.use_range("10.42.3.0/24".parse().unwrap()).unwrap();
            let pods = File::open(network.namespace().unwrap()).unwrap();
            let Ok(server) = listen(&pods, socket("[::1]:0")) else {
                eprintln!("SKIPPED: there is no ::1 in new namespaces here");
                return;
            };
            let datagrams = inside(&pods, || std::net::UdpSocket::bind("[::1]:0")).unwrap();
            let (a, b) = (pod(&network, "a").await, pod(&network, "b").await);
            let address = at(b.address, 80);
            let listener = |protocol, actual| Listener {
                sandbox: SandboxId("b".into()),
                pod_ips: vec![b.address],
                protocol,
                address,
                actual,
            };
            network.set_listeners(vec![
                listener(TCP, server.local_addr().unwrap()),
                listener(Protocol::Udp, datagrams.local_addr().unwrap()),
            ]);
            publish(&network);
            let bridges = network.bridges().unwrap();
            bridges.set(network.listeners.read().bridges());

            // The machine, as probes and NodePorts do; and a guest with a socket for IPv4.
            let dialled = network.dial(TCP, address).unwrap();
            let mut stream = until(true, dialled).await.unwrap();
            let (mut accepted, caller) = server.accept().unwrap();
            assert!(b.network.peer(TCP, caller).is_ok());
            a.call(&pods, address).unwrap();
            server.accept().unwrap();
            b.call(&pods, socket("127.0.0.1:80")).unwrap();
            server.accept().unwrap();

            let client = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
            client.connect(address).await.unwrap();
            let patience = Some(Duration::from_secs(20));
            datagrams.set_read_timeout(patience).unwrap();
            let served = tokio::task::spawn_blocking(move || {
                let mut buffer = [0; 8];
                let (length, from) = datagrams.recv_from(&mut buffer).unwrap();
                datagrams.send_to(&buffer[..length], from).unwrap();
                datagrams
            });
            let mut buffer = [0; 8];
            // Its bridge may be a moment behind the other one; a datagram may be lost.
            let answer = async {
                loop {
                    let _ = client.send(b"ahoy").await;
                    let tick = Duration::from_millis(20);
                    let heard = tokio::time::timeout(tick, client.recv(&mut buffer)).await;
                    if let Ok(Ok(length)) = heard {
                        return length;
                    }
                }
            };
            let answer = tokio::time::timeout(Duration::from_secs(20), answer).await;
            assert_eq!(answer.unwrap(), 4);
            let _datagrams = served.await.unwrap();

            // It listens no more: nobody is called, and who is connected stays so.
            network.set_listeners(Vec::new());
            bridges.set(network.listeners.read().bridges());
            until(false, dialled).await;
            accepted.write_all(b"still").unwrap();
            let mut heard = [0; 5];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut heard)
                .await
                .unwrap();
            bridges.close().await;
        });
    }

    #[test]
    fn names_outside_are_resolved_although_the_machines_resolver_is_on_its_loopback() {
        with_runtime(async || {
            let folder = tempfile::tempdir().unwrap();
            let network = NodeNetwork::open(config(folder.path(), "c1")).unwrap();
            network.use_range("10.42.3.0/24".parse().unwrap()).unwrap();
            let (resolver, _asked) = crate::guest::outside_tests::resolver().await;
            assert!(resolver.ip().is_loopback());
            let server = network.dns.lock().take().unwrap().forward_to(&[resolver]);
            let (_zones, zone) = watch::channel(Arc::new(Zone::unknown("cluster.local")));
            let served = tokio::spawn(server.run(zone, CancellationToken::new()));
            publish(&network);
            let a = pod(&network, "a").await;
            let pods = File::open(network.namespace().unwrap()).unwrap();
            // As in a guest's process, whose threads are all in the namespace.
            let resolved = tokio::task::spawn_blocking(move || {
                inside(&pods, || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()?;
                    let many = runtime.block_on(a.network.resolve("many.example.com"));
                    let one = runtime.block_on(a.network.resolve("half.example.com"));
                    Ok((many.map(|many| many.len()), one))
                })
                .unwrap()
            });
            let one: IpAddr = "192.0.2.3".parse().unwrap();
            assert_eq!(resolved.await.unwrap(), (Ok(200), Ok(vec![one])));
            served.abort();
        });
    }

    #[test]
    fn a_second_cluster_with_the_same_range_stays_virtual_and_says_why() {
        with_runtime(async || {
            let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let _first = NodeNetwork::open(config(folders[0].path(), "c1")).unwrap();
            let second = NodeNetwork::open(config(folders[1].path(), "c2")).unwrap();
            assert_eq!((second.form(), second.namespace()), (Form::Virtual, None));
            let reason = second.fallback().unwrap();
            let folder = folders[0].path().canonicalize().unwrap();
            for said in ["--cluster-cidr", "10.42.0.0/16", folder.to_str().unwrap()] {
                assert!(reason.contains(said), "{said}: {reason}");
            }
            let insisting = NodeNetworkConfig {
                form: FormChoice::Namespaced,
                ..config(folders[1].path(), "c2")
            };
            assert!(NodeNetwork::open(insisting).is_err());
        });
    }
}
