//! Benign requests, each in many variants. Headers that browsers repeat are repeated, which Clew gains by;
//! `GET, new headers` shows what is left without.

use std::ffi::CString;

/// Variants of each sample.
pub(crate) const VARIANTS: usize = 32;

/// One request.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) method: CString,
    pub(crate) target: CString,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// A kind of request, and the least ratio it is to reach at level 1.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) goal: Option<f64>,
    pub(crate) variants: Vec<Sample>,
}

const WORDS: [&str; 32] = [
    "morning", "river", "garden", "simple", "number", "window", "market", "yellow", "travel",
    "summer", "people", "little", "answer", "bridge", "letter", "music", "corner", "silver",
    "friend", "listen", "paper", "quiet", "winter", "apple", "ocean", "train", "early", "story",
    "green", "light", "voice", "table",
];

/// xorshift64*; words, not secrets.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.roll(WORDS.len())]
    }

    /// Sentences of about `bytes` bytes.
    fn prose(&mut self, bytes: usize, blank: &str) -> String {
        let mut text = String::new();
        while text.len() < bytes {
            text.push_str(self.word());
            let ends = self.roll(9) == 0;
            text.push_str(if ends { "." } else { "" });
            text.push_str(blank);
        }
        text
    }
}

/// All kinds, with the goals of the engine's comparison.
pub(crate) fn kinds() -> Vec<Kind> {
    let kind = |name, goal, make: fn(&mut Dice) -> Sample| Kind {
        name,
        goal: Some(goal),
        variants: (1..=VARIANTS as u64)
            .map(|nth| make(&mut Dice(nth * 0x9e37_79b9)))
            .collect(),
    };
    let mut all = vec![
        kind("GET, 10 headers", 100.0, |dice| get(dice, 2)),
        kind("POST, small form", 50.0, |dice| {
            let body = format!(
                "user={}&password={}{}",
                dice.word(),
                dice.word(),
                dice.roll(9999)
            );
            form(dice, body)
        }),
        kind("POST, 10 KB argument", 150.0, |dice| {
            let body = format!("text={}", dice.prose(10_000, "+"));
            form(dice, body)
        }),
        kind("form, 8 fields", 50.0, eight_fields),
        kind("GET, 20 cookies", 50.0, |dice| get(dice, 20)),
        kind("JSON, 4 KB", 50.0, |dice| json(dice, 32)),
        kind("JSON, 100 KB", 50.0, |dice| json(dice, 800)),
    ];
    all.push(mixed(&all));
    all.push(Kind {
        goal: None,
        ..kind("GET, new headers", 0.0, new_headers)
    });
    all
}

/// One of each but the largest, in turn.
fn mixed(kinds: &[Kind]) -> Kind {
    let small = &kinds[..kinds.len() - 1];
    let variants = (0..VARIANTS).map(|nth| small[nth % small.len()].variants[nth].clone());
    Kind {
        name: "mixed trace",
        goal: Some(50.0),
        variants: variants.collect(),
    }
}

fn sample(
    dice: &mut Dice,
    method: &str,
    target: &str,
    cookies: usize,
    kind: Option<&str>,
    body: impl Into<Vec<u8>>,
) -> Sample {
    let body = body.into();
    let cookies: Vec<String> = (0..cookies)
        .map(|nth| format!("{}{nth}={}{}", dice.word(), dice.word(), dice.roll(1000)))
        .collect();
    let referer = format!("https://www.example.com/{}", dice.word());
    let mut headers: Vec<(String, String)> = [
        ("Host", "www.example.com"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"),
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("Accept-Language", "en-US,en;q=0.5"),
        ("Accept-Encoding", "gzip, deflate, br"),
        ("Connection", "keep-alive"),
        ("Referer", &referer),
        ("Cookie", &cookies.join("; ")),
        ("Cache-Control", "max-age=0"),
        ("Upgrade-Insecure-Requests", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    if let Some(kind) = kind {
        headers.push(("Content-Type".to_owned(), kind.to_owned()));
        headers.push(("Content-Length".to_owned(), body.len().to_string()));
    }
    let text = |text: &str| CString::new(text).unwrap_or_default();
    Sample {
        method: text(method),
        target: text(target),
        headers,
        body,
    }
}

fn get(dice: &mut Dice, cookies: usize) -> Sample {
    let target = format!(
        "/shop/{}/{}?sort={}&page={}",
        dice.word(),
        dice.roll(1000),
        dice.word(),
        dice.roll(50)
    );
    sample(dice, "GET", &target, cookies, None, String::new())
}

/// As `get`, with headers that no other request has: nothing is gained by remembering them.
fn new_headers(dice: &mut Dice) -> Sample {
    let mut sample = get(dice, 2);
    let open = ["User-Agent", "Accept-Language", "Cache-Control", "Referer"];
    let headers = sample.headers.iter_mut();
    for (_, value) in headers.filter(|(name, _)| open.contains(&name.as_str())) {
        value.push_str(&format!("{}", dice.roll(1 << 30)));
    }
    sample
}

pub(crate) fn form(dice: &mut Dice, body: impl Into<Vec<u8>>) -> Sample {
    let kind = "application/x-www-form-urlencoded";
    sample(dice, "POST", "/api/v1/users", 2, Some(kind), body)
}

fn eight_fields(dice: &mut Dice) -> Sample {
    let comment = dice.prose(60, "+");
    let body = format!(
        "name={}+{}&email={}%40example.com&city={}&zip={}&street={}+Street+{}&phone=%2B49+30+{}&comment={comment}&newsletter=yes",
        dice.word(),
        dice.word(),
        dice.word(),
        dice.word(),
        10_000 + dice.roll(80_000),
        dice.word(),
        dice.roll(200),
        100_000 + dice.roll(800_000),
    );
    form(dice, body)
}

fn json(dice: &mut Dice, items: usize) -> Sample {
    let items: Vec<String> = (0..items)
        .map(|id| {
            format!(
                "{{\"id\":{id},\"name\":\"{} {}\",\"price\":{}.99,\"tags\":[\"{}\",\"{}\"],\"description\":\"A very nice {} to have at home\"}}",
                dice.word(),
                dice.word(),
                dice.roll(500),
                dice.word(),
                dice.word(),
                dice.word(),
            )
        })
        .collect();
    let body = format!("{{\"items\":[{}]}}", items.join(","));
    sample(
        dice,
        "POST",
        "/api/v1/orders",
        2,
        Some("application/json"),
        body,
    )
}
