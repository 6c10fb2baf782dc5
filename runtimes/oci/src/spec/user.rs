//! As whom a container runs: what the Pod says over what the image says, by the image's own files
//! of users and groups (passwd(5), group(5)).

use std::io;

use coracle_runtime::{ContainerUser, IdRange, ImageUser, Security};
use serde_json::{Value, json};

use crate::snapshots::UserFiles;

/// The largest ID that a process may begin with, as in the API. Above, 4294967295 is the worst: to
/// setresuid(2) it means that nothing changes, so that whoever has it stays root.
const MAX_ID: u32 = (1 << 31) - 1;

/// Refuses IDs that users of a Pod's own have not.
pub(super) fn check_range(of: &ContainerUser) -> Result<(), String> {
    let groups = of.supplemental_groups.iter().map(|id| ("group", *id));
    let ids = [("user", of.uid), ("group", of.gid)];
    match ids
        .into_iter()
        .chain(groups)
        .find(|(_, id)| *id >= IdRange::LENGTH)
    {
        Some((what, id)) => Err(format!(
            "{what} {id}: with hostUsers: false a Pod has the IDs from 0 to {}",
            IdRange::LENGTH - 1
        )),
        None => Ok(()),
    }
}

/// A user in the specification.
pub(super) fn to_json(of: &ContainerUser) -> Value {
    json!({"uid": of.uid, "gid": of.gid, "additionalGids": of.supplemental_groups})
}

/// As whom an image runs that says that of its user.
pub(crate) fn of_image(image: &str) -> ImageUser {
    let user = image.split_once(':').map_or(image, |(user, _)| user);
    match (user, user.parse()) {
        ("", _) => ImageUser::Id(0),
        (_, Ok(id)) => ImageUser::Id(id),
        (name, Err(_)) => ImageUser::Name(name.to_owned()),
    }
}

/// The user of a container. `image` is `user`, `uid`, `user:group` or `uid:gid`, or empty.
pub(super) fn resolve(
    security: &Security,
    image: &str,
    files: &UserFiles,
) -> Result<ContainerUser, String> {
    let (user, group) = image.split_once(':').unwrap_or((image, ""));
    let known = match security.user {
        Some(uid) => entry(&files.passwd, |fields| number(fields, 2) == Some(uid)),
        None => entry(&files.passwd, |fields| names(fields, user)),
    };
    let uid = match (security.user, user.parse(), &known) {
        (Some(uid), ..) | (None, Ok(uid), _) => uid,
        (None, Err(_), Some(fields)) => number(fields, 2).unwrap_or_default(),
        (None, Err(_), None) if user.is_empty() => 0,
        (None, Err(_), None) => {
            return Err(format!(
                "unable to find user {user}: no matching entries in passwd file"
            ));
        }
    };
    // The image's group belongs to the image's user.
    let group = match security.user {
        Some(_) => "",
        None => group,
    };
    let gid = match (security.group, group) {
        (Some(gid), _) => gid,
        (None, "") => known
            .as_ref()
            .and_then(|fields| number(fields, 3))
            .unwrap_or(0),
        (None, group) => {
            let found = entry(&files.group, |fields| names(fields, group));
            found
                .and_then(|fields| number(&fields, 2))
                .or_else(|| group.parse().ok())
                .ok_or_else(|| {
                    format!("unable to find group {group}: no matching entries in group file")
                })?
        }
    };
    let name = known.as_ref().and_then(|fields| fields.first().copied());
    let mut groups: Vec<u32> = match name {
        Some(name) if !security.strict_groups => member_of(&files.group, name),
        _ => Vec::new(),
    };
    groups.push(gid);
    groups.extend(&security.supplemental_groups);
    groups.sort_unstable();
    groups.dedup();
    // The image's group is one of them.
    let largest = groups.iter().copied().fold(uid, u32::max);
    match Some(largest).filter(|id| *id > MAX_ID) {
        Some(id) => Err(format!(
            "{id} is no ID of a user or a group: those are from 0 to {MAX_ID}"
        )),
        None => Ok(ContainerUser {
            uid,
            gid,
            supplemental_groups: groups,
        }),
    }
}

