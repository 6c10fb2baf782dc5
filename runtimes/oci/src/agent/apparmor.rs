//! The runtime's own profile of AppArmor: what it says, and that it is loaded.
//!
//! As other engines do, the runtime has `apparmor_parser` load it when it begins, and containers that
//! ask for no profile run under it, but for privileged ones. One that is loaded under its name already
//! stays as it is, whosever it is: an administrator's, or that of an earlier release until the machine
//! starts again. Which container has which profile is decided in [`crate::spec::apparmor`].
//!
//! Deliberately absent: writing to `/etc/apparmor.d`, what the kernel reads in place of the parser,
//! and taking the profile away, under which containers run that survive the agent.

use std::fs;
use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

use coracle_runtime::Security;
use coracle_runtime::apparmor::AppArmorPlaces;

use crate::spec::apparmor::{self, DEFAULT};

/// The program that compiles and loads profiles, and where it is if no folder of programs has it.
const PARSERS: [&str; 2] = ["apparmor_parser", "/sbin/apparmor_parser"];
/// Why nothing is loaded where it is not installed.
const NO_PARSER: &str =
    "apparmor_parser is not installed on the node: install the package `apparmor`";

/// What a profile of AppArmor 3 or later means by its rules, so that those of later kinds (`userns`)
/// are neither needed nor known: both AppArmor 3 and 4 bring this file.
const ABI: &str = "abi <abi/3.0>,\n";

/// What containers may do and what not, whatever else lets them: the rights of a container are its
/// capabilities and its mounts, and the profile stands behind both.
const RULES: &str = "
  network,
  unix,
  capability,
  file,
  umount,

  # Below /proc, tasks have files that they write: /proc/<pid>. Of the other folders (those that do
  # not begin with a digit) only settings of shared memory, which are the container's own.
  deny /proc/* w,
  deny /proc/[^0-9s]*/** w,
  deny /proc/s[^y]*/** w,
  deny /proc/sy[^s]*/** w,
  deny /proc/sys?*/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/k[^e]** w,
  deny /proc/sys/kernel/[^s]** w,
  deny /proc/sys/kernel/s[^h]** w,
  deny /proc/sys/kernel/sh[^m]** w,
  deny /proc/{sysrq-trigger,mem,kmem,kcore} rwklx,

  # Below /sys, only control groups: /sys/fs/cgroup.
  deny /sys/[^f]** wklx,
  deny /sys/f[^s]** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/fs/c[^g]** wklx,
  deny /sys/fs/cg[^r]** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,

  deny mount,

  # Who looks into a process, or asks whether it is there, needs the right to on its own side too.
  ptrace (readby, tracedby),
  signal (send, receive) set=(exists),
  signal (receive) peer=unconfined,
";

/// The profile; `own` is that of the agent and its shims, which end containers.
fn text(own: Option<&str>, abi: bool) -> String {
    let abi = if abi { ABI } else { "" };
    let peer = own.map(|name| format!("  signal (receive) peer=\"{name}\",\n"));
    let peer = peer.unwrap_or_default();
    format!(
        "{abi}profile {DEFAULT} flags=(attach_disconnected,mediate_deleted) {{{RULES}{peer}  \
         signal (send, receive) peer={DEFAULT},\n  \
         ptrace (trace, tracedby, read, readby) peer={DEFAULT},\n}}\n"
    )
}

/// The profile that this process has.
fn own_profile() -> Option<String> {
    let label = fs::read_to_string("/proc/self/attr/apparmor/current");
    // Before Linux 5.8.
    let label = label.or_else(|_| fs::read_to_string("/proc/self/attr/current"));
    profile_of(&label.ok()?).map(str::to_owned)
}

/// The name in a label like `name (enforce)`; none of what is under no profile, nor of one whose name
/// a rule would take for a pattern.
fn profile_of(label: &str) -> Option<&str> {
    let (name, _) = label.trim_end().rsplit_once(" (")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

/// Has the kernel take the profile.
fn load() -> Result<(), String> {
    let own = own_profile();
    let flags = ["--replace", "--skip-cache"];
    // Before AppArmor 3 a profile could not say which rules it knows, nor was there the file.
    parse(&flags, &text(own.as_deref(), true))
        .or_else(|_| parse(&flags, &text(own.as_deref(), false)))
}

/// Has the parser read a profile.
fn parse(flags: &[&str], text: &str) -> Result<(), String> {
    let mut parser = spawn(flags).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NO_PARSER.to_owned(),
        _ => format!("starting apparmor_parser: {error}"),
    })?;
    if let Some(mut stdin) = parser.stdin.take() {
        // Should it not read to the end, it says why.
        let _ = stdin.write_all(text.as_bytes());
    }
    let ended = parser.wait_with_output();
    let ended = ended.map_err(|error| format!("waiting for apparmor_parser: {error}"))?;
    match ended.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&ended.stderr);
            let status = ended.status;
            Err(format!(
                "apparmor_parser failed ({status}): {}",
                said.trim()
            ))
        }
    }
}

