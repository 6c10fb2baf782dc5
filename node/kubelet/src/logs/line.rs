//! One line of a log in the CRI format: `<time> <stream> <tag> <content>`.
//!
//! The tag `P` marks a part of a line that goes on in the next one, `F` the last part.

/// A line taken apart. What does not have the format is content as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) time: &'a str,
    pub(crate) stream: &'a str,
    pub(crate) partial: bool,
    pub(crate) content: &'a [u8],
}

/// Takes a line apart; its line break is not part of it.
pub(crate) fn parse(line: &[u8]) -> Line<'_> {
    let whole = Line {
        time: "",
        stream: "stdout",
        partial: false,
        content: line,
    };
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let mut text = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
    let (Some(time), Some(stream), Some(tags)) = (text(), text(), text()) else {
        return whole;
    };
    if stream != "stdout" && stream != "stderr" {
        return whole;
    }
    Line {
        time,
        stream,
        // More tags may follow after a colon.
        partial: tags.split(':').next() == Some("P"),
        content: parts.next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let table = [
            (
                "t stdout F hello  world",
                ("t", "stdout", false, "hello  world"),
            ),
            ("t stderr P part", ("t", "stderr", true, "part")),
            ("t stdout P:x part", ("t", "stdout", true, "part")),
            ("t stdout F ", ("t", "stdout", false, "")),
            ("not a log line", ("", "stdout", false, "not a log line")),
        ];
        for (line, (time, stream, partial, content)) in table {
            let content = content.as_bytes();
            let expected = Line {
                time,
                stream,
                partial,
                content,
            };
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
    }
}
