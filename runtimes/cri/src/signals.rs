//! Signals as the CRI numbers them (`Signal` in `api.proto`).

/// In their order, from 1 on.
const NAMES: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];
/// The first and the last of those that are told apart by their distance from them.
const RTMIN: i32 = 35;
const RTMAX: i32 = 65;

/// The number of a signal of that name, `SIGTERM`, `SIGRTMIN+3`; none if the CRI has no such signal.
pub(crate) fn number(name: &str) -> Option<i32> {
    let bare = name.strip_prefix("SIG")?;
    if let Some(index) = NAMES.iter().position(|known| *known == bare) {
        return i32::try_from(index + 1).ok();
    }
    let distance = |text: &str, sign: char, most: i32| match text {
        "" => Some(0),
        text => {
            let distance = text.strip_prefix(sign)?.parse::<i32>().ok()?;
            (1..=most).contains(&distance).then_some(distance)
        }
    };
    match bare.strip_prefix("RTMIN") {
        Some(above) => Some(RTMIN + distance(above, '+', 15)?),
        None => Some(RTMAX - distance(bare.strip_prefix("RTMAX")?, '-', 14)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_numbers_of_the_cri() {
        for (name, expected) in [
            ("SIGABRT", Some(1)),
            ("SIGQUIT", Some(18)),
            ("SIGTERM", Some(23)),
            ("SIGXFSZ", Some(34)),
            ("SIGRTMIN", Some(35)),
            ("SIGRTMIN+15", Some(50)),
            ("SIGRTMAX-14", Some(51)),
            ("SIGRTMAX", Some(65)),
            ("SIGRTMIN+16", None),
            ("TERM", None),
            ("SIGNONE", None),
        ] {
            assert_eq!(number(name), expected, "{name}");
        }
    }
}
