//! Ways to spell a path: encoded slashes, dot segments, parameters, overlong UTF-8, `%u`, null
//! bytes.

use anyhow::{Result, ensure};

use crate::guarded;
use crate::nginx::{Nginx, SECRET};
use crate::stage::Client;

const PATHS: [&str; 40] = [
    "/.git/config",
    "/.%67it/config",
    "/.git%2fconfig",
    "/.git%2Fconfig",
    "/%2egit/config",
    "/%2Egit%2fconfi%67",
    "//.git//config",
    "/.git///config",
    "/./.git/config",
    "/.git/./config",
    "/.git/%2e/config",
    "/.git%2f.%2fconfig",
    "/public/../.git/config",
    "/public/..%2f.git/config",
    "/public/%2e%2e/.git/config",
    "/public/.%2e/.git/config",
    "/public/%2e./.git/config",
    "/public/%2e%2e%2f.git%2fconfig",
    "/public/x/../../.git/config",
    "/public//../.git/config",
    "/public/..//.git/config",
    "/.git/x/../config",
    "/.git/config?x=1",
    "/.git/config#x",
    "/.git/config%3fx",
    "/.git/config;x=1",
    "/.git;x=1/config",
    "/public/..;/.git/config",
    "/public/..;x=1/.git/config",
    "/.git/config%00",
    "/.git/config%00.html",
    "/public/..%00/.git/config",
    "/public/%c0%ae%c0%ae/.git/config",
    "/public/%c0%ae%c0%ae%c0%af.git%c0%afconfig",
    "/public/%e0%80%ae%e0%80%ae/.git/config",
    "/public/%u002e%u002e/.git/config",
    "/public/%u002e%u002e%u002f.git%u002fconfig",
    "/public/..%5c.git%5cconfig",
    "/public/%252e%252e/.git/config",
    "http://test/public/../.git/config",
];

/// Each spelling that nginx takes for the file, and each that climbs at all, is refused.
pub(crate) fn no_spelling_of_a_path_hides_a_file() -> Result<()> {
    let nginx = Nginx::start()?;
    let stage = guarded(&nginx)?;
    let (mut acted, mut wrong) = (0, Vec::new());
    for path in PATHS {
        let direct = Client::of(nginx.address())?.get(path)?;
        let is_file = direct.body.contains(SECRET);
        acted += usize::from(is_file);
        let through = Client::of(stage.address)?.get(path)?;
        let is_refused = matches!(through.status, 400 | 403);
        let climbs = path.contains("..") || path.contains("ae") || path.contains("2e%");
        if through.body.contains(SECRET) || (is_file || climbs) && !is_refused {
            wrong.push(format!(
                "{path}: nginx {}, clew {}",
                direct.status, through.status
            ));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    ensure!(acted >= 20, "nginx took {acted} of them for the file");
    Ok(())
}

const ARGUMENTS: [&str; 16] = [
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "%2Fetc/./passwd",
    "..%2f..%2fetc%2fpasswd",
    "../../etc/passwd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..;/..;/etc/passwd",
    "/etc/passwd%00",
    "/etc/passwd%00.png",
    "%c0%ae%c0%ae/etc/passwd",
    "..%c0%afetc%c0%afpasswd",
    "%u002e%u002e%u002fetc%u002fpasswd",
    "%252e%252e%252fetc%252fpasswd",
    "/etc//passwd",
    "/x/../etc/passwd",
    "/%65tc/%70asswd",
];

pub(crate) fn no_spelling_of_an_argument_hides_a_file() -> Result<()> {
    let nginx = Nginx::start()?;
    let stage = guarded(&nginx)?;
    let mut wrong = Vec::new();
    for argument in ARGUMENTS {
        let mut client = Client::of(stage.address)?;
        let get = client
            .get(&format!("/public/page.html?file={argument}"))?
            .status;
        let body = format!("file={argument}");
        client.send(&format!(
            "POST /public/page.html HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
            body.len()
        ))?;
        let post = client.response()?.status;
        if !matches!((get, post), (400 | 403, 403)) {
            wrong.push(format!("{argument}: GET {get}, POST {post}"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

pub(crate) fn ordinary_requests_pass() -> Result<()> {
    let nginx = Nginx::start()?;
    let stage = guarded(&nginx)?;
    for path in [
        "/public/page.html",
        "/public/page.html?name=page.html&lang=en",
        "/public/%70age.html",
    ] {
        let mut client = Client::of(stage.address)?;
        client.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n"
        ))?;
        let response = client.response()?;
        ensure!(
            response.status == 200 && response.body == "fine",
            "{path}: {}",
            response.status
        );
    }
    // As bare as the requests of the other tests.
    ensure!(
        Client::of(stage.address)?
            .get("/public/page.html?file=a")?
            .status
            == 200
    );
    Ok(())
}