fn spawn(flags: &[&str]) -> io::Result<Child> {
    let spawn = |program: &str| {
        let mut command = Command::new(program);
        command.args(flags).stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn()
    };
    match spawn(PARSERS[0]) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => spawn(PARSERS[1]),
        started => started,
    }
}

/// Loads the profile, or says why it cannot.
type Load = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The runtime's own profile on this machine.
pub(super) struct DefaultProfile {
    places: AppArmorPlaces,
    load: Load,
    /// Why it was not loaded when the runtime began.
    missing: Option<String>,
}

impl DefaultProfile {
    /// Has it loaded where AppArmor is enabled. It waits for a process.
    pub(super) fn of_machine() -> Self {
        Self::new(AppArmorPlaces::of_machine(), Box::new(load))
    }

    fn new(places: AppArmorPlaces, load: Load) -> Self {
        let mut profile = Self {
            places,
            load,
            missing: None,
        };
        profile.missing = profile.ensure().err();
        if let Some(cause) = &profile.missing {
            warn(cause);
        }
        profile
    }

    /// Has it loaded, unless it is or AppArmor is not enabled.
    fn ensure(&self) -> Result<(), String> {
        match self.places.profiles() {
            Ok(Some(loaded)) if !loaded.contains(DEFAULT) => (self.load)(),
            Ok(_) => Ok(()),
            Err(error) => Err(unread(&error)),
        }
    }

    /// The profile that a container is to have, or why it cannot have it.
    pub(super) fn of<'a>(&self, security: &'a Security) -> Result<Option<&'a str>, String> {
        let asks = security.app_armor.is_some();
        let mut missing = self.missing.clone();
        // Somebody may have unloaded it since. Who asks for it hears of what has failed again, or of
        // a parser that was installed; who asks for nothing does not wait for that each time.
        if apparmor::is_default(security) && (asks || missing.is_none()) {
            missing = self.ensure().err();
            if let (Some(cause), false) = (&missing, asks) {
                warn(cause);
            }
        }
        let loaded = match self.places.profiles() {
            Ok(loaded) => loaded,
            // Who asks for nothing is not kept from running.
            Err(_) if !asks => None,
            Err(error) => return Err(unread(&error)),
        };
        apparmor::profile(security, loaded.as_ref(), missing.as_deref())
    }
}

fn unread(error: &io::Error) -> String {
    format!("could not read loaded profiles: {error}")
}

