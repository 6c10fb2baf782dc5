//! Names as a Pod's resolver finds them: search path, `ndots`, aliases.

use std::net::IpAddr;

use crate::snapshot::{Answer, Snapshot};

/// Names with fewer dots are tried under the search path first (`ndots`, as Pods have it).
const NDOTS: usize = 5;
/// A chain of aliases longer than this is taken for a loop.
const ALIASES: usize = 8;

/// What the cluster says of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Addresses(Vec<IpAddr>),
    /// It is to be asked outside, under this name.
    Outside(String),
    /// It would have to be the cluster's, and is not.
    Nothing,
}

/// Follows the search path of a Pod and the cluster's aliases.
pub(super) fn look_up(snapshot: &Snapshot, name: &str, own: IpAddr) -> Found {
    let domain = &snapshot.general().domain;
    let absolute = name.strip_suffix('.');
    let bare = absolute.unwrap_or(name);
    let search = [
        snapshot
            .namespace(own)
            .map(|namespace| format!("{namespace}.svc.{domain}")),
        Some(format!("svc.{domain}")),
        Some(domain.clone()),
    ];
    let searched = search
        .into_iter()
        .flatten()
        .map(|suffix| format!("{bare}.{suffix}"));
    let dots = bare.matches('.').count();
    let mut candidates = Vec::new();
    if absolute.is_none() && dots < NDOTS {
        candidates.extend(searched);
        candidates.push(bare.to_owned());
    } else {
        candidates.push(bare.to_owned());
    }
    for candidate in candidates {
        if let Some(found) = follow(snapshot, candidate) {
            return found;
        }
    }
    let inside = bare == domain || bare.ends_with(&format!(".{domain}"));
    if inside {
        Found::Nothing
    } else {
        Found::Outside(bare.to_owned())
    }
}

/// The end of a chain of aliases, if the name is one of the cluster's.
fn follow(snapshot: &Snapshot, mut name: String) -> Option<Found> {
    let mut answer = snapshot.name(&name)?;
    for _ in 0..ALIASES {
        match answer {
            Answer::Addresses(addresses) if addresses.is_empty() => return Some(Found::Nothing),
            Answer::Addresses(addresses) => return Some(Found::Addresses(addresses)),
            Answer::Alias(target) => name = target,
        }
        match snapshot.name(&name) {
            Some(next) => answer = next,
            None => return Some(Found::Outside(name)),
        }
    }
    Some(Found::Nothing)
}
