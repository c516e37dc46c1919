//! The part of XPath 1.0 that rules use.

use super::{Attribute, Document, NONE};

/// A compiled expression: `/`, or steps of `/name` (child) and `//name` (descendant) from the
/// root, `*` for any name, the last of which may be `@name`, `@*` or `text()`.
///
/// Names are compared without their prefixes, whatever namespace these stand for: a superset of
/// what XPath selects, and no document can hide an element by another prefix.
///
/// ```
/// use clew_rules::body::{BodyLimits, xml::{Document, XPath}};
///
/// let mut document = Document::default();
/// document.read(b"<a><b c='1'>x</b>y</a>", &BodyLimits::default())?;
/// let mut values = Vec::new();
/// XPath::compile("//@*")?.values(&document, |value| values.push(value));
/// XPath::compile("/*")?.values(&document, |value| values.push(value));
/// assert_eq!(values, [b"1".as_slice(), b"xy"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XPath {
    steps: Vec<Step>,
    leaf: Leaf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// After `//`.
    descendant: bool,
    /// `None` for `*`.
    name: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Leaf {
    Element,
    Attribute(Step),
    Text(Step),
}

/// An expression outside of the supported part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "XPath {expression:?}: {what}; supported are paths from the root such as /*, //@*, //text(), \
     /a/b, //b/@c"
)]
pub struct XPathError {
    /// The expression.
    pub expression: String,
    /// What is not supported in it.
    pub what: &'static str,
}

/// Steps of an expression: each is a bit of a word.
const STEPS: usize = 32;

impl XPath {
    /// Compiles an expression.
    ///
    /// # Errors
    ///
    /// When it is relative, has predicates, functions other than `text()`, axes, `..`, `|`, or
    /// more than 32 steps.
    pub fn compile(expression: &str) -> Result<Self, XPathError> {
        parse(expression).map_err(|what| XPathError {
            expression: expression.to_owned(),
            what,
        })
    }

    /// Gives the string value of each node that it selects, in the order of the document; the
    /// values live as long as the document. One pass over its nodes.
    ///
    /// The values of nested elements (`//*`) overlap: together they come to at most the depth
    /// limit times the text.
    pub fn values<'d>(&self, document: &'d Document, mut found: impl FnMut(&'d [u8])) {
        match (self.steps.as_slice(), &self.leaf) {
            ([], Leaf::Element) if !document.elements.is_empty() => found(&document.text),
            ([], Leaf::Element) => {}
            (
                [
                    Step {
                        descendant: false,
                        name: None,
                    },
                ],
                Leaf::Element,
            ) => {
                document.elements.first().into_iter().for_each(|root| {
                    found(document.text(&root.text));
                });
            }
            (
                [],
                Leaf::Attribute(Step {
                    descendant: true,
                    name,
                }),
            ) => {
                for attribute in &document.attributes {
                    document.attribute(attribute, name.as_deref(), &mut found);
                }
            }
            (
                [],
                Leaf::Text(Step {
                    descendant: true, ..
                }),
            ) => {
                document
                    .texts
                    .iter()
                    .for_each(|text| found(document.text(&text.value)));
            }
            _ => self.walk(document, found),
        }
    }

    /// For each element the steps that lead to it, from those that lead to its parent.
    fn walk<'d>(&self, document: &'d Document, mut found: impl FnMut(&'d [u8])) {
        let whole = self.steps.len();
        let mut reached: Vec<Reached> = Vec::with_capacity(document.elements.len());
        for element in &document.elements {
            let parent = reached
                .get(element.parent as usize)
                .unwrap_or(&Reached::ROOT);
            let here = self.step(parent, document.word(&element.name));
            match &self.leaf {
                Leaf::Element if here.exactly >> whole & 1 == 1 => {
                    found(document.text(&element.text));
                }
                Leaf::Attribute(step) if here.leads_to(step, whole) => {
                    let range = element.attributes.start as usize..element.attributes.end as usize;
                    for attribute in &document.attributes[range] {
                        document.attribute(attribute, step.name.as_deref(), &mut found);
                    }
                }
                _ => {}
            }
            reached.push(here);
        }
        if let Leaf::Text(step) = &self.leaf {
            for text in &document.texts {
                let parent = reached.get(text.parent as usize);
                if parent.is_some_and(|parent| parent.leads_to(step, whole)) {
                    found(document.text(&text.value));
                }
            }
        }
    }

    fn step(&self, parent: &Reached, name: &[u8]) -> Reached {
        let mut exactly = 0;
        for (index, step) in self.steps.iter().enumerate() {
            let named = step.name.as_ref().is_none_or(|wanted| wanted == name);
            if named && parent.leads_to(step, index) {
                exactly |= 1 << (index + 1);
            }
        }
        Reached {
            exactly,
            above: parent.above | exactly,
        }
    }
}

/// Which numbers of steps lead to an element, and to it or one above it.
struct Reached {
    exactly: u64,
    above: u64,
}

impl Reached {
    /// The document, which no step leads to.
    const ROOT: Self = Self {
        exactly: 1,
        above: 1,
    };

