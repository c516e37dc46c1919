//! XML 1.0 bodies: a flat tree, and the [`XPath`] expressions that rules ask of it.
//!
//! Nothing is fetched and nothing is expanded: a document whose internal subset declares entities
//! or default attributes is an error, and so is a reference to an entity that XML itself does not
//! know, because a backend that expands them sees another document. (libxml2, and with it
//! ModSecurity, expands internal ones.) What was read before an error stays in the tree.
//!
//! Over 900 mutated documents every one that libmodsecurity 3.0.9 reads gave the same values; in
//! names of processing instructions, white space between attributes and the inside of a document
//! type declaration this is laxer.

mod encoding;
mod path;

use std::ops::Range;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::{BodyError, BodyLimits, push_char};
pub use path::{XPath, XPathError};

/// A document. Text stands in one buffer in the order of the document, so that the string value
/// of every element is one stretch of it.
#[derive(Debug, Default)]
pub struct Document {
    elements: Vec<Element>,
    attributes: Vec<Attribute>,
    texts: Vec<Text>,
    /// Names, and values of attributes.
    words: Vec<u8>,
    text: Vec<u8>,
}

/// A stretch of a buffer; a body is shorter than 4 GiB.
type Stretch = Range<u32>;

#[derive(Debug)]
struct Element {
    /// Index of the parent; the root's is [`NONE`].
    parent: u32,
    /// Its local name, in `words`.
    name: Stretch,
    /// Its string value, in `text`.
    text: Stretch,
    attributes: Stretch,
}

#[derive(Debug)]
struct Attribute {
    name: Stretch,
    value: Stretch,
}

/// A run of text or a CDATA section.
#[derive(Debug)]
struct Text {
    parent: u32,
    value: Stretch,
}

const NONE: u32 = u32::MAX;

/// A body's place of fault and what is wrong.
type Outcome<T = ()> = Result<T, &'static str>;

impl Document {
    /// Reads `body` into this document, whose buffers are reused. An empty body is an error, as
    /// in ModSecurity.
    ///
    /// UTF-8, UTF-16 and Latin-1 (with its kin) are read; in any other declared encoding the
    /// body is an error. Time and memory are linear in the body's length.
    ///
    /// # Errors
    ///
    /// When the body is not well-formed, declares entities, or exceeds `limits`.
    pub fn read(&mut self, body: &[u8], limits: &BodyLimits) -> Result<(), BodyError> {
        self.clear();
        let (text, fault) = encoding::decode(body);
        let mut builder = Builder {
            document: self,
            limits,
            open: Vec::new(),
            text_continues: false,
            doctype_allowed: true,
        };
        let mut reader = Reader::from_str(&text);
        let outcome = builder.read(&mut reader);
        builder.close_all();
        let at = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        match fault {
            Some((what, at)) => Err(error(what, at)),
            None => outcome.map_err(|what| error(what, at.min(body.len()))),
        }
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.elements.clear();
        self.attributes.clear();
        self.texts.clear();
        self.words.clear();
        self.text.clear();
    }

    fn word(&self, stretch: &Stretch) -> &[u8] {
        &self.words[stretch.start as usize..stretch.end as usize]
    }

    fn text(&self, stretch: &Stretch) -> &[u8] {
        &self.text[stretch.start as usize..stretch.end as usize]
    }
}

fn error(what: &'static str, at: usize) -> BodyError {
    BodyError {
        processor: "XML",
        what,
        at,
    }
}

struct Builder<'d, 'l> {
    document: &'d mut Document,
    limits: &'l BodyLimits,
    /// Elements that are open, from the root on.
    open: Vec<u32>,
    /// The next text belongs to the last run of text.
    text_continues: bool,
    doctype_allowed: bool,
}

