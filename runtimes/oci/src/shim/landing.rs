//! Where the volumes of a container come to lie: in its image, or below another volume.
//!
//! A path leads where the links of the image say, and these are known before anything runs. Who
//! writes to a volume may change links in it at any time. So a path is followed to the first
//! volume that it enters, and what is left of it is for the kernel to follow below that volume's
//! own folder ([`super::nesting`]).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

/// Folders of the kernel in a container.
pub(super) const KERNEL: [&str; 3] = ["dev", "proc", "sys"];
/// Links that a path may lead over, as with Linux.
const LINKS: usize = 40;

/// Where a volume lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    /// At a path of the image, without the slash before it and without links.
    Image(PathBuf),
    /// Below others.
    Volume {
        /// The outermost of them, by its number.
        outer: usize,
        /// The path below that.
        whole: PathBuf,
        /// The innermost of them, by its number.
        inner: usize,
        /// The path below that.
        below: PathBuf,
    },
}

/// Where volumes lie, which are mounted in the order of their paths. `link` is what a link of the
/// image holds; none of what is no link.
pub(super) fn landings<'a>(
    destinations: impl IntoIterator<Item = &'a Path>,
    link: impl Fn(&Path) -> io::Result<Option<PathBuf>>,
) -> io::Result<Vec<Landing>> {
    let mut found = Vec::new();
    for destination in destinations {
        let landing = landing(destination, &found, &link)?;
        if let Landing::Image(at) = &landing {
            check(destination, at)?;
        }
        found.push(landing);
    }
    Ok(found)
}

fn refused(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Refuses what would give a folder of the kernel, or the root with all of them, to a volume.
fn check(destination: &Path, at: &Path) -> io::Result<()> {
    let path = destination.display();
    if at.as_os_str().is_empty() {
        let message = format!("a volume cannot be mounted at {path}, in place of the image");
        return Err(refused(message));
    }
    let asked = names(destination).eq(names(at));
    match KERNEL.iter().find(|name| at == Path::new(name)) {
        // The machine's own may be asked for by name; libcontainer puts devices in the other.
        Some(&name) if name == "dev" || !asked => Err(refused(format!(
            "a volume cannot be mounted at {path}, in place of /{name}"
        ))),
        _ => Ok(()),
    }
}

/// The names of a path, and those that lead upwards.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        _ => None,
    })
}

fn landing(
    destination: &Path,
    earlier: &[Landing],
    link: impl Fn(&Path) -> io::Result<Option<PathBuf>>,
) -> io::Result<Landing> {
    let mut left: VecDeque<OsString> = names(destination).map(OsStr::to_owned).collect();
    let (mut at, mut links) = (PathBuf::new(), 0);
    while let Some(name) = left.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        at.push(name);
        // A later volume hides an earlier one at the same place.
        let volume = |of: &Landing| matches!(of, Landing::Image(place) if *place == at);
        if let Some(outer) = earlier
            .iter()
            .rposition(volume)
            .filter(|_| !left.is_empty())
        {
            return Ok(below(earlier, outer, left.into_iter().collect()));
        }
        // The kernel's folders are mounted over those of the image, and have no links of anybody's.
        let kernel = KERNEL.iter().any(|name| at.starts_with(name));
        let target = match kernel {
            true => None,
            false => link(&at)?,
        };
        let Some(target) = target else { continue };
        links += 1;
        if links > LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        match target.is_absolute() {
            true => at.clear(),
            false => _ = at.pop(),
        }
        for name in names(&target).rev() {
            left.push_front(name.to_owned());
        }
    }
    Ok(Landing::Image(at))
}