fn warn(cause: &str) {
    tracing::warn!(
        profile = DEFAULT,
        cause,
        "the default profile of AppArmor is not loaded: containers that name none are not confined"
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use coracle_runtime::AppArmor;

    use super::*;

    /// A machine of which AppArmor is enabled, or not.
    struct Machine {
        root: tempfile::TempDir,
        loads: Arc<AtomicU32>,
    }

    impl Machine {
        fn new(enabled: &str) -> Self {
            let root = tempfile::tempdir().unwrap();
            let module = root.path().join("sys/module/apparmor/parameters");
            fs::create_dir_all(&module).unwrap();
            fs::write(module.join("enabled"), enabled).unwrap();
            fs::create_dir_all(root.path().join("sys/kernel/security/apparmor")).unwrap();
            let loads = Arc::default();
            Self { root, loads }
        }

        fn profiles(&self) -> PathBuf {
            let root = self.root.path();
            root.join("sys/kernel/security/apparmor/profiles")
        }

        fn load(&self, profiles: &str) {
            fs::write(self.profiles(), profiles).unwrap();
        }

        /// An agent begins on it. The parser is installed where a file tells so.
        fn begin(&self) -> DefaultProfile {
            let (loads, profiles) = (self.loads.clone(), self.profiles());
            let installed = self.root.path().join("parser");
            let load = move || {
                loads.fetch_add(1, Ordering::Relaxed);
                match installed.exists() {
                    true => {
                        fs::write(&profiles, format!("{DEFAULT} (enforce)\n")).unwrap();
                        Ok(())
                    }
                    false => Err(NO_PARSER.to_owned()),
                }
            };
            DefaultProfile::new(AppArmorPlaces::below(self.root.path()), Box::new(load))
        }

        fn install(&self) {
            fs::write(self.root.path().join("parser"), "").unwrap();
        }

        fn loads(&self) -> u32 {
            self.loads.load(Ordering::Relaxed)
        }
    }

    fn asking(app_armor: Option<AppArmor>) -> Security {
        Security {
            app_armor,
            ..Security::default()
        }
    }

    #[test]
    fn the_default_profile_is_loaded_where_it_is_not() {
        let (nothing, default) = (asking(None), asking(Some(AppArmor::RuntimeDefault)));
        let machine = Machine::new("Y\n");
        machine.load("");
        machine.install();
        let first = machine.begin();
        assert_eq!(first.of(&nothing), Ok(Some(DEFAULT)));
        assert_eq!(first.of(&default), Ok(Some(DEFAULT)));
        let next = machine.begin();
        assert_eq!(next.of(&nothing), Ok(Some(DEFAULT)));
        assert_eq!(machine.loads(), 1);
        // Somebody unloads it.
        machine.load("own (enforce)\n");
        let own = asking(Some(AppArmor::Localhost("own".into())));
        assert_eq!(next.of(&own), Ok(Some("own")));
        assert_eq!(next.of(&asking(Some(AppArmor::Unconfined))), Ok(None));
        assert_eq!(machine.loads(), 1);
        assert_eq!(next.of(&nothing), Ok(Some(DEFAULT)));
        assert_eq!(machine.loads(), 2);
    }

    #[test]
    fn without_a_parser_only_those_run_that_do_not_ask() {
        let (nothing, default) = (asking(None), asking(Some(AppArmor::RuntimeDefault)));
        let machine = Machine::new("Y\n");
        machine.load("");
        let profile = machine.begin();
        for _ in 0..2 {
            assert_eq!(profile.of(&nothing), Ok(None));
        }
        assert_eq!(machine.loads(), 1);
        let error = profile.of(&default).unwrap_err();
        assert!(error.ends_with(NO_PARSER), "{error}");
        // It is installed, and the agent runs on.
        machine.install();
        assert_eq!(profile.of(&default), Ok(Some(DEFAULT)));
        assert_eq!(profile.of(&nothing), Ok(Some(DEFAULT)));

        let disabled = Machine::new("N\n");
        let profile = disabled.begin();
        assert_eq!(profile.of(&nothing), Ok(None));
        let error = profile.of(&default).unwrap_err();
        assert_eq!(error, "AppArmor is not enabled on the host");
        assert_eq!(disabled.loads(), 0);
    }

    #[test]
    fn profiles_that_cannot_be_read_keep_those_from_running_that_ask() {
        let machine = Machine::new("Y\n");
        let profile = machine.begin();
        assert_eq!(profile.of(&asking(None)), Ok(None));
        for asked in [AppArmor::Localhost("own".into()), AppArmor::RuntimeDefault] {
            let error = profile.of(&asking(Some(asked))).unwrap_err();
            assert!(error.contains("could not read loaded profiles"), "{error}");
        }
        machine.load("own (enforce)\n");
        let own = asking(Some(AppArmor::Localhost("own".into())));
        assert_eq!(profile.of(&own), Ok(Some("own")));
    }

    #[test]
    fn the_parser_takes_the_profile() {
        let flags = ["--skip-kernel-load", "--skip-cache"];
        for (own, abi) in [(None, true), (None, false), (Some("/usr/bin/a//b"), true)] {
            match parse(&flags, &text(own, abi)) {
                Err(error) if error == NO_PARSER => {
                    eprintln!("SKIPPED: the text of the profile of AppArmor: {error}");
                    return;
                }
                // One of before AppArmor 3.
                Err(error) if abi && error.contains("abi/3.0") => eprintln!("SKIPPED: {error}"),
                parsed => assert_eq!(parsed, Ok(()), "{own:?}"),
            }
        }
        let error = parse(&flags, "profile x { nonsense }").unwrap_err();
        assert!(error.contains("syntax error"), "{error}");
    }

    #[test]
    fn labels_name_the_profile_of_a_process() {
        for (label, expected) in [
            ("unconfined\n", None),
            ("snap.coracle.agent (enforce)\n", Some("snap.coracle.agent")),
            ("coracle (unconfined)\n", Some("coracle")),
            ("/usr/bin/{a,b} (enforce)\n", None),
            (" (enforce)\n", None),
            ("", None),
        ] {
            assert_eq!(profile_of(label), expected, "{label}");
        }
        assert!(text(Some("a.b"), true).contains("signal (receive) peer=\"a.b\",\n"));
    }
}
