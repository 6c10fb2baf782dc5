//! Credential providers: programs of the node that give credentials for pulls.
//!
//! [`config`] says which are asked for which images. A program gets a `CredentialProviderRequest` on
//! its standard input and gives a `CredentialProviderResponse` (`credentialprovider.kubelet.k8s.io/v1`),
//! which holds for a while ([`cache`]). A Pod's own credentials are tried before. A program that fails
//! gives nothing, and is asked again for the next pull. One image is pulled once at a time, so that
//! nobody asks twice for it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use coracle_images::RegistryAuth;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

mod cache;
mod config;

use cache::{Cache, Scope};
use config::PROTOCOL;
pub use config::{CredentialPolicy, CredentialProvider};

/// How long a plugin may take, as in the kubelet.
const DEADLINE: Duration = Duration::from_secs(60);
/// Bytes that are read of an answer, and of what a plugin complains of.
const ANSWER: u64 = 1 << 20;
const COMPLAINT: u64 = 4 << 10;

/// The plugins of the node.
#[derive(Default)]
pub(crate) struct Credentials {
    plugins: Vec<Plugin>,
}

struct Plugin {
    provider: CredentialProvider,
    cache: Mutex<Cache>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: String,
    kind: String,
    cache_key_type: Scope,
    cache_duration: Option<String>,
    #[serde(default)]
    auth: BTreeMap<String, Login>,
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl Credentials {
    pub(crate) fn new(policy: CredentialPolicy) -> Self {
        let plugins = policy.providers.into_iter().map(|provider| Plugin {
            provider,
            cache: Mutex::default(),
        });
        Self {
            plugins: plugins.collect(),
        }
    }

    /// What the plugins give for an image.
    pub(crate) async fn of(&self, reference: &str) -> Vec<RegistryAuth> {
        let mut auths = Vec::new();
        if self.plugins.is_empty() {
            return auths;
        }
        let Ok(image) = RegistryAuth::repository(reference) else {
            return auths;
        };
        for plugin in &self.plugins {
            let mut patterns = plugin.provider.images.iter();
            if !patterns.any(|pattern| RegistryAuth::covers(pattern, &image)) {
                continue;
            }
            match plugin.ask(&image).await {
                Ok(found) => auths.extend(found),
                Err(error) => {
                    let program = plugin.provider.program.display();
                    tracing::warn!(image, %program, error, "a plugin gives no credentials");
                }
            }
        }
        auths
    }
}

impl Plugin {
    async fn ask(&self, image: &str) -> Result<Vec<RegistryAuth>, String> {
        if let Some(held) = self.cache.lock().get(image, Instant::now()) {
            return Ok(held);
        }
        let ran = tokio::time::timeout(DEADLINE, run(&self.provider, image)).await;
        let output = ran.map_err(|_| format!("it is not done within {DEADLINE:?}"))??;
        let (answer, auths) = read(&output)?;
        let hold = match &answer.cache_duration {
            Some(text) => config::period(Some(text)).unwrap_or_default(),
            None => self.provider.cached_for,
        };
        let scope = (answer.cache_key_type, image);
        self.cache.lock().put(scope, &auths, hold, Instant::now());
        Ok(auths)
    }
}

/// Reads an answer. What is wrong with it is not quoted: it may hold a password.
fn read(output: &[u8]) -> Result<(Answer, Vec<RegistryAuth>), String> {
    let answer: Answer = serde_json::from_slice(output).map_err(|error| {
        format!(
            "its answer is no CredentialProviderResponse (line {})",
            error.line()
        )
    })?;
    if (&*answer.api_version, &*answer.kind) != (PROTOCOL, "CredentialProviderResponse") {
        return Err(format!(
            "its answer is {:?} of {:?}, not of {PROTOCOL:?}",
            answer.kind, answer.api_version
        ));
    }
    let auths = answer.auth.iter().map(|(pattern, login)| RegistryAuth {
        pattern: pattern.clone(),
        username: login.username.clone(),
        password: login.password.clone(),
        secret: None,
    });
    let auths = auths.collect();
    Ok((answer, auths))
}

/// Runs the program; it ends with this.
async fn run(provider: &CredentialProvider, image: &str) -> Result<Vec<u8>, String> {
    let request =
        json!({"apiVersion": PROTOCOL, "kind": "CredentialProviderRequest", "image": image});
    let child = Command::new(&provider.program)
        .args(&provider.arguments)
        .envs(
            provider
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(|error| error.to_string())?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let give = async {
        if let Some(mut input) = input {
            // One that does not ask needs no question.
            let _ = input.write_all(request.to_string().as_bytes()).await;
        }
    };
    let ((), output, errors, status) = tokio::join!(
        give,
        bounded(output, ANSWER),
        bounded(errors, COMPLAINT),
        child.wait()
    );
    let status = status.map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!(
            "{status}: {}",
            String::from_utf8_lossy(&errors).trim()
        ));
    }
    match output.len() as u64 > ANSWER {
        true => Err("its answer is too long".to_owned()),
        false => Ok(output),
    }
}

