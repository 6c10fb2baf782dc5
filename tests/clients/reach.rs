//! A cluster that clients reach through a gate, and that is disturbed at their wish.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::gate::Gate;
use crate::cluster::{Cluster, Process, api_address, cluster_cidr, sample};

/// A program has this long. Each is done in a third of it.
const DEADLINE: Duration = Duration::from_secs(300);

/// A cluster behind a gate. It has the images of two samples and runs both.
pub(crate) struct Reach {
    cluster: Option<Cluster>,
    cidr: String,
    gate: Gate,
}

impl Reach {
    /// Starts one.
    #[track_caller]
    pub(crate) fn up() -> Self {
        let cidr = cluster_cidr();
        let [http, batch] = ["hello-http", "batch-hello"].map(sample);
        let mut cluster = Cluster::up(&[
            "--cluster-cidr",
            &cidr,
            "--apply",
            http.to_str().unwrap(),
            "--apply",
            batch.to_str().unwrap(),
        ]);
        // Said when both are pushed and made.
        cluster.process.wait_for_line("http://127.0.0.1:");
        let gate = Gate::open(address(&cluster));
        let reach = Self {
            cluster: Some(cluster),
            cidr,
            gate,
        };
        let own = std::fs::read_to_string(reach.cluster().data().join("kubeconfig")).unwrap();
        let [inner, outer] = [address(reach.cluster()), reach.gate.address()];
        let through = own.replace(&inner.to_string(), &outer.to_string());
        assert_ne!(own, through);
        std::fs::write(reach.kubeconfig(), through).unwrap();
        reach
    }

    /// The cluster itself.
    pub(crate) fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().unwrap()
    }

    /// The admin's kubeconfig, through the gate.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.cluster().folder().join("kubeconfig")
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.gate.cut();
    }

    /// Kills the cluster's process and starts it anew with its data.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        let folder = self.cluster.take().unwrap().kill();
        let cluster = Cluster::up_in(folder, &["--cluster-cidr", &self.cidr]);
        self.gate.lead_to(address(&cluster));
        self.cluster = Some(cluster);
    }

    /// Runs a client's program, which must succeed, and does what it posts to `DISTURB_URL`.
    #[track_caller]
    pub(crate) fn run(&mut self, program: &mut Command) {
        let wishes = TcpListener::bind("127.0.0.1:0").unwrap();
        wishes.set_nonblocking(true).unwrap();
        program
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.cluster().folder())
            .env(
                "DISTURB_URL",
                format!("http://{}", wishes.local_addr().unwrap()),
            );
        let output = self.cluster().folder().join("program");
        let mut process = Process::start_command(program, output);
        let started = Instant::now();
        let status = loop {
            if let Some(status) = process.ended() {
                break status;
            }
            assert!(started.elapsed() < DEADLINE, "not done in {DEADLINE:?}");
            match wishes.accept() {
                Ok((stream, _)) => self.grant(stream),
                // The program and its wishes cannot wake this thread.
                Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
            }
        };
        println!("{}", process.printed());
        assert!(status.success(), "{status}");
    }

    /// Does what one request asks for; its answer says that it is done.
    fn grant(&mut self, mut stream: TcpStream) {
        stream.set_nonblocking(false).unwrap();
        let mut lines = BufReader::new(&stream).lines();
        let request = lines.next().unwrap().unwrap();
        // The whole head, so that no unread byte turns the end into a reset.
        while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
        match request.split(' ').nth(1) {
            Some("/cut") => self.cut(),
            Some("/restart") => self.restart(),
            other => panic!("a wish for {other:?}"),
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
    }
}

fn address(cluster: &Cluster) -> SocketAddr {
    api_address(&cluster.data().join("kubeconfig"))
}