/// Names the folder of its user to a process that has none, or an empty one. Where that is so
/// libcontainer asks the C library, inside the container: that loads what nsswitch.conf names there,
/// into a process that has more rights than the container and no filter.
pub(crate) fn give_home(
    process: &mut Value,
    users: impl FnOnce() -> io::Result<UserFiles>,
) -> io::Result<()> {
    let uid = process["user"]["uid"].as_u64();
    let uid = uid.and_then(|uid| u32::try_from(uid).ok()).unwrap_or(0);
    let env = process["env"].as_array().cloned().unwrap_or_default();
    let value = |entry: &Value| Some(entry.as_str()?.strip_prefix("HOME=")?.to_owned());
    if env.iter().filter_map(value).any(|value| !value.is_empty()) {
        return Ok(());
    }
    let mut env: Vec<Value> = env.into_iter().filter(|e| value(e).is_none()).collect();
    env.push(format!("HOME={}", home(uid, &users()?)).into());
    process["env"] = env.into();
    Ok(())
}

/// The folder of a user, as the image says; the root where it does not.
pub(super) fn home(uid: u32, files: &UserFiles) -> &str {
    let known = entry(&files.passwd, |fields| number(fields, 2) == Some(uid));
    let home = known.and_then(|fields| fields.get(5).copied());
    let home = home.filter(|home| home.starts_with('/') && !home.contains('\0'));
    home.unwrap_or("/")
}

fn entry(file: &str, fits: impl Fn(&[&str]) -> bool) -> Option<Vec<&str>> {
    file.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fits(fields))
}

/// Whether a line is of that name, or of that number if it is one.
fn names(fields: &[&str], wanted: &str) -> bool {
    let same = fields.first() == Some(&wanted) && !wanted.is_empty();
    let number: Option<u32> = wanted.parse().ok();
    same || (number.is_some() && self::number(fields, 2) == number)
}

fn number(fields: &[&str], at: usize) -> Option<u32> {
    fields.get(at)?.parse().ok()
}

fn member_of(file: &str, user: &str) -> Vec<u32> {
    file.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let members = fields.get(3)?;
            members
                .split(',')
                .any(|member| member == user)
                .then_some(())?;
            number(&fields, 2)
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_image_names_a_user_or_a_number_or_none() {
        let name = |name: &str| ImageUser::Name(name.to_owned());
        for (image, user) in [
            ("", ImageUser::Id(0)),
            (":7", ImageUser::Id(0)),
            ("0", ImageUser::Id(0)),
            ("0:7", ImageUser::Id(0)),
            ("7:web", ImageUser::Id(7)),
            ("root", name("root")),
            ("web:7", name("web")),
        ] {
            assert_eq!(of_image(image), user, "{image:?}");
        }
    }

    #[test]
    fn no_image_stays_root_by_an_id_that_changes_nothing() {
        let files = UserFiles {
            passwd: "minus:x:4294967295:0::/:\nweb:x:7:4294967295::/:\nlast:x:2147483647:1::/:\n"
                .into(),
            group: "minus:x:4294967295:\nall:x:2147483648:last\n".into(),
        };
        let resolve = |image: &str, strict_groups| {
            let security = Security {
                strict_groups,
                ..Security::default()
            };
            resolve(&security, image, &files).map(|user| user.uid)
        };
        for image in [
            "4294967295",
            "2147483648",
            "7:4294967295",
            "7:minus",
            "minus",
            "web",
            "last",
        ] {
            let refused = resolve(image, false).unwrap_err();
            assert!(refused.contains("is no ID"), "{image}: {refused}");
        }
        assert_eq!(resolve("last", true), Ok(2_147_483_647));
        assert_eq!(resolve("7:1", false), Ok(7));
    }
}
