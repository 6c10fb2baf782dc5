//! Finds the links of a page in HTML as it comes, piece by piece, and rewrites them in place; all
//! else stays byte for byte.
//!
//! ```text
//!          '<'         letter                '>'
//!   Text ───────► Open ───────► Tag (a Part) ───► Text; Raw after <script> and the like
//!                  │ '!'
//!                  ▼     "--"           "-->"
//!             Declaration ───► Comment ───────► Text
//!
//!   Open, Declaration: anything else ──► Text        Raw: its end tag ──► Text
//! ```
//!
//! It reads as HTML's tokenizer does (the HTML standard, section 13.2.5), without what makes no
//! difference to links. A start tag is held until it ends, within a bound: a longer one stays as it is.
//!
//! Deliberately absent: links in styles and scripts. Kubernetes rewrites none of them.

use std::ops::Range;

use super::links::Links;

/// Bytes of a tag whose links are rewritten, at most. Images within pages make long ones.
const LONGEST: usize = 256 << 10;

/// Elements whose content is text until they end.
const RAW: [&str; 9] = [
    "iframe",
    "noembed",
    "noframes",
    "plaintext",
    "script",
    "style",
    "textarea",
    "title",
    "xmp",
];

/// The attributes of an element that are links.
fn links_of(element: &str) -> &'static [&'static str] {
    match element {
        "a" | "area" | "base" | "link" => &["href"],
        "applet" => &["codebase"],
        "audio" | "embed" | "script" | "source" => &["src"],
        "blockquote" | "del" | "ins" | "q" => &["cite"],
        "body" => &["background"],
        "button" => &["formaction"],
        "command" => &["icon"],
        "form" => &["action"],
        "frame" | "iframe" => &["longdesc", "src"],
        "head" => &["profile"],
        "html" => &["manifest"],
        "img" => &["longdesc", "src", "usemap"],
        "input" => &["src", "usemap", "formaction"],
        "object" => &["classid", "codebase", "data", "usemap"],
        "video" => &["poster", "src"],
        _ => &[],
    }
}

/// Where in a page the next byte is.
#[derive(Clone, Copy, Debug)]
enum State {
    Text,
    /// After a `<`.
    Open,
    /// After a `<!` and perhaps a dash.
    Declaration(bool),
    /// In a comment, after so many dashes.
    Comment(u8),
    Tag(Part),
    /// In an element of text, after so many bytes of what ends it.
    Raw(&'static str, usize),
}

/// Where in a start tag. Places are from its beginning on.
#[derive(Clone, Copy, Debug)]
enum Part {
    Element,
    Between,
    /// In the name of an attribute, which begins there.
    Name(usize),
    /// After one.
    Named,
    /// Before its value.
    Equals,
    /// In a value, which begins there.
    Unquoted(usize),
    Quoted(u8, usize),
}

/// Rewrites a page.
#[derive(Debug)]
pub(super) struct Rewriter {
    links: Links,
    state: State,
    /// The tag that is read.
    tag: Tag,
}

impl Rewriter {
    pub(super) fn new(links: Links) -> Self {
        Self {
            links,
            state: State::Text,
            tag: Tag::default(),
        }
    }

    /// Takes a piece of the page, and adds to `out` what is known of it.
    pub(super) fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        loop {
            if matches!(self.state, State::Text) {
                let end = memchr::memchr(b'<', rest).unwrap_or(rest.len());
                let (text, opens) = rest.split_at(end);
                out.extend_from_slice(text);
                rest = opens;
            }
            let Some((&byte, after)) = rest.split_first() else {
                return;
            };
            rest = after;
            self.state = self.next(byte, out);
        }
    }

    /// The page has ended: what is left of it.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.tag.bytes);
    }

    fn next(&mut self, byte: u8, out: &mut Vec<u8>) -> State {
        match self.state {
            // Only what may open something is read by itself.
            State::Text => {
                self.tag.bytes.push(byte);
                State::Open
            }
            State::Open if byte.is_ascii_alphabetic() => {
                self.tag.bytes.push(byte);
                State::Tag(Part::Element)
            }
            // The one before is text, and this one may open something.
            State::Open if byte == b'<' => {
                out.push(byte);
                State::Open
            }
            State::Open => {
                out.append(&mut self.tag.bytes);
                out.push(byte);
                if byte == b'!' {
                    State::Declaration(false)
                } else {
                    State::Text
                }
            }
            State::Declaration(dash) => {
                out.push(byte);
                match (byte, dash) {
                    (b'-', false) => State::Declaration(true),
                    // `<!-->` is a whole comment.
                    (b'-', true) => State::Comment(2),
                    _ => State::Text,
                }
            }
            State::Comment(dashes) => {
                out.push(byte);
                match byte {
                    b'-' => State::Comment(dashes.saturating_add(1)),
                    b'>' if dashes >= 2 => State::Text,
                    _ => State::Comment(0),
                }
            }
            State::Raw(element, read) => {
                out.push(byte);
                raw(element, read, byte)
            }
            State::Tag(part) => {
                let ends = byte == b'>' && !matches!(part, Part::Quoted(..));
                let part = self.tag.read(part, byte, out);
                if !ends {
                    return State::Tag(part);
                }
                let tag = std::mem::take(&mut self.tag);
                tag.write(&self.links, out);
                tag.raw
                    .map_or(State::Text, |element| State::Raw(element, 0))
            }
        }
    }
}

