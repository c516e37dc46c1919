//! Benign requests as browsers and API clients send them, made of what people write: prose with operators of the shell,
//! code, Markdown, addresses, paths. Seeded, so that each run sees the same.

use fastrand::Rng;

const AGENTS: &[&str] = &[
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "curl/8.7.1",
    "python-requests/2.32.3",
    "okhttp/4.12.0",
    "PostmanRuntime/7.39.0",
    "git/2.45.2",
    "Go-http-client/2.0",
    "Wget/1.24.5",
    "kube-probe/1.30",
    "Prometheus/2.53.0",
];

const PATHS: &[&str] = &[
    "/",
    "/index.html",
    "/index.php",
    "/search",
    "/api/v1/users/42",
    "/api/v2/orders",
    "/wp-admin/admin-ajax.php",
    "/static/app.3f2a9c.js",
    "/img/logo@2x.png",
    "/org/repo.git/info/refs",
    "/docs/etc/hosts-file-explained",
    "/blog/2025/01/cat-vs.-dog",
    "/.well-known/openid-configuration",
    "/a/b/c.jsp",
    "/compare/v1.0...v1.1",
    "/~user/",
    "/files/report%20(final).pdf",
    "/wiki/Caf%C3%A9",
    "/graphql",
    "/socket.io/",
    "/cgi-bin/status",
    "/a;jsessionid=1F2A3B",
    "/@scope%2fpackage",
    "/download/windows/win-x64.zip",
    "/proc/steps",
    "/shell-scripting-guide",
    "/environment",
];

const WORDS: &[&str] = &[
    "cat",
    "dog",
    "id",
    "host",
    "the",
    "a",
    "head",
    "tail",
    "more",
    "less",
    "find",
    "sort",
    "file",
    "type",
    "who",
    "set",
    "Tom",
    "Jerry",
    "R&D",
    "AT&T",
    "salt",
    "pepper",
    "price",
    "env",
    "name",
    "node",
    "python",
    "bash",
    "curl",
    "php",
    "java",
    "jndi",
    "log4j",
    "shell",
    "echo",
    "ping",
    "sleep",
    "touch",
    "move",
    "copy",
    "date",
    "time",
    "user",
    "root",
    "admin",
    "password",
    "passwd",
    "script",
    "select",
    "from",
    "where",
    "order",
    "by",
    "union",
    "drop",
    "table",
    "Grüße",
    "naïve",
    "日本語",
    "привет",
    "😀",
    "C++",
    "C#",
    "50%",
    "100€",
    "$5",
    "§3",
    "e-mail",
    "it's",
    "don't",
    "\"quoted\"",
    "(brackets)",
    "[list]",
    "{braces}",
    "http://example.com/a?b=c",
    "https://docs.rs/tokio",
    "10.0.0.1",
    "192.168.1.254",
    "/etc/hosts",
    "/usr/bin/env",
    "C:\\Users\\me",
    "../up",
    "./here",
    "a.b.c",
    "x=1",
    "1,234.56",
    "12:30",
    "2025-01-31",
];

const OPERATORS: &[&str] = &[
    "; ", " & ", " | ", " && ", ", ", ". ", " - ", ": ", "\n", "\r\n", "? ", "! ", " / ", " > ",
    ";", "&", "|",
];

const TEXTS: &[&str] = &[
    "Dear team;\nplease find attached the files; cat pictures included.\nBest & many thanks",
    "| tool | use |\n|------|-----|\n| curl | requests |\n| cat | files |",
    "Use `cat file` and `curl` to read; `id` is a column.",
    "function f(a, b) { return a && b || c; }\n$(document).ready(function () { $('#id').show(); });",
    "SELECT id, name FROM users WHERE a = 'b' ORDER BY id; -- all of them",
    "import x from \"../../lib/x\";\nconst s = `Hello ${name}, ${total > 5 ? `${total} items` : 'few'}`;",
    "The address 169.254.169.254 is link-local; metadata.google.internal is a name for it.",
    "How do I change my shell in /etc/passwd? I tried chsh -s /bin/zsh; it says PAM: failure",
    "def f(x):\n    return [y for y in x if y & 1 | 2]\n",
    "#include <stdio.h>\nint main() { printf(\"%d\\n\", 1 << 3); return 0; }",
    "<p>Hello &amp; welcome</p><img src=\"../img/a.png\"><a href=\"/a?b=1&c=2\">x</a>",
    "{{ user.name }} and ${user.name} and #{user.name} and %{user.name} and <%= user.name %>",
    "Subject: hello\nFrom: me\nTo: you\n\nSome text",
    "export PATH=\"${HOME:-/root}/bin:$PATH\"",
    "Wait... what... no... really?...",
    "a -> b; b -> c & d | e > f < g",
    "Log4Shell (CVE-2021-44228) is a flaw in JNDI lookups of Log4j; see https://logging.apache.org/",
    "Order #12345; ship to: 5 Main St; call +1 (555) 010-9999 & leave a note",
    "Rock & roll; jazz | blues && soul; head & shoulders; file & rank",
    "key1=value1;key2=value2;path=/;domain=.example.com",
    "Regex: ^[a-z]+(?:\\.[a-z]+)*$ matches a.b.c; {2,5} repeats",
    "C:\\Program Files\\App\\app.exe /silent; D:\\data\\x.txt",
    "Nginx: location ~ \\.php$ { fastcgi_pass unix:/run/php.sock; }",
    "2 > 1; 1 < 2 && 3 >= 3 || !x",
];