    /// Whether `step` can be taken from here as the one after `before` steps.
    fn leads_to(&self, step: &Step, before: usize) -> bool {
        let from = if step.descendant {
            self.above
        } else {
            self.exactly
        };
        from >> before & 1 == 1
    }
}

impl Document {
    fn attribute<'d>(
        &'d self,
        attribute: &Attribute,
        name: Option<&[u8]>,
        found: &mut impl FnMut(&'d [u8]),
    ) {
        if name.is_none_or(|name| name == self.word(&attribute.name)) {
            found(self.word(&attribute.value));
        }
    }
}

const _: () = assert!(
    NONE == u32::MAX,
    "the root's parent is beyond every element"
);

fn parse(expression: &str) -> Result<XPath, &'static str> {
    let mut rest = expression.trim();
    let mut steps = Vec::new();
    if rest == "/" {
        let leaf = Leaf::Element;
        return Ok(XPath { steps, leaf });
    }
    while let Some(after) = rest.strip_prefix('/') {
        let (descendant, after) = match after.strip_prefix('/') {
            Some(after) => (true, after),
            None => (false, after),
        };
        let (test, after) = after.split_at(after.find('/').unwrap_or(after.len()));
        rest = after;
        let leaf = match test.strip_prefix('@') {
            Some(name) => Some(Leaf::Attribute(step(descendant, name)?)),
            None if test == "text()" => Some(Leaf::Text(step(descendant, "*")?)),
            None => None,
        };
        match leaf {
            Some(_) if !rest.is_empty() => return Err("a step after an attribute or text()"),
            Some(leaf) => return Ok(XPath { steps, leaf }),
            None => steps.push(step(descendant, test)?),
        }
        if steps.len() > STEPS {
            return Err("more than 32 steps");
        }
    }
    if steps.is_empty() {
        return Err("it does not start with /");
    }
    let leaf = Leaf::Element;
    Ok(XPath { steps, leaf })
}

fn step(descendant: bool, test: &str) -> Result<Step, &'static str> {
    let local = test.rsplit_once(':').map_or(test, |(_, local)| local);
    let name = match local {
        "*" => None,
        _ if test.contains("::") || !super::is_name(test.as_bytes()) => {
            return Err("a step that is neither a name nor *");
        }
        _ => Some(local.as_bytes().to_vec()),
    };
    Ok(Step { descendant, name })
}

#[cfg(test)]
mod tests {
    use super::super::BodyLimits;
    use super::*;

    fn values(expression: &str, body: &str) -> String {
        let mut document = Document::default();
        document
            .read(body.as_bytes(), &BodyLimits::default())
            .expect("valid");
        let mut shown = Vec::new();
        XPath::compile(expression)
            .expect("valid")
            .values(&document, |value| {
                shown.push(String::from_utf8_lossy(value))
            });
        shown.join("|")
    }

    /// Values read from libmodsecurity 3.0.9 for the same document.
    #[test]
    fn values_are_those_of_modsecurity() {
        let document = "<?xml version=\"1.0\"?><!-- c --><r x=\"1\" y:z=\"2\" xmlns:y=\"u\">\
             <a p=\"&lt;q&gt;&#39;\">t1 <b>t2</b> t3</a><![CDATA[<cd>]]><a p=\"2\"/>\
             tail &amp; &#x41;<?pi data?></r>";
        let cases = [
            ("/*", "t1 t2 t3<cd>tail & A"),
            ("/", "t1 t2 t3<cd>tail & A"),
            ("//@*", "1|2|<q>'|2"),
            ("//text()", "t1 |t2| t3|<cd>|tail & A"),
            ("//a", "t1 t2 t3|"),
            ("/r/a", "t1 t2 t3|"),
            ("/r/a/@p", "<q>'|2"),
            ("//a/@p", "<q>'|2"),
            ("//*", "t1 t2 t3<cd>tail & A|t1 t2 t3|t2|"),
            ("/r/*", "t1 t2 t3|"),
            ("/r/@x", "1"),
            ("/r/a/text()", "t1 | t3"),
            ("//@p", "<q>'|2"),
            ("/r//b", "t2"),
            ("/b", ""),
            ("/r/b", ""),
            ("//r/a/b", "t2"),
            ("//a//text()", "t1 |t2| t3"),
            ("//y:b", "t2"),
            ("//@z", "2"),
        ];
        for (expression, want) in cases {
            assert_eq!(values(expression, document), want, "{expression}");
        }
        assert_eq!(values("//@*", "<r a='x\r\n\ty&#10;z'/>"), "x  y\nz");
        assert_eq!(
            values("//a/b", "<a><c><a><b>1</b></a></c><b>2</b></a>"),
            "1|2"
        );
    }

    #[test]
    fn everything_else_is_refused() {
        let refused = [
            "",
            "r",
            "@x",
            "/r/a[1]",
            "//comment()",
            "/a/..",
            "/a | /b",
            "/child::a",
            "/a/",
            "//",
            "/@x/a",
            "/a b",
            "count(/a)",
            "/text()/a",
            "///a",
        ];
        for expression in refused {
            assert!(XPath::compile(expression).is_err(), "{expression}");
        }
        assert!(XPath::compile(&"/a".repeat(33)).is_err());
    }
}
