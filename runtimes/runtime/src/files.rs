//! Files of a sandbox that its containers find in `/etc`.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Network, PodSandboxConfig, disk};

const FILES: [(&str, &str); 3] = [
    ("hosts", "/etc/hosts"),
    ("hostname", "/etc/hostname"),
    ("resolv.conf", "/etc/resolv.conf"),
];

/// Writes them into the sandbox's folder.
pub fn write(folder: &Path, config: &PodSandboxConfig) -> io::Result<()> {
    let machine = |path: &str| match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    };
    let mut hosts = match config.namespaces.network {
        Network::Host => machine("/etc/hosts")?,
        _ => hosts(config),
    };
    hosts.push_str(&aliases(config));
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
pub fn list(folder: &Path) -> Vec<(PathBuf, &'static str)> {
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
    let full = config.hosts.full.as_deref();
    let full = full.filter(|full| *full != config.hostname);
    let names: Vec<&str> = full.into_iter().chain([&*config.hostname]).collect();
    for ip in &config.ips {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{ip}\t{}", names.join("\t"));
    }
    text
}

/// What the Pod adds to it.
fn aliases(config: &PodSandboxConfig) -> String {
    let mut text = String::new();
    if !config.hosts.aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for (ip, names) in &config.hosts.aliases {
        let _ = writeln!(text, "{ip}\t{}", names.join("\t"));
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::Hosts;

    use super::*;

    #[test]
    fn a_pod_is_found_under_its_names_and_others_under_theirs() {
        let mut config = PodSandboxConfig {
            hostname: "web".into(),
            ips: vec![[10, 42, 0, 7].into()],
            ..Default::default()
        };
        let last = |config: &PodSandboxConfig| {
            let text = hosts(config);
            text.lines().last().map(str::to_owned)
        };
        assert_eq!(last(&config).as_deref(), Some("10.42.0.7\tweb"));
        assert_eq!(aliases(&config), "");
        config.hosts = Hosts {
            full: Some("web.sub.ns.svc.cluster.local".into()),
            aliases: vec![("192.0.2.1".into(), vec!["a".into(), "b.example".into()])],
        };
        let both = "10.42.0.7\tweb.sub.ns.svc.cluster.local\tweb";
        assert_eq!(last(&config).as_deref(), Some(both));
        let text = "\n# Entries added by HostAliases.\n192.0.2.1\ta\tb.example\n";
        assert_eq!(aliases(&config), text);
        // Where the Pod's own name is the full one, it is there once.
        config.hostname = "web.sub.ns.svc.cluster.local".into();
        let once = "10.42.0.7\tweb.sub.ns.svc.cluster.local";
        assert_eq!(last(&config).as_deref(), Some(once));
    }
}