impl Builder<'_, '_> {
    /// Reads to the end or to the first fault.
    fn read(&mut self, reader: &mut Reader<&[u8]>) -> Outcome {
        reader.config_mut().check_comments = true;
        let mut first = true;
        loop {
            match reader.read_event().map_err(|error| fault(&error))? {
                Event::Eof => break,
                Event::Start(start) => self.element(&start)?,
                Event::Empty(start) => {
                    self.element(&start)?;
                    self.close();
                }
                Event::End(_) => self.close(),
                Event::Text(text) => self.characters(&text.into_inner())?,
                Event::GeneralRef(name) => self.reference(&name.into_inner())?,
                Event::CData(text) => {
                    self.text_continues = false;
                    self.append(&text.into_inner())?;
                    self.text_continues = false;
                }
                Event::DocType(text) => self.doctype(&text.into_inner())?,
                Event::Decl(_) if !first => return Err("the XML declaration is not at the start"),
                Event::Decl(_) | Event::Comment(_) | Event::PI(_) => self.text_continues = false,
            }
            first = false;
        }
        if self.document.elements.is_empty() {
            Err("no element")
        } else if self.open.is_empty() {
            Ok(())
        } else {
            Err("an element does not end")
        }
    }

    fn element(&mut self, start: &BytesStart<'_>) -> Outcome {
        if self.open.is_empty() && !self.document.elements.is_empty() {
            return Err("a second root element");
        }
        if self.open.len() >= self.limits.xml_depth {
            return Err("nested too deep");
        }
        self.count()?;
        self.text_continues = false;
        self.doctype_allowed = false;
        let name = self.name(start.name().as_ref())?;
        let first = offset(self.document.attributes.len());
        let text = offset(self.document.text.len());
        self.document.elements.push(Element {
            parent: self.open.last().copied().unwrap_or(NONE),
            name,
            text: text..text,
            attributes: first..first,
        });
        let element = self.document.elements.len() - 1;
        self.open.push(offset(element));
        let outcome = self.attributes(start);
        let end = offset(self.document.attributes.len());
        self.document.elements[element].attributes.end = end;
        outcome
    }

    fn attributes(&mut self, start: &BytesStart<'_>) -> Outcome {
        // Each is compared with those before it: their number is limited first.
        for (index, attribute) in start.attributes().enumerate() {
            if index >= self.limits.xml_element_attributes {
                return Err("an element has too many attributes");
            }
            let attribute = attribute.map_err(|_| "a malformed or duplicate attribute")?;
            let key = attribute.key.as_ref();
            if key == "xmlns" || key.starts_with("xmlns:") {
                continue;
            }
            self.count()?;
            let name = self.name(key)?;
            let start = self.document.words.len();
            let outcome = unescape(&attribute.value, &mut self.document.words);
            let value = offset(start)..offset(self.document.words.len());
            self.document.attributes.push(Attribute { name, value });
            outcome?;
        }
        Ok(())
    }

    /// Keeps a name without its prefix.
    fn name(&mut self, name: &str) -> Outcome<Stretch> {
        if !is_name(name.as_bytes()) {
            return Err("not a name");
        }
        let local = name.rsplit_once(':').map_or(name, |(_, local)| local);
        let start = offset(self.document.words.len());
        self.document.words.extend_from_slice(local.as_bytes());
        Ok(start..offset(self.document.words.len()))
    }

    fn close(&mut self) {
        self.text_continues = false;
        if let Some(element) = self.open.pop() {
            let end = offset(self.document.text.len());
            self.document.elements[element as usize].text.end = end;
        }
    }

    fn close_all(&mut self) {
        while !self.open.is_empty() {
            self.close();
        }
    }

    fn characters(&mut self, text: &str) -> Outcome {
        if self.open.is_empty() {
            return match text.trim_ascii() {
                "" => Ok(()),
                _ => Err("text outside of the root element"),
            };
        }
        self.append(text)?;
        // The first look is cheaper, and nearly all text passes it.
        let text = text.as_bytes();
        if memchr::memchr(b'>', text).is_some() && memchr::memmem::find(text, b"]]>").is_some() {
            return Err("]]> in text");
        }
        Ok(())
    }

    fn reference(&mut self, name: &str) -> Outcome {
        if self.open.is_empty() {
            return Err("a reference outside of the root element");
        }
        let character = referenced(name)?;
        self.append(character.encode_utf8(&mut [0; 4]))
    }

    /// Adds to the text of the open elements, line ends as LF (XML 1.0, section 2.11).
    fn append(&mut self, text: &str) -> Outcome {
        let Some(parent) = self.open.last().copied() else {
            return Err("text outside of the root element");
        };
        let start = offset(self.document.text.len());
        push_lines(text.as_bytes(), &mut self.document.text);
        let end = offset(self.document.text.len());
        match self.document.texts.last_mut() {
            Some(last) if self.text_continues => last.value.end = end,
            _ => {
                self.count()?;
                let value = start..end;
                self.document.texts.push(Text { parent, value });
            }
        }
        self.text_continues = true;
        Ok(())
    }