/// One request.
pub(crate) fn request(random: &mut Rng) -> Vec<u8> {
    match random.u32(0..10) {
        0..4 => get(random),
        4..6 => form(random),
        6..8 => json(random),
        8 => upload(random),
        _ => xml(random),
    }
}

fn one<'l>(random: &mut Rng, list: &[&'l str]) -> &'l str {
    list[random.usize(..list.len())]
}

/// Words with what stands between them; or one of the texts.
fn text(random: &mut Rng) -> String {
    if random.u32(0..4) == 0 {
        return one(random, TEXTS).to_owned();
    }
    let mut text = one(random, WORDS).to_owned();
    for _ in 0..random.u32(0..12) {
        text.push_str(if random.u32(0..3) == 0 {
            one(random, OPERATORS)
        } else {
            " "
        });
        text.push_str(one(random, WORDS));
    }
    text
}

fn head(random: &mut Rng, method: &str, target: &str) -> String {
    let agent = one(random, AGENTS);
    let token = random.u64(..);
    let mut head = format!(
        "{method} {target} HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: {agent}\r\nAccept: */*\r\n"
    );
    if random.bool() {
        let seen = encoded(&text(random));
        head.push_str(&format!(
            "Cookie: session={token:x}; lang=en-GB; _ga=GA1.2.{token}; seen={seen}\r\n"
        ));
    }
    if random.bool() {
        head.push_str(&format!(
            "Referer: https://www.example.com/search?q={}\r\n",
            encoded(&text(random))
        ));
    }
    if random.u32(0..8) == 0 {
        head.push_str("Range: bytes=0-1023\r\nX-Forwarded-For: 203.0.113.5, 10.0.0.1\r\nX-Requested-With: XMLHttpRequest\r\n");
    }
    head
}

fn get(random: &mut Rng) -> Vec<u8> {
    let mut target = one(random, PATHS).to_owned();
    let mut mark = '?';
    for _ in 0..random.u32(0..4) {
        let name = one(
            random,
            &[
                "q",
                "page",
                "sort",
                "filter",
                "redirect",
                "id",
                "fields",
                "utm_source",
            ],
        );
        target.push_str(&format!("{mark}{name}={}", encoded(&text(random))));
        mark = '&';
    }
    format!("{}\r\n", head(random, "GET", &target)).into_bytes()
}

fn with_body(random: &mut Rng, kind: &str, body: &str) -> Vec<u8> {
    let head = head(random, "POST", "/post");
    let length = body.len();
    format!("{head}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn form(random: &mut Rng) -> Vec<u8> {
    let fields = ["name", "comment", "_token", "email"]
        .map(|name| format!("{name}={}", encoded(&text(random))));
    with_body(
        random,
        "application/x-www-form-urlencoded",
        &fields.join("&"),
    )
}

fn json(random: &mut Rng) -> Vec<u8> {
    let value = serde_json::json!({
        "id": random.u32(..), "title": text(random), "tags": [text(random), text(random)],
        "nested": { "body": text(random), "url": "https://example.com/a/../b", "ok": true, "none": null },
    });
    with_body(random, "application/json", &value.to_string())
}

fn xml(random: &mut Rng) -> Vec<u8> {
    let escape = |text: String| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('"', "&quot;")
    };
    let (a, b) = (escape(text(random)), escape(text(random)));
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><entry title=\"{a}\"><p>{b}</p></entry>"
    );
    with_body(random, "application/xml", &body)
}

fn upload(random: &mut Rng) -> Vec<u8> {
    let name = one(
        random,
        &[
            "photo.jpg",
            "Report (final).pdf",
            "data.csv",
            "archive.tar.gz",
            "notes.txt",
            "Ünïcode.docx",
            "a.b.c.png",
            "script.py",
            "styles.css",
        ],
    );
    let body = format!(
        "--x1y2\r\nContent-Disposition: form-data; name=\"comment\"\r\n\r\n{}\r\n--x1y2\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n{}\r\n--x1y2--\r\n",
        text(random).replace('\n', "\r\n").replace("\r\r", "\r"),
        text(random),
    );
    with_body(random, "multipart/form-data; boundary=x1y2", &body)
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
