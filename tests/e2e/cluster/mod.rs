//! A cluster of the real binary, in a folder and on ports of its own, that ends with the test.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) mod busybox;
mod kubectl;
mod left;
pub(crate) mod websocket;

pub(crate) use kubectl::{Background, Kubectl, kubectl_available, tool_available};

/// Nothing here takes this long on a machine that works, however loaded.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// The binary under test.
pub(crate) const CORACLE: &str = env!("CARGO_BIN_EXE_coracle");

/// Calls `probe` until it gives something, or fails the test with what it said last.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if started.elapsed() > DEADLINE => {
                panic!("{what}: not within {DEADLINE:?}; last: {last}")
            }
            // The probe asks another process, which cannot wake this one.
            Err(_) => std::thread::park_timeout(Duration::from_millis(50)),
        }
    }
}

/// A folder of the samples.
pub(crate) fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("wasm-samples")
        .join(name)
}

/// Processes whose command line names a folder, or that work in it as guests do, with their ids.
pub(crate) fn processes_of(folder: &Path) -> Vec<(i32, String)> {
    let needle = folder.to_str().unwrap().as_bytes();
    let contains = |line: &[u8]| line.windows(needle.len()).any(|window| window == needle);
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let id = path.file_name()?.to_str()?.parse().ok()?;
            let line = std::fs::read(path.join("cmdline")).ok()?;
            let within = std::fs::read_link(path.join("cwd"));
            let works_there = within.is_ok_and(|place| place.starts_with(folder));
            (contains(&line) || works_there)
                .then(|| (id, String::from_utf8_lossy(&line).replace('\0', " ")))
        })
        .collect()
}

/// A range of Pod addresses for a cluster of its own: clusters of one machine with a network
/// namespace each must not share one. Runs of the tests begin with different ones, as they may be at
/// the same time.
pub(crate) fn cluster_cidr() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(37);
    let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    format!("10.{}.0.0/16", 128 + number % 100)
}

/// Whether this test may do what only root can. In CI root must be able to.
pub(crate) fn is_root() -> bool {
    // SAFETY: a plain system call.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("SKIPPED: only root gives Pods a network namespace");
    }
    root
}

/// The API's address, from a kubeconfig.
pub(crate) fn api_address(kubeconfig: &Path) -> SocketAddr {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let server = text.split_once("server: https://").unwrap().1;
    server.lines().next().unwrap().trim().parse().unwrap()
}

/// A process of the binary, ended when dropped.
pub(crate) struct Process {
    child: Child,
    output: PathBuf,
}

/// A node that cares neither how full the disk is, nor for the memory that others use.
pub(crate) const UNDISTURBED: &str = "--kubelet-arg=eviction-hard=";

impl Process {
    /// Starts the binary; what it prints goes to `output`.
    pub(crate) fn start(arguments: &[&str], output: PathBuf) -> Self {
        Self::start_command(Command::new(CORACLE).args(arguments), output)
    }

    /// Starts any command in the same way.
    pub(crate) fn start_command(command: &mut Command, output: PathBuf) -> Self {
        left::reset();
        let file = File::options()
            .create(true)
            .append(true)
            .open(&output)
            .unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, output }
    }

    /// Its id.
    pub(crate) fn id(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// All that it has printed.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Waits until it has printed a line that contains `text`, and returns the line.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        eventually(&format!("a line with {text:?}"), || {
            let printed = self.printed();
            if let Some(line) = printed.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended with {status} before it printed {text:?}:\n{printed}");
            }
            Err(printed)
        })
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: a plain system call; the child is not yet waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(self.id(), signal) }, 0);
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let printed = self.output.clone();
        eventually("the end of the process", || {
            self.ended()
                .ok_or_else(|| std::fs::read_to_string(&printed).unwrap_or_default())
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Guests end with the cluster only if it is asked kindly.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(libc::SIGTERM);
            let started = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) {
                // Longer than the grace that Pods have.
                if started.elapsed() > Duration::from_secs(60) {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    let printed = self.printed();
                    assert!(std::thread::panicking(), "it does not end:\n{printed}");
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        if std::thread::panicking() {
            eprintln!("--- the process printed:\n{}", self.printed());
        }
    }
}

/// A cluster made by `coracle up`.
pub(crate) struct Cluster {
    pub(crate) process: Process,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts a cluster and waits until its node is ready.
    #[track_caller]
    pub(crate) fn up(more: &[&str]) -> Self {
        Self::up_in(tempfile::tempdir().unwrap(), more)
    }

    /// The same in a folder that may hold an earlier cluster's data.
    #[track_caller]
    pub(crate) fn up_in(folder: tempfile::TempDir, more: &[&str]) -> Self {
        Self::up_by(folder, more, &mut Command::new(CORACLE))
    }

    /// A cluster of a user without rights: as root, of `nobody`'s.
    #[track_caller]
    pub(crate) fn up_as_nobody(more: &[&str]) -> Self {
        const NOBODY: u32 = 65534;
        let folder = tempfile::tempdir().unwrap();
        // SAFETY: a plain system call.
        if unsafe { libc::geteuid() } != 0 {
            return Self::up_in(folder, more);
        }
        // Where the binary was built may be closed to others.
        let own = folder.path().join("coracle");
        std::fs::copy(CORACLE, &own).unwrap();
        std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        Self::up_by(folder, more, Command::new(own).uid(NOBODY).gid(NOBODY))
    }

    #[track_caller]
    fn up_by(folder: tempfile::TempDir, more: &[&str], command: &mut Command) -> Self {
        let data = folder.path().join("data");
        let cidr = cluster_cidr();
        let mut arguments = vec![
            "up",
            "--data-dir",
            data.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--registry-listen",
            "127.0.0.1:0",
            "--kubelet-port",
            "0",
            "--log",
            "warn",
        ];
        if !more
            .iter()
            .any(|argument| argument.starts_with(UNDISTURBED))
        {
            arguments.push(UNDISTURBED);
        }
        if !more.contains(&"--cluster-cidr") {
            arguments.extend(["--cluster-cidr", &cidr]);
        }
        arguments.extend(more);
        let output = folder.path().join("output");
        let _ = std::fs::remove_file(&output);
        let mut process = Process::start_command(command.args(arguments), output);
        process.wait_for_line("is Ready");
        Self { process, folder }
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A folder for files of the test.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the process at once, as a power cut of the program, and gives the folder back.
    pub(crate) fn kill(mut self) -> tempfile::TempDir {
        self.process.signal(libc::SIGKILL);
        self.process.wait();
        self.folder
    }

    /// The client of its admin.
    pub(crate) fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.data().join("kubeconfig"), self.folder.path())
    }

    /// Runs a subcommand of the binary against this cluster, which must succeed.
    #[track_caller]
    pub(crate) fn coracle(&self, arguments: &[&str]) -> String {
        succeeded(
            &Command::new(CORACLE)
                .args(arguments)
                .arg("--data-dir")
                .arg(self.data())
                .output()
                .unwrap(),
        )
    }
}

/// Standard output of a command that must have succeeded.
#[track_caller]
pub(crate) fn succeeded(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One HTTP exchange: status and body. In HTTP/1.0 a body is not chunked.
pub(crate) fn http_get(authority: &str, path: &str) -> Result<(u16, String), String> {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(authority)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = exchange().map_err(|error| error.to_string())?;
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| format!("no HTTP: {text:?}"))?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}
