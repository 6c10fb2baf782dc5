//! The profile of AppArmor that a container's processes have.
//!
//! Where the runtime's own, [`DEFAULT`], is loaded, containers have it that ask for nothing, as with
//! other runtimes.

use std::collections::BTreeSet;

use coracle_runtime::{AppArmor, Security};

/// The runtime's default profile.
pub(crate) const DEFAULT: &str = "coracle-default";

/// Whether a container is to have the default profile, if any.
pub(crate) fn is_default(of: &Security) -> bool {
    let default = matches!(of.app_armor, Some(AppArmor::RuntimeDefault) | None);
    // What is the runtime's own is not for those with all rights.
    default && !of.privileged
}

/// The profile, if a container is to have one; `loaded` are the machine's, none where AppArmor is not
/// enabled, and `missing` is why the default one is not among them.
pub(crate) fn profile<'a>(
    of: &'a Security,
    loaded: Option<&BTreeSet<String>>,
    missing: Option<&str>,
) -> Result<Option<&'a str>, String> {
    let is_loaded = |name: &str| loaded.is_some_and(|loaded| loaded.contains(name));
    let required = |name: &'a str| match is_loaded(name) {
        true => Ok(Some(name)),
        false if loaded.is_none() => Err("AppArmor is not enabled on the host".to_owned()),
        false => Err(format!("apparmor profile not found {name}")),
    };
    match &of.app_armor {
        Some(AppArmor::Unconfined) => Ok(None),
        Some(AppArmor::Localhost(name)) => required(name),
        Some(AppArmor::RuntimeDefault) | None if !is_default(of) => Ok(None),
        Some(AppArmor::RuntimeDefault) => required(DEFAULT).map_err(|error| match missing {
            Some(cause) => format!("{error}: {cause}"),
            None => error,
        }),
        None => Ok(is_loaded(DEFAULT).then_some(DEFAULT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_as_asked_or_refused() {
        let loaded = |names: &[&str]| -> Option<BTreeSet<String>> {
            Some(names.iter().map(|name| (*name).to_owned()).collect())
        };
        let (disabled, empty, both) = (None, loaded(&[]), loaded(&["own", DEFAULT]));
        let own = Some(AppArmor::Localhost("own".to_owned()));
        let default = Some(AppArmor::RuntimeDefault);
        let unconfined = Some(AppArmor::Unconfined);
        let (nothing, no_host) = (Ok(None), Err("not enabled"));
        let no_default = Err("not found coracle-default: no parser");
        for (asked, privileged, machine, expected) in [
            (&own, false, &both, Ok(Some("own"))),
            (&own, true, &both, Ok(Some("own"))),
            (&own, false, &empty, Err("apparmor profile not found own")),
            (&own, false, &disabled, no_host),
            (&default, false, &both, Ok(Some(DEFAULT))),
            (&default, true, &both, nothing),
            (&default, false, &empty, no_default),
            (&default, false, &disabled, no_host),
            (&unconfined, false, &both, nothing),
            (&unconfined, false, &disabled, nothing),
            (&None, false, &both, Ok(Some(DEFAULT))),
            (&None, true, &both, nothing),
            (&None, false, &empty, nothing),
            (&None, false, &disabled, nothing),
        ] {
            let security = Security {
                app_armor: asked.clone(),
                privileged,
                ..Security::default()
            };
            let missing = (*machine == empty).then_some("no parser");
            let found = profile(&security, machine.as_ref(), missing);
            match expected {
                Ok(name) => assert_eq!(found, Ok(name), "{asked:?} of {machine:?}"),
                Err(why) => assert!(
                    found.as_ref().is_err_and(|error| error.contains(why)),
                    "{asked:?} of {machine:?}: {found:?}"
                ),
            }
        }
    }
}
