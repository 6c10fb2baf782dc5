//! Files of a sandbox that its containers find in `/etc`.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use coracle_runtime::{Network, PodSandboxConfig, disk};

const FILES: [(&str, &str); 3] = [
    ("hosts", "/etc/hosts"),
    ("hostname", "/etc/hostname"),
    ("resolv.conf", "/etc/resolv.conf"),
];

/// Writes them into the sandbox's folder.
pub(super) fn write(folder: &Path, config: &PodSandboxConfig) -> io::Result<()> {
    let machine = |path: &str| match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    };
    let hosts = match config.namespaces.network {
        Network::Host => machine("/etc/hosts")?,
        _ => hosts(config),
    };
    let contents = [
        hosts,
        format!("{}\n", config.hostname),
        match &config.resolution {
            Some(resolution) => resolution.to_string(),
            None => machine("/etc/resolv.conf")?,
        },
    ];
    for ((name, _), content) in FILES.iter().zip(contents) {
        let path = folder.join(name);
        fs::write(&path, content)?;
        disk::set_mode(&path, 0o644)?;
    }
    Ok(())
}

/// Where they are, and where a container finds them.
pub(super) fn list(folder: &Path) -> Vec<(PathBuf, &'static str)> {
    let files = FILES.iter();
    files
        .map(|(name, inside)| (folder.join(name), *inside))
        .collect()
}

/// The file of names, as the kubelet writes it.
fn hosts(config: &PodSandboxConfig) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in &config.ips {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{ip}\t{}", config.hostname);
    }
    text
}