    fn doctype(&mut self, declaration: &str) -> Outcome {
        if !self.doctype_allowed {
            return Err("a misplaced document type declaration");
        }
        self.doctype_allowed = false;
        let holds = |what: &str| memchr::memmem::find(declaration.as_bytes(), what.as_bytes());
        if holds("<!ENTITY").is_some() || holds("<!ATTLIST").is_some() {
            return Err("the document declares entities or default attributes");
        }
        Ok(())
    }

    fn count(&self) -> Outcome {
        let document = &self.document;
        let nodes = document.elements.len() + document.attributes.len() + document.texts.len();
        if nodes >= self.limits.xml_nodes {
            return Err("too many elements, attributes and texts");
        }
        Ok(())
    }
}

/// An index or length; `encoding::decode` gives no text of 4 GiB.
fn offset(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(NONE)
}

fn fault(error: &quick_xml::Error) -> &'static str {
    match error {
        quick_xml::Error::Syntax(_) => "markup does not end",
        quick_xml::Error::IllFormed(_) => "not well-formed",
        _ => "malformed markup",
    }
}

/// A name of XML, of which only the ASCII half is checked.
fn is_name(name: &[u8]) -> bool {
    let starts = |byte: u8| byte.is_ascii_alphabetic() || byte >= 0x80 || b"_:".contains(&byte);
    let goes_on = |byte: u8| starts(byte) || byte.is_ascii_digit() || b"-.".contains(&byte);
    name.first().is_some_and(|byte| starts(*byte)) && name.iter().all(|byte| goes_on(*byte))
}

/// What `&name;` or `&#number;` stands for.
fn referenced(name: &str) -> Outcome<char> {
    let number = match name.strip_prefix('#') {
        None => {
            return match name {
                "lt" => Ok('<'),
                "gt" => Ok('>'),
                "amp" => Ok('&'),
                "apos" => Ok('\''),
                "quot" => Ok('"'),
                _ => Err("a reference to an entity, which is not expanded"),
            };
        }
        Some(number) => match number.strip_prefix('x') {
            Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16),
            None if !number.starts_with('+') => number.parse(),
            _ => return Err("a malformed character reference"),
        },
    };
    let code = number.map_err(|_| "a malformed character reference")?;
    let allowed = code >= 0x20 || matches!(code, 9 | 10 | 13);
    let character = char::from_u32(code).filter(|_| allowed && code & 0xfffe != 0xfffe);
    character.ok_or("a reference to no character")
}

/// Appends an attribute's value: references resolved, white space as spaces (section 3.3.3).
fn unescape(raw: &str, out: &mut Vec<u8>) -> Outcome {
    let mut rest = raw;
    if rest.contains('<') {
        out.extend_from_slice(rest.as_bytes());
        return Err("< in an attribute");
    }
    while let Some(at) = memchr::memchr(b'&', rest.as_bytes()) {
        push_spaces(&rest.as_bytes()[..at], out);
        let end = memchr::memchr(b';', &rest.as_bytes()[at..]);
        let end = at + end.ok_or("& without a reference in an attribute")?;
        push_char(out, referenced(&rest[at + 1..end])?);
        rest = &rest[end + 1..];
    }
    push_spaces(rest.as_bytes(), out);
    Ok(())
}

fn push_spaces(raw: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    push_lines(raw, out);
    for byte in &mut out[start..] {
        if matches!(byte, b'\t' | b'\n') {
            *byte = b' ';
        }
    }
}

