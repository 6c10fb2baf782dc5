//! The real kubectl, run as a user runs it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::{eventually, succeeded};

/// The real kubectl with a cluster's kubeconfig.
#[derive(Clone)]
pub(crate) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
    /// Instead of the kubeconfig's.
    namespace: Option<String>,
}

impl Kubectl {
    /// Uses `$KUBECTL` or the one on the path. A machine of CI without one is a failure;
    /// elsewhere see [`available`].
    pub(crate) fn new(kubeconfig: PathBuf, home: &Path) -> Self {
        Self {
            program: program(),
            kubeconfig,
            home: home.to_owned(),
            namespace: None,
        }
    }

    /// The same whose objects are in a namespace.
    pub(crate) fn within(&self, namespace: &str) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            ..self.clone()
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        command
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .stdin(Stdio::null());
        command
    }

    /// Runs it, whatever comes.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it; it must succeed. Returns standard output.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "kubectl {arguments:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs it; it must fail. Returns standard error.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "kubectl {arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// `kubectl edit` with an editor that is one `sed` expression; it must succeed.
    #[track_caller]
    pub(crate) fn edit(&self, expression: &str, object: &[&str]) -> String {
        self.edit_by(&["edit"], expression, object)
    }

    /// The same by another command that opens an editor.
    #[track_caller]
    pub(crate) fn edit_by(&self, verb: &[&str], expression: &str, object: &[&str]) -> String {
        succeeded(
            &self
                .command(verb)
                .args(object)
                .env("KUBE_EDITOR", format!("sed -i '{expression}'"))
                .output()
                .unwrap(),
        )
    }

    /// Applies a manifest from standard input.
    #[track_caller]
    pub(crate) fn apply(&self, manifest: &str) -> String {
        succeeded(&self.feed(&["apply", "-f", "-"], manifest.as_bytes()))
    }

    /// Runs it with something on its standard input, whatever comes.
    pub(crate) fn feed(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Whoever has ended takes no more, and says why.
                let _ = stdin.write_all(input);
            });
            child.wait_with_output().unwrap()
        })
    }

    /// Runs it through a shell on a terminal of a size; all that the terminal shows.
    pub(crate) fn on_terminal(&self, rows: u16, columns: u16, line: &str) -> Output {
        let line = format!("stty rows {rows} cols {columns}; exec \"$KUBECTL\" {line}");
        Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env("KUBECTL", &self.program)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Starts it in the background with its output in a file.
    pub(crate) fn spawn(&self, arguments: &[&str], output: &Path) -> Background {
        let file = File::create(output).unwrap();
        Background {
            child: self
                .command(arguments)
                .stdout(file.try_clone().unwrap())
                .stderr(file)
                .spawn()
                .unwrap(),
            output: output.to_owned(),
        }
    }

    /// One value by JSONPath.
    #[track_caller]
    pub(crate) fn value(&self, object: &[&str], path: &str) -> String {
        let path = format!("jsonpath={{{path}}}");
        let mut arguments = vec!["get"];
        arguments.extend(object);
        arguments.extend(["-o", &path]);
        self.ok(&arguments)
    }

    /// Waits until a value by JSONPath is what is expected.
    #[track_caller]
    pub(crate) fn wait_value(&self, object: &[&str], path: &str, expected: &str) {
        let jsonpath = format!("jsonpath={{{path}}}");
        let mut arguments = vec!["get"];
        arguments.extend(object);
        arguments.extend(["-o", &jsonpath]);
        eventually(&format!("{object:?} {path} = {expected:?}"), || {
            let output = self.run(&arguments);
            let found = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && found == expected {
                Ok(())
            } else {
                Err(format!(
                    "{found}{}",
                    String::from_utf8_lossy(&output.stderr)
                ))
            }
        });
    }

    /// Port of a Service on the node.
    #[track_caller]
    pub(crate) fn node_port(&self, service: &str) -> u16 {
        self.value(&["service", service], ".spec.ports[0].nodePort")
            .parse()
            .unwrap()
    }
}

/// A client in the background, killed when dropped.
pub(crate) struct Background {
    child: Child,
    output: PathBuf,
}

impl Background {
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    std::env::var_os("KUBECTL").map_or_else(|| "kubectl".into(), PathBuf::from)
}

/// Whether there is a kubectl of 1.32 or newer. In CI there must be; elsewhere the tests that
/// need it say so and pass.
pub(crate) fn kubectl_available() -> bool {
    tool_available("kubectl", &program(), &["version", "--client"], |text| {
        let minor = text.split_once("v1.").and_then(|(_, rest)| {
            rest.split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse()
                .ok()
        });
        minor.is_some_and(|minor: u32| minor >= 32)
    })
}

/// Whether a tool is there and `fits` what it prints.
pub(crate) fn tool_available(
    name: &str,
    program: &Path,
    arguments: &[&str],
    fits: impl Fn(&str) -> bool,
) -> bool {
    let there = Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|output| fits(&String::from_utf8_lossy(&output.stdout)));
    if !there {
        assert!(
            std::env::var_os("CI").is_none(),
            "{name} is required in CI: .ci/run says how to get it"
        );
        eprintln!("SKIPPED: no {name} that fits on this machine");
    }
    there
}
