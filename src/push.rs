//! `coracle push`, and the pushes of `--apply`.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use coracle_images::EmbeddedRegistry;
use coracle_images::push::{PushRequest, Pushed, push};

use crate::apply;
use crate::cli::PushOptions;
use crate::paths::DataDir;
use crate::server::reachable;

/// The embedded registry at an address, with a credential.
pub(crate) fn embedded(
    address: SocketAddr,
    authority: &str,
    credential: (String, String),
) -> EmbeddedRegistry {
    let address = reachable(address);
    EmbeddedRegistry {
        name: address.to_string(),
        aliases: vec![format!("localhost:{}", address.port())],
        endpoints: vec![format!("https://{address}")],
        ca_pem: authority.as_bytes().to_vec(),
        credential: Some(credential),
    }
}

/// Pushes one file under the name of an image.
pub(crate) async fn push_file(
    file: &Path,
    image: &str,
    target: EmbeddedRegistry,
) -> Result<Pushed> {
    let bytes = tokio::fs::read(file)
        .await
        .with_context(|| format!("cannot read {}", file.display()))?;
    let title = file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    push(PushRequest {
        reference: image.to_owned(),
        wasm: bytes.into(),
        title,
        embedded: Some(target),
        credential: None,
    })
    .await
    .with_context(|| file.display().to_string())
}

/// `coracle push`.
pub(crate) async fn run(options: PushOptions) -> Result<()> {
    let data = DataDir::new(options.data.data_dir)?;
    let target = target(&data)?;
    let guests = match (options.image, options.path.is_dir()) {
        (Some(image), false) => vec![(image, options.path)],
        (None, true) => {
            let guests = apply::read(&options.path)?.guests;
            if guests.is_empty() {
                bail!(
                    "{} has no guest NAME.wasm for an image NAME:tag of its manifests",
                    options.path.display()
                );
            }
            guests
        }
        (None, false) => bail!(
            "name the image too: coracle push {} app:v1",
            options.path.display()
        ),
        (Some(_), true) => bail!("the manifests of a folder name its images: leave IMAGE out"),
    };
    for (image, file) in guests {
        let pushed = push_file(&file, &image, target.clone()).await?;
        println!("{} {}", pushed.reference, pushed.digest);
    }
    Ok(())
}

/// The registry of the cluster with this data directory.
fn target(data: &DataDir) -> Result<EmbeddedRegistry> {
    let read = |path: std::path::PathBuf| {
        std::fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}: is a cluster running with this --data-dir?",
                path.display()
            )
        })
    };
    let address = read(data.registry_address())?
        .trim()
        .parse()
        .context("the registry's address does not read")?;
    let credentials = read(data.registry_credentials())?;
    let (user, password) = credentials
        .trim()
        .split_once(':')
        .context("the registry's credentials do not read")?;
    let authority = read(data.pki().join("ca.crt"))?;
    Ok(embedded(
        address,
        &authority,
        (user.to_owned(), password.to_owned()),
    ))
}
