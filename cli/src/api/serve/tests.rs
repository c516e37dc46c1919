//! Who is let in, and what they may cost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::*;
use crate::api::tests::{Answer, desk, exchange, request};
use crate::audit;
use crate::raw::AdminTable;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const BAN: &str = r#"{"source":"203.0.113.1","seconds":60}"#;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("authority")
}

/// Certificate and key, PEM.
fn issued(by: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("name");
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, by).expect("certificate");
    (certificate.pem(), key.serialize_pem())
}

fn serve(state: &Path, table: &str) -> SocketAddr {
    let table: AdminTable = toml::from_str(table).expect("table");
    let remote = Remote::check(&table).expect("checked");
    let sockets = Sockets::bind(state, remote.as_ref(), None).expect("sockets");
    let address = sockets.remote.as_ref().expect("TCP").0.local_addr();
    sockets.serve(desk(state).into()).expect("thread");
    address.expect("address")
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connection");
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).expect("timeout");
    stream
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("file");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, mode).expect("mode");
}

#[test]
fn a_token_is_needed_on_loopback_and_named_in_the_audit_log() {
    let state = tempfile::tempdir().expect("directory");
    let tokens = state.path().join("tokens");
    write(&tokens, &format!("ops {TOKEN}\n"));
    let table = format!("listen = \"127.0.0.1:0\"\ntoken_file = {tokens:?}");
    let address = serve(state.path(), &table);
    let with = |authorization: &str| {
        let request = request("POST", "/v1/bans", authorization, BAN);
        exchange(connect(address), &request).expect("answer").status
    };
    assert_eq!(with(""), 401);
    assert_eq!(with("Authorization: Bearer nonsense\r\n"), 401);
    assert_eq!(with(&format!("Authorization: Bearer {TOKEN}\r\n")), 200);
    let entries = audit::read(state.path(), 10).expect("log");
    assert_eq!(entries.len(), 1);
    let name = "ops".to_owned();
    assert_eq!(entries[0].actor, Actor::Token { name });
    assert!(entries[0].from.starts_with("127.0.0.1:"), "{entries:?}");
    let text = std::fs::read_to_string(state.path().join("audit.jsonl")).expect("log");
    assert!(!text.contains(TOKEN));
}

/// By a client that knows the authority, with a certificate or without.
fn by_tls(
    address: SocketAddr,
    authority: &Authority,
    own: Option<&(String, String)>,
) -> Option<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            use rustls::pki_types::pem::PemObject;
            let chain = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes());
            let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes());
            let chain = vec![chain.expect("certificate")];
            builder
                .with_client_auth_cert(chain, key.expect("key"))
                .expect("client")
        }
    };
    let name = ServerName::try_from("localhost").expect("name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("client");
    let stream = StreamOwned::new(connection, connect(address));
    exchange(stream, &request("POST", "/v1/bans", "", BAN))
}

#[test]
fn certificates_of_the_authorities_are_needed_and_named() {
    let state = tempfile::tempdir().expect("directory");
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let (certificate, key) = issued(&ours, "clew");
    let at = |name: &str| state.path().join(name);
    write(&at("certificate"), &certificate);
    write(&at("key"), &key);
    write(&at("authorities"), &ours.pem());
    let table = format!(
        "listen = \"127.0.0.1:0\"\ntls = {{ certificate = {:?}, key = {:?}, client_authorities = {:?} }}",
        at("certificate"),
        at("key"),
        at("authorities")
    );
    let address = serve(state.path(), &table);
    assert!(by_tls(address, &ours, None).is_none());
    assert!(by_tls(address, &ours, Some(&issued(&theirs, "ops"))).is_none());
    let plain = request("GET", "/v1/status", "", "");
    assert!(exchange(connect(address), &plain).is_none_or(|it| it.status != 200));
    let answer = by_tls(address, &ours, Some(&issued(&ours, "ops"))).expect("answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let entries = audit::read(state.path(), 10).expect("log");
    assert_eq!(entries.len(), 1);
    let Actor::Certificate { subject } = &entries[0].actor else {
        panic!("{entries:?}");
    };
    assert!(subject.contains("CN=ops"), "{subject}");
}

#[test]
fn hostile_requests_cost_little_and_the_next_is_answered() {
    let state = tempfile::tempdir().expect("directory");
    let sockets = Sockets::bind(state.path(), None, None).expect("sockets");
    let socket = sockets.serve(desk(state.path()).into()).expect("thread");
    let send = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(&socket).expect("connection");
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).expect("timeout");
        // It may be closed before all of it is written.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let endless = format!(
        "GET /v1/status HTTP/1.1\r\nHost: x\r\nA: {}",
        "a".repeat(1 << 20)
    );
    let fields = "A: b\r\n".repeat(1000);
    let large = "x".repeat(64 * 1024);
    for (request, expected) in [
        (endless, "431"),
        (format!("GET / HTTP/1.1\r\n{fields}\r\n"), "431"),
        ("\0\u{1}\u{2}nonsense\r\n\r\n".to_owned(), "400"),
        (request("POST", "/v1/bans", "", &large), "413"),
        (
            request("GET", &format!("/{}", "a".repeat(1 << 16)), "", ""),
            "431",
        ),
    ] {
        let answer = send(request.as_bytes());
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert_eq!(status, expected, "{answer}");
    }
    let answer = send(request("GET", "/v1/status", "", "").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn no_more_than_so_many_are_served_at_a_time() {
    let state = tempfile::tempdir().expect("directory");
    let sockets = Sockets::bind(state.path(), None, None).expect("sockets");
    let socket = sockets.serve(desk(state.path()).into()).expect("thread");
    let silent: Vec<_> = (0..CONNECTIONS)
        .map(|_| UnixStream::connect(&socket).expect("connection"))
        .collect();
    let mut next = UnixStream::connect(&socket).expect("connection");
    let request = request("GET", "/v1/status", "", "");
    next.write_all(request.as_bytes()).expect("sent");
    let soon = Some(Duration::from_millis(300));
    next.set_read_timeout(soon).expect("timeout");
    assert!(next.read(&mut [0; 16]).is_err(), "it has not waited");
    drop(silent);
    let patience = Some(Duration::from_secs(60));
    next.set_read_timeout(patience).expect("timeout");
    let mut answer = [0; 12];
    next.read_exact(&mut answer).expect("answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[test]
fn whoever_sends_nothing_is_closed() {
    let state = tempfile::tempdir().expect("directory");
    let sockets = Sockets::bind(state.path(), None, None).expect("sockets");
    let socket = sockets.serve(desk(state.path()).into()).expect("thread");
    let patience = Some(HEAD_DEADLINE + Duration::from_secs(60));
    let begun = ["", "GET /v1/status HTTP/1.1\r\nHost:"].map(|text| {
        let mut stream = UnixStream::connect(&socket).expect("connection");
        stream.set_read_timeout(patience).expect("timeout");
        stream.write_all(text.as_bytes()).expect("sent");
        (text, stream)
    });
    for (text, mut stream) in begun {
        let read = stream.read_to_end(&mut Vec::new());
        // Closed, with a word on why or without; a read that times out is an error of another kind.
        let is_late = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        assert!(!read.as_ref().is_err_and(is_late), "{text}: {read:?}");
    }
}