/// The next byte in an element of text.
fn raw(element: &'static str, read: usize, byte: u8) -> State {
    let mut end = b"</".iter().chain(element.as_bytes());
    match end.nth(read) {
        Some(expected) if byte.eq_ignore_ascii_case(expected) => State::Raw(element, read + 1),
        None if is_space(byte) || matches!(byte, b'/' | b'>') => State::Text,
        _ => State::Raw(element, usize::from(byte == b'<')),
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b'\x0c')
}

/// A start tag.
#[derive(Debug, Default)]
struct Tag {
    bytes: Vec<u8>,
    /// Whether it is longer than is held: then its bytes are passed on as they come.
    is_long: bool,
    /// The attributes of its element that are links.
    links: &'static [&'static str],
    /// Its element, where what follows is text.
    raw: Option<&'static str>,
    /// Whether the last attribute is a link.
    is_link: bool,
    /// Where its links are.
    values: Vec<Range<usize>>,
}

impl Tag {
    /// Reads the next byte: in which part the one after that is.
    fn read(&mut self, part: Part, byte: u8, out: &mut Vec<u8>) -> Part {
        let at = self.bytes.len();
        let space = is_space(byte);
        let next = match part {
            Part::Element if space || matches!(byte, b'/' | b'>') => {
                self.know(at);
                Part::Between
            }
            Part::Element => part,
            Part::Between | Part::Named if matches!(byte, b'/' | b'>') => Part::Between,
            Part::Between | Part::Named | Part::Equals if space => part,
            Part::Named if byte == b'=' => Part::Equals,
            Part::Between | Part::Named => Part::Name(at),
            Part::Name(from) if space || matches!(byte, b'/' | b'>' | b'=') => {
                let name = self.bytes.get(from..at).unwrap_or_default();
                let is = |link: &str| name.eq_ignore_ascii_case(link.as_bytes());
                self.is_link = self.links.iter().any(|link| is(link));
                match byte {
                    b'=' => Part::Equals,
                    b'/' | b'>' => Part::Between,
                    _ => Part::Named,
                }
            }
            Part::Name(_) => part,
            Part::Equals => match byte {
                b'"' | b'\'' => Part::Quoted(byte, at + 1),
                b'>' => Part::Between,
                _ => Part::Unquoted(at),
            },
            Part::Unquoted(from) if space || byte == b'>' => {
                self.value(from..at);
                Part::Between
            }
            Part::Quoted(quote, from) if byte == quote => {
                self.value(from..at);
                Part::Between
            }
            Part::Unquoted(_) | Part::Quoted(..) => part,
        };
        if self.is_long {
            out.push(byte);
            return next;
        }
        self.bytes.push(byte);
        if self.bytes.len() > LONGEST {
            self.is_long = true;
            self.values.clear();
            out.append(&mut self.bytes);
        }
        next
    }

    /// The name of its element ends there.
    fn know(&mut self, end: usize) {
        let name = self.bytes.get(1..end).unwrap_or_default();
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        self.links = links_of(&name);
        self.raw = RAW.iter().copied().find(|raw| *raw == name);
    }

    fn value(&mut self, at: Range<usize>) {
        if self.is_link && !self.is_long {
            self.values.push(at);
        }
    }