/// What comes first of a stream; the rest is read too, so that nobody waits for that, and dropped.
async fn bounded(stream: Option<impl AsyncRead + Unpin>, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What was read before an error counts.
        let _ = (&mut stream).take(most + 1).read_to_end(&mut bytes).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "kind": "CredentialProviderResponse", "cacheKeyType": "Registry", "cacheDuration": "1m",
        "auth": {"r.example": {"username": "u", "password": "p"}}}"#;

    struct World {
        folder: tempfile::TempDir,
        credentials: Credentials,
    }

    /// A plugin that notes what it is asked, and says that.
    fn world(script: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let asked = at("asked");
        let script = format!(
            "(cat; echo \" $1 $GREETING\") >> {}\n{script}\n",
            asked.display()
        );
        // A program that was written just now may be open elsewhere, and is not run then.
        std::os::unix::fs::symlink("/bin/sh", at("helper")).unwrap();
        std::fs::write(at("script"), script).unwrap();
        std::fs::write(at("answer"), ANSWER).unwrap();
        let config = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n\
            providers:\n- name: helper\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  \
            matchImages: ['r.example', '*.cloud.example']\n  defaultCacheDuration: 1h\n  \
            env: [{name: GREETING, value: hello}]\n";
        let script = at("script");
        let config = format!("{config}  args: [{}, get]\n", script.display());
        std::fs::write(at("config.yaml"), config).unwrap();
        let mut policy = CredentialPolicy {
            config: Some(at("config.yaml")),
            bin_dir: Some(folder.path().to_owned()),
            ..CredentialPolicy::default()
        };
        policy.load().unwrap();
        World {
            folder,
            credentials: Credentials::new(policy),
        }
    }

    impl World {
        fn asked(&self) -> Vec<String> {
            let text = std::fs::read_to_string(self.folder.path().join("asked"));
            text.unwrap_or_default()
                .lines()
                .map(str::to_owned)
                .collect()
        }
    }

    #[tokio::test]
    async fn a_plugin_is_asked_once_for_a_registry() {
        let world = world("cat $(dirname $0)/answer");
        let found = world.credentials.of("r.example/team/app:v1").await;
        assert_eq!(found.len(), 1);
        let found = &found[0];
        assert_eq!(
            (&*found.pattern, &*found.username, &*found.password),
            ("r.example", "u", "p")
        );
        assert_eq!(found.secret, None);
        assert_eq!(
            world
                .credentials
                .of("r.example/other@sha256:00")
                .await
                .len(),
            0,
            "no reference"
        );
        assert_eq!(world.credentials.of("r.example/other").await.len(), 1);
        assert_eq!(world.credentials.of("elsewhere.example/app").await.len(), 0);
        let asked = world.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(
            asked[0].contains(r#""image":"r.example/team/app""#),
            "{asked:?}"
        );
        assert!(
            asked[0].contains(r#""kind":"CredentialProviderRequest""#),
            "{asked:?}"
        );
        assert!(asked[0].ends_with(" get hello"), "{asked:?}");
        world.credentials.of("a.cloud.example/app").await;
        assert_eq!(world.asked().len(), 2, "another registry");
    }

    #[tokio::test]
    async fn a_plugin_that_fails_gives_nothing_and_is_asked_again() {
        for (script, reason) in [
            ("echo no luck >&2; exit 3", "no luck"),
            (
                "echo '{\"password\": \"s3cret\"'",
                "no CredentialProviderResponse",
            ),
            (
                "sed s/k8s.io.v1/k8s.io.v9/ $(dirname $0)/answer",
                "\"credentialprovider.kubelet.k8s.io.v9",
            ),
            ("head -c 2000000 /dev/zero", "too long"),
        ] {
            let world = world(script);
            let plugin = &world.credentials.plugins[0];
            let said = plugin.ask("r.example/app").await.unwrap_err();
            assert!(said.contains(reason) && !said.contains("s3cret"), "{said}");
            assert!(world.credentials.of("r.example/app").await.is_empty());
            assert_eq!(world.asked().len(), 2);
        }
    }
}