/// Appends `raw` with CRLF and CR as LF.
fn push_lines(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\r', rest) {
        out.extend_from_slice(&rest[..at]);
        out.push(b'\n');
        let after = &rest[at + 1..];
        rest = after.strip_prefix(b"\n").unwrap_or(after);
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// String value of the root and the error.
    fn read(body: &[u8]) -> (String, Option<&'static str>) {
        let mut document = Document::default();
        let outcome = document.read(body, &BodyLimits::default());
        let text = String::from_utf8_lossy(&document.text).into_owned();
        (text, outcome.err().map(|error| error.what))
    }

    /// Values read from libmodsecurity 3.0.9 for the same bodies.
    #[test]
    fn text_is_that_of_modsecurity() {
        let latin = b"<?xml version=\"1.0\" encoding='ISO-8859-1'?><r>\xff</r>";
        let cases: [(&[u8], &str); 8] = [
            (b"  <r>a</r>\n", "a"),
            (b"<r>a\r\nb\rc</r>", "a\nb\nc"),
            (b"<r>a<!-- c -->b<?p i?><![CDATA[<c>]]></r>", "ab<c>"),
            (
                b"<r xmlns='u'>t1 <a>t2</a> &amp;&#x41;&#66;</r>",
                "t1 t2 &AB",
            ),
            (b"\xef\xbb\xbf<r>b</r>", "b"),
            (b"<r a='x'/>", ""),
            (b"<!DOCTYPE r SYSTEM 'r.dtd'><r>a</r>", "a"),
            (latin, "\u{ff}"),
        ];
        for (body, want) in cases {
            assert_eq!(
                read(body),
                (want.to_owned(), None),
                "{}",
                String::from_utf8_lossy(body)
            );
        }
        let wide = "<?xml version=\"1.0\" encoding=\"UTF-16\"?><r>a\u{1f600}</r>".encode_utf16();
        let little: Vec<u8> = wide.clone().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = wide.flat_map(u16::to_be_bytes).collect();
        for body in [
            little.clone(),
            big,
            [&[0xff, 0xfe], little.as_slice()].concat(),
        ] {
            assert_eq!(read(&body), ("a\u{1f600}".to_owned(), None));
        }
    }

    /// All of these, save the two with declared entities, are errors in libmodsecurity as well.
    #[test]
    fn what_is_not_well_formed_is_an_error_after_what_was_read() {
        let cases: [(&[u8], &str); 25] = [
            (b"", ""),
            (b"text", ""),
            (b"<r>a&foo;b</r>", "a"),
            (b"<!DOCTYPE r [<!ENTITY e 'ENT'>]><r>&e;</r>", ""),
            (
                b"<!DOCTYPE r [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><r>&e;z</r>",
                "",
            ),
            (b"<r>a<b></r>", "a"),
            (b"<r>a", "a"),
            (b"<r>a</r><s/>", "a"),
            (b"<r/>x", ""),
            (b"<r a='1' a='2'/>", ""),
            (b"<r>a&#0;</r>", "a"),
            (b"<r>a&#+65;</r>", "a"),
            (b"<r>a\x01</r>", "a"),
            (b"<r>a\xff</r>", "a"),
            (b"<r>]]></r>", "]]>"),
            (b"<r a=1/>", ""),
            (b"<r a='<'/>", ""),
            (b"<r a='&x;'/>", ""),
            (b"<1/>", ""),
            (b"<R>a</r>", "a"),
            (b"<r/><!DOCTYPE r>", ""),
            (b"<?xml version='1.0' x='y' encoding='UTF-7'?><r>a</r>", "a"),
            (b"<?xml encoding='UTF-8'?><r>a</r>", "a"),
            (b"<r><?xml version='1.0'?></r>", ""),
            (b"<?xml version='1.0' encoding='UTF-7'?><r>a</r>", "a"),
        ];
        for (body, want) in cases {
            let (text, error) = read(body);
            assert!(error.is_some(), "{}", String::from_utf8_lossy(body));
            assert_eq!(text, want, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn depth_nodes_and_attributes_are_limited() {
        let nested = |depth: usize| format!("{}{}", "<r>".repeat(depth), "</r>".repeat(depth));
        assert_eq!(read(nested(256).as_bytes()).1, None);
        assert_eq!(read(nested(257).as_bytes()).1, Some("nested too deep"));
        let wide = format!("<r>{}</r>", "<a/>".repeat(100_000));
        let too_many = Some("too many elements, attributes and texts");
        assert_eq!(read(wide.as_bytes()).1, too_many);
        let attributes: String = (0..257).map(|index| format!(" a{index}=''")).collect();
        let many = format!("<r{attributes}/>");
        assert_eq!(
            read(many.as_bytes()).1,
            Some("an element has too many attributes")
        );
    }
}
