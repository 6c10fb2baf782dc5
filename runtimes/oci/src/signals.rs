//! Signals: the one that asks a container to end, as an image names it and as the kernel numbers
//! it, and what a process that is forked does about them before it is the container's.

use rustix::process::Signal;

/// The real-time signals that programs may use: the C library has those below for itself.
const FIRST: i32 = 34;
const LAST: i32 = 64;

/// Signals by the names that images and Pods use.
const NAMES: [(&str, Signal); 34] = [
    ("BUS", Signal::BUS),
    ("CHLD", Signal::CHILD),
    ("CLD", Signal::CHILD),
    ("FPE", Signal::FPE),
    ("ILL", Signal::ILL),
    ("IOT", Signal::ABORT),
    ("PIPE", Signal::PIPE),
    ("POLL", Signal::IO),
    ("PROF", Signal::PROF),
    ("SEGV", Signal::SEGV),
    ("STKFLT", Signal::STKFLT),
    ("SYS", Signal::SYS),
    ("TRAP", Signal::TRAP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("VTALRM", Signal::VTALARM),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
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
pub(crate) fn stop_signal(named: &str) -> i32 {
    let bare = named.strip_prefix("SIG").unwrap_or(named);
    let by_name = NAMES.iter().find(|(name, _)| *name == bare);
    let by_number = || numbered(named.parse().ok()?);
    let found = by_name.map(|(_, signal)| *signal);
    let found = found.or_else(|| real_time(bare)).or_else(by_number);
    found.unwrap_or(Signal::TERM).as_raw()
}

/// One of the signals that are told apart by their distance from the first or the last of them.
fn real_time(bare: &str) -> Option<Signal> {
    let distance = |text: &str| match text {
        "" => Some(0),
        // The sign has been taken off already.
        text if text.starts_with(['+', '-']) => None,
        text => text.parse::<i32>().ok(),
    };
    let number = if let Some(above) = bare.strip_prefix("RTMIN") {
        FIRST.checked_add(distance(above.strip_prefix('+').unwrap_or(above))?)?
    } else {
        let below = bare.strip_prefix("RTMAX")?;
        LAST.checked_sub(distance(below.strip_prefix('-').unwrap_or(below))?)?
    };
    numbered(number).filter(|signal| signal.as_raw() >= FIRST)
}

/// The signal of a number.
pub(crate) fn numbered(number: i32) -> Option<Signal> {
    if (FIRST..=LAST).contains(&number) {
        // SAFETY: it is not one of those that the C library keeps to itself, which lie below.
        return Some(unsafe { Signal::from_raw_unchecked(number) });
    }
    Signal::from_named_raw(number)
}

/// Gives every signal its default action, and blocks none: what is ignored or blocked stays so in
/// programs that are executed. Rust ignores SIGPIPE, and a shell that starts a node in the
/// background ignores SIGINT and SIGQUIT for it. For a process that has one thread.
pub(crate) fn reset() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the default action of a signal is no function of ours. Those that have no other
        // action are refused, and need nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an empty set is made before it is read, on this thread, which is the process's only
    // one.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
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
            ("SIGPOLL", Signal::IO),
            ("SIGVTALRM", Signal::VTALARM),
            ("", Signal::TERM),
            ("SIGNONSENSE", Signal::TERM),
            ("-1", Signal::TERM),
        ] {
            assert_eq!(stop_signal(named), expected.as_raw(), "{named}");
        }
        let none = Signal::TERM.as_raw();
        for (named, expected) in [
            ("SIGRTMIN+3", 37),
            ("RTMIN", 34),
            ("RTMAX-1", 63),
            ("37", 37),
            ("33", none),
            ("RTMIN+31", none),
            ("RTMIN-1", none),
            ("RTMIN++1", none),
            ("RTMIN+2147483647", none),
            ("RTMAX-31", none),
        ] {
            assert_eq!(stop_signal(named), expected, "{named}");
        }
    }
}