    /// Adds the tag to `out`, with its links as they are to be.
    fn write(&self, links: &Links, out: &mut Vec<u8>) {
        let mut from = 0;
        for value in &self.values {
            let link = self.bytes.get(value.clone()).unwrap_or_default();
            let link = std::str::from_utf8(link).ok();
            let Some(link) = link.and_then(|link| links.rewrite(link)) else {
                continue;
            };
            out.extend_from_slice(&self.bytes[from..value.start]);
            out.extend_from_slice(link.as_bytes());
            from = value.end;
        }
        out.extend_from_slice(&self.bytes[from..]);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn links() -> Links {
        Links {
            prefix: "/P".to_owned(),
            origin: "10.42.0.5:80".to_owned(),
            asked: "api:6443".to_owned(),
        }
    }

    /// A page in pieces of so many bytes.
    fn rewritten(page: &[u8], size: usize) -> Vec<u8> {
        let (mut rewriter, mut out) = (Rewriter::new(links()), Vec::new());
        for piece in page.chunks(size) {
            rewriter.feed(piece, &mut out);
        }
        rewriter.end(&mut out);
        out
    }

    #[test]
    fn links_are_found_and_all_else_stays() {
        for (page, want) in [
            (
                r#"<a href="/rewriteme">test</a>"#,
                r#"<a href="/P/rewriteme">test</a>"#,
            ),
            ("<A HREF='/a'>", "<A HREF='/P/a'>"),
            ("<a href=/a>b", "<a href=/P/a>b"),
            ("<a\nhref\t= \"/a\" >", "<a\nhref\t= \"/P/a\" >"),
            ("<img/src='/a'/alt=x>", "<img/src='/P/a'/alt=x>"),
            (
                "<img src=\"/a\"longdesc='/b'>",
                "<img src=\"/P/a\"longdesc='/P/b'>",
            ),
            ("<a b c href=/a d>", "<a b c href=/P/a d>"),
            (
                "<a title='>' href='/a?b=1&amp;c'>",
                "<a title='>' href='/P/a?b=1&amp;c'>",
            ),
            ("<a title=it's href='/a'>", "<a title=it's href='/P/a'>"),
            ("<a href='http://10.42.0.5:80/a'>", "<a href='/P/a'>"),
            ("1 < 2 <<b><a href=/a>", "1 < 2 <<b><a href=/P/a>"),
            ("<base href=\"/\">", "<base href=\"/P/\">"),
            // What is an element's in one place is nothing in another.
            ("<a src='/a'><img href='/a'>", "<a src='/a'><img href='/a'>"),
            (
                "<a data-href='/a' hrefs='/a'>",
                "<a data-href='/a' hrefs='/a'>",
            ),
            ("<a href>/a</a><a href=>", "<a href>/a</a><a href=>"),
            ("<a href='/P/a'><a href='b'>", "<a href='/P/a'><a href='b'>"),
            ("</a href='/a'>", "</a href='/a'>"),
            ("<?a href='/a'?>", "<?a href='/a'?>"),
            // Comments and elements of text have no tags in them.
            (
                "<!-- <a href='/a'> --><a href=/b>",
                "<!-- <a href='/a'> --><a href=/P/b>",
            ),
            ("<!--><a href=/b>", "<!--><a href=/P/b>"),
            ("<!doctype html><a href=/b>", "<!doctype html><a href=/P/b>"),
            (
                "<script src='/a'>\"<a href='/a'></scrip>\"</SCRIPT ><a href=/b>",
                "<script src='/P/a'>\"<a href='/a'></scrip>\"</SCRIPT ><a href=/P/b>",
            ),
            (
                "<title><a href=/a></title><a href=/b>",
                "<title><a href=/a></title><a href=/P/b>",
            ),
            (
                "<style></</style><a href=/b>",
                "<style></</style><a href=/P/b>",
            ),
            // A page may end anywhere.
            ("a <", "a <"),
            ("a <a href='/a", "a <a href='/a"),
            ("<!-", "<!-"),
        ] {
            for size in [1, 2, 3, 1000] {
                let got = rewritten(page.as_bytes(), size);
                assert_eq!(String::from_utf8(got).unwrap(), want, "by {size}");
            }
        }
    }

    #[test]
    fn a_tag_too_long_to_hold_stays_and_the_next_does_not() {
        let image = "x".repeat(LONGEST);
        let page = format!("<img longdesc='/a' src='data:{image}' usemap='/b'><a href='/c'>");
        let want = page.replace("/c", "/P/c");
        for size in [1000, page.len()] {
            assert!(
                rewritten(page.as_bytes(), size) == want.as_bytes(),
                "by {size}"
            );
        }
    }

    proptest! {
        /// However it comes, a page without links of its own is what it was, and any page is the same.
        #[test]
        fn pieces_make_no_difference(page in "[<>a!/'\"= hrefscipt-]{0,60}", size in 1_usize..7) {
            let whole = rewritten(page.as_bytes(), page.len().max(1));
            prop_assert_eq!(&whole, &rewritten(page.as_bytes(), size));
            if !page.contains("=/") && !page.contains("'/") && !page.contains("\"/") && !page.contains("= ") {
                prop_assert_eq!(whole, page.into_bytes());
            }
        }
    }
}