fn below(earlier: &[Landing], outer: usize, path: PathBuf) -> Landing {
    let mut innermost = (outer, path.clone());
    for (number, of) in earlier.iter().enumerate() {
        let Landing::Volume {
            outer: its, whole, ..
        } = of
        else {
            continue;
        };
        match path.strip_prefix(whole) {
            Ok(rest) if *its == outer && !rest.as_os_str().is_empty() => {
                innermost = (number, rest.to_owned());
            }
            _ => {}
        }
    }
    let (inner, below) = innermost;
    Landing::Volume {
        outer,
        whole: path,
        inner,
        below,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Links of an image.
    const IMAGE: [(&str, &str); 9] = [
        ("var/run", "/run"),
        ("up", "data/../srv"),
        ("root", "/"),
        ("far", "var/../root"),
        ("devices", "dev"),
        ("kernel", "../sys"),
        ("loop", "loop"),
        ("dev/shm", "/etc"),
        ("through", "/data/x/../../dev"),
    ];

    fn find(destinations: &[&str]) -> Result<Vec<Landing>, String> {
        let link = |at: &Path| {
            let found = IMAGE.iter().find(|(name, _)| at == Path::new(name));
            Ok(found.map(|(_, target)| PathBuf::from(target)))
        };
        let destinations = destinations.iter().map(|path| Path::new(*path));
        landings(destinations, link).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_lead_where_links_of_the_image_say() {
        for (destination, place) in [
            ("/data", "data"),
            ("/var/run/x", "run/x"),
            ("/up/x", "srv/x"),
            ("/root/data", "data"),
            ("/data/..//./x", "x"),
            ("/../x", "x"),
            ("/sys", "sys"),
            ("/proc", "proc"),
            ("/devices/x", "dev/x"),
            // What of the image lies there is not seen.
            ("/dev/shm", "dev/shm"),
        ] {
            let expected = vec![Landing::Image(place.into())];
            assert_eq!(find(&[destination]), Ok(expected), "{destination}");
        }
        for (destination, of) in [
            ("/", "the image"),
            ("/root", "the image"),
            ("/far", "the image"),
            ("/data/..", "the image"),
            ("/dev", "/dev"),
            ("/devices", "/dev"),
            ("/through", "/dev"),
            ("/kernel", "/sys"),
        ] {
            let error = format!("a volume cannot be mounted at {destination}, in place of {of}");
            assert_eq!(find(&[destination]), Err(error));
        }
        assert!(find(&["/loop/x"]).unwrap_err().contains("symbolic links"));
    }

    #[test]
    fn paths_end_at_the_first_volume() {
        let volume = |outer, whole: &str, inner, below: &str| Landing::Volume {
            outer,
            whole: whole.into(),
            inner,
            below: below.into(),
        };
        let image = |path: &str| Landing::Image(path.into());
        for (destinations, expected) in [
            ("/a /ab", vec![image("a"), image("ab")]),
            ("/a /a/b", vec![image("a"), volume(0, "b", 0, "b")]),
            // What comes later covers what came before.
            ("/a/b /a", vec![image("a/b"), image("a")]),
            (
                "/a /a /a/b",
                vec![image("a"), image("a"), volume(1, "b", 1, "b")],
            ),
            (
                "/run /var/run/secrets/x",
                vec![image("run"), volume(0, "secrets/x", 0, "secrets/x")],
            ),
            (
                "/a /a/b /a/c /a/b/c/d",
                vec![
                    image("a"),
                    volume(0, "b", 0, "b"),
                    volume(0, "c", 0, "c"),
                    volume(0, "b/c/d", 1, "c/d"),
                ],
            ),
            (
                "/dev/shm /dev/shm/x",
                vec![image("dev/shm"), volume(0, "x", 0, "x")],
            ),
            // What the volume holds is not the image's to say.
            (
                "/data /through",
                vec![image("data"), volume(0, "x/../../dev", 0, "x/../../dev")],
            ),
            (
                "/data /data/..",
                vec![image("data"), volume(0, "..", 0, "..")],
            ),
        ] {
            let split: Vec<&str> = destinations.split(' ').collect();
            assert_eq!(find(&split), Ok(expected), "{destinations}");
        }
    }
}
