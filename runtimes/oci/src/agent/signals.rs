//! The signal that asks a container to end, as an image names it.

use rustix::process::Signal;

/// Signals by the names that images use.
const NAMES: [(&str, Signal); 15] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ABRT", Signal::ABORT),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
    ("TSTP", Signal::TSTP),
    ("WINCH", Signal::WINCH),
    ("IO", Signal::IO),
    ("PWR", Signal::POWER),
];

/// The number of a signal; SIGTERM if none is named, or none that is known.
pub(super) fn stop_signal(named: &str) -> i32 {
    let bare = named.strip_prefix("SIG").unwrap_or(named);
    let by_name = NAMES.iter().find(|(name, _)| *name == bare);
    let by_number = || Signal::from_named_raw(named.parse().ok()?);
    let found = by_name.map(|(_, signal)| *signal).or_else(by_number);
    found.unwrap_or(Signal::TERM).as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for (named, expected) in [
            ("SIGQUIT", Signal::QUIT),
            ("QUIT", Signal::QUIT),
            ("3", Signal::QUIT),
            ("", Signal::TERM),
            ("SIGNONSENSE", Signal::TERM),
            ("-1", Signal::TERM),
        ] {
            assert_eq!(stop_signal(named), expected.as_raw(), "{named}");
        }
    }
}
