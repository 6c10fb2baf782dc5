use coracle_runtime::streaming::Wanted;
use serde_json::json;

use super::super::V3;
use super::*;

const ERROR: u32 = 1;
const STDIN: u32 = 3;
const STDOUT: u32 = 5;
const RESIZE: u32 = 7;

fn asked(terminal: bool) -> Asked {
    let wanted = Wanted {
        stdin: true,
        stdout: true,
        stderr: false,
    };
    Asked { wanted, terminal }
}

fn all(listener: &mut Listener) -> Vec<Said> {
    std::iter::from_fn(|| listener.next()).collect()
}

/// What is heard when these frames come.
fn heard(listener: &mut Listener, frames: &[Bytes]) -> Vec<Said> {
    for frame in frames {
        listener.put(frame.clone());
    }
    all(listener)
}

/// One whose client has opened all streams.
fn complete() -> Listener {
    let (mut client, mut listener) = (Encoder::default(), Listener::new(V4, asked(true)));
    for (stream, of) in [
        (ERROR, "error"),
        (STDIN, "stdin"),
        (STDOUT, "stdout"),
        (RESIZE, "resize"),
    ] {
        assert!(!listener.is_complete());
        let frame = client.open(stream, &[("streamType", of)]);
        assert_eq!(heard(&mut listener, &[frame]).len(), 1);
    }
    assert!(listener.is_complete());
    listener
}

#[test]
fn streams_are_those_that_were_asked_for() {
    for (protocol, terminal, resizes) in [
        (V4, true, true),
        (V3, true, true),
        (V2, true, false),
        (V1, true, false),
        (V4, false, false),
    ] {
        let mut listener = Listener::new(protocol, asked(terminal));
        let (mut client, mut server) = (Encoder::default(), Encoder::default());
        let mut taken = Vec::new();
        for (stream, of) in [
            (1, "stderr"),
            (3, "error"),
            (5, "stdin"),
            // One of its type is there.
            (7, "stdin"),
            (9, "resize"),
            (11, "other"),
            (13, "stdout"),
        ] {
            let frame = client.open(stream, &[("streamType", of)]);
            let said = heard(&mut listener, &[frame]);
            let expected = ["error", "stdin", "stdout"].contains(&of) && stream != 7;
            let answer = if expected || (resizes && of == "resize") {
                taken.push(stream);
                server.reply(stream)
            } else {
                Encoder::reset(stream)
            };
            assert_eq!(said, [Said::Aside(answer)], "{protocol} {terminal} {of}");
        }
        assert!(listener.is_complete());
        assert_eq!(taken.len(), 3 + usize::from(resizes));
    }
}

#[test]
fn frames_are_understood() {
    let input = |bytes: &'static [u8]| Said::Input(Bytes::from_static(bytes));
    let size = |width, height| Said::Size(TerminalSize { width, height });
    let data = |stream, bytes: &[u8]| Encoder::data(stream, bytes, false);
    for (frames, expected) in [
        (vec![data(STDIN, b"a")], vec![input(b"a")]),
        (
            vec![Encoder::data(STDIN, b"a", true)],
            vec![input(b"a"), Said::InputEnds],
        ),
        (vec![Encoder::data(STDIN, b"", true)], vec![Said::InputEnds]),
        (vec![Encoder::reset(STDIN)], vec![Said::InputEnds]),
        // Sizes follow each other, wherever frames end.
        (
            vec![
                data(RESIZE, b"{\"Width\":80,\"Height\":24}\n{\"Wid"),
                data(RESIZE, b"th\":81,\"Height\":25}\n"),
            ],
            vec![size(80, 24), size(81, 25)],
        ),
        (
            vec![
                data(RESIZE, b"what"),
                data(RESIZE, b"{\"Width\":80,\"Height\":24}"),
            ],
            vec![],
        ),
        (vec![Encoder::ping(7)], vec![Said::Aside(Encoder::ping(7))]),
        (vec![Encoder::ping(2)], vec![]),
        // Those say nothing to a process, or are none.
        (
            vec![data(STDOUT, b"a"), data(99, b"a"), Encoder::reset(STDOUT)],
            vec![],
        ),
        // Of no length that there is.
        (
            vec![Bytes::from_static(&[0, 0, 0, 3, 0, 0xff, 0xff, 0xff])],
            vec![Said::Ends],
        ),
    ] {
        let mut listener = complete();
        for frame in &frames {
            listener.put(frame.clone());
        }
        let mut said = Vec::new();
        // What makes no sense does so for ever.
        while said.last() != Some(&Said::Ends)
            && let Some(more) = listener.next()
        {
            said.push(more);
        }
        assert_eq!(said, expected, "{frames:?}");
    }
}

#[test]
fn there_is_an_end_to_opening_streams() {
    let (mut client, mut listener) = (Encoder::default(), complete());
    // Another client's, whose headers begin anew.
    listener.decoder = Decoder::new();
    let frames: Vec<Bytes> = (0..=TRIES as u32)
        .map(|number| client.open(2 * number + 101, &[("streamType", "stdin")]))
        .collect();
    assert!(heard(&mut listener, &frames).contains(&Said::Ends));
}

#[test]
fn the_end_is_said_as_the_protocol_has_it() {
    let failed = json!({"status": "Failure", "message": "no"});
    let success = json!({"status": "Success"});
    for (plain, status, told) in [
        (false, &failed, Some(failed.to_string())),
        (false, &success, Some(success.to_string())),
        (true, &failed, Some("no".to_owned())),
        (true, &success, None),
    ] {
        let speaker = Speaker {
            streams: [Some(STDIN), Some(STDOUT), None, Some(ERROR), Some(RESIZE)],
            plain,
        };
        let mut expected = vec![Encoder::reset(STDIN), Encoder::reset(RESIZE)];
        expected.extend(told.map(|text| Encoder::data(ERROR, text.as_bytes(), false)));
        expected.extend([STDOUT, ERROR].map(|stream| Encoder::data(stream, b"", true)));
        assert_eq!(speaker.end(status), expected);
    }
}
