//! A vulnerable service on axum: requests are read by the runtime's threads, processes started by
//! its blocking pool.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;
use std::{env, fs, io};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path as Segment, Query, State};
use axum::http::{HeaderName, StatusCode, header::CONTENT_TYPE};
use axum::routing::{get, post};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::spawn_blocking;

type Parameters = Query<HashMap<String, String>>;
type Answer = (StatusCode, [(HeaderName, &'static str); 1], Bytes);

const BODY_LIMIT_BYTES: usize = 8 << 20;

static DIRECTORY: LazyLock<PathBuf> =
    LazyLock::new(|| env::var_os("DIR").expect("DIR is not set").into());

#[tokio::main]
async fn main() -> io::Result<()> {
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok());
    let address = (Ipv4Addr::LOCALHOST, port.expect("PORT is not a port"));
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).build_http();
    let routes = Router::new()
        .route("/orders", get(orders))
        .route("/ping", get(ping))
        .route("/render", get(render))
        .route("/fetch", get(fetch))
        .route("/file", get(file))
        .route("/upload", post(upload))
        .route("/uploads/{name}", get(uploaded))
        .route("/convert", get(convert))
        .route("/later", get(later))
        .with_state(client);
    axum::serve(tokio::net::TcpListener::bind(address).await?, routes).await
}

async fn orders(Query(query): Parameters) -> String {
    tokio::time::sleep(Duration::from_millis(4)).await;
    format!("orders {}\n", parameter(&query, "n"))
}

async fn ping(Query(query): Parameters) -> Answer {
    let command = format!("echo ping {}", reversible(&query, "host"));
    blocking(move || output("sh", &["-c", &command])).await
}

async fn render(Query(query): Parameters) -> Answer {
    let template = reversible(&query, "tpl");
    blocking(move || {
        let mut templates = minijinja::Environment::new();
        templates.add_function("run", |program: String, argument: String| {
            String::from_utf8_lossy(&output(&program, &[&argument])).into_owned()
        });
        match templates.render_str(&template, ()) {
            Ok(text) => text.into_bytes(),
            Err(error) => format!("{error}\n").into_bytes(),
        }
    })
    .await
}

async fn fetch(
    State(client): State<Client<HttpConnector, Body>>,
    Query(query): Parameters,
) -> Answer {
    let failed = text(StatusCode::BAD_GATEWAY, "no answer\n");
    let Ok(url) = parameter(&query, "url").parse() else {
        return failed;
    };
    match client.get(url).await {
        Ok(response) if response.status() == StatusCode::OK => {
            match to_bytes(Body::new(response.into_body()), BODY_LIMIT_BYTES).await {
                Ok(body) => text(StatusCode::OK, body),
                Err(_) => failed,
            }
        }
        _ => failed,
    }
}

async fn file(Query(query): Parameters) -> Answer {
    let path = format!(
        "{}/public/{}",
        DIRECTORY.display(),
        parameter(&query, "path")
    );
    match spawn_blocking(|| fs::read(path)).await {
        Ok(Ok(body)) => text(StatusCode::OK, body),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

async fn upload(Query(query): Parameters, body: Bytes) -> Answer {
    let path = upload_path(parameter(&query, "name"));
    blocking(move || match store(&path, &body) {
        Ok(()) => b"stored\n".to_vec(),
        Err(error) => format!("{error}\n").into_bytes(),
    })
    .await
}

async fn uploaded(Segment(name): Segment<String>, Query(query): Parameters) -> Answer {
    let program = upload_path(&name);
    let command = parameter(&query, "cmd").to_owned();
    blocking(move || output(program, &[&command])).await
}

async fn convert(Query(query): Parameters) -> Answer {
    let number = parameter(&query, "text").to_owned();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return text(StatusCode::OK, "not a number\n");
    }
    blocking(move || output("/usr/bin/factor", &[&number])).await
}

async fn later(Query(query): Parameters) -> &'static str {
    let command = parameter(&query, "cmd").to_owned();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        blocking(move || output("sh", &["-c", &command])).await
    });
    "later\n"
}

async fn blocking(work: impl FnOnce() -> Vec<u8> + Send + 'static) -> Answer {
    match spawn_blocking(work).await {
        Ok(body) => text(StatusCode::OK, body),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    (status, [(CONTENT_TYPE, "text/plain")], body.into())
}

/// What a program prints; nothing if it cannot be started.
fn output(program: impl AsRef<OsStr>, arguments: &[&str]) -> Vec<u8> {
    let done = Command::new(program)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output();
    done.map(|done| done.stdout).unwrap_or_default()
}

fn store(path: &Path, body: &[u8]) -> io::Result<()> {
    fs::write(path, body)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn upload_path(name: &str) -> PathBuf {
    let name = Path::new(name).file_name().unwrap_or_default();
    DIRECTORY.join("uploads").join(name)
}

fn parameter<'q>(query: &'q HashMap<String, String>, name: &str) -> &'q str {
    query.get(name).map_or("", String::as_str)
}

/// A value that may have come backwards.
fn reversible(query: &HashMap<String, String>, name: &str) -> String {
    let value = parameter(query, name);
    if parameter(query, "r") == "1" {
        value.chars().rev().collect()
    } else {
        value.to_owned()
    }
}
