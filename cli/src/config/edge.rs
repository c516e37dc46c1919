//! The edge's part of the configuration: where clients come in, where requests go, what is shown and how much is taken.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clew_proxy::{
    ClientCertificates, HealthCheck, Identity, Limits, ListenerConfig, Page, Pages, ServiceConfig,
    TlsConfig, TlsVersion, UpstreamTls,
};

use super::Overrides;
use crate::raw;

pub(super) fn listeners(raw: &raw::Root, overrides: &Overrides) -> Result<Vec<ListenerConfig>> {
    if raw.listener.is_empty() || overrides.listen.is_some() {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 8000));
        let address = overrides.listen.unwrap_or(default);
        return Ok(vec![ListenerConfig {
            address,
            tls: None,
            proxy_protocol: false,
        }]);
    }
    let listener = |raw: &raw::Listener| ListenerConfig {
        address: raw.address,
        tls: raw.tls.as_ref().map(tls),
        proxy_protocol: raw.proxy_protocol,
    };
    if raw.listener.iter().any(|it| it.proxy_protocol) && raw.trust.hops.is_empty() {
        bail!(
            "listener.proxy_protocol needs trust.hops: nobody's PROXY header is believed otherwise"
        );
    }
    Ok(raw.listener.iter().map(listener).collect())
}

fn tls(raw: &raw::Tls) -> TlsConfig {
    let clients = raw.clients.as_ref().map(|it| ClientCertificates {
        authorities: it.authorities.clone(),
        required: it.required,
    });
    TlsConfig {
        minimum: match raw.minimum {
            raw::TlsVersion::Tls12 => TlsVersion::Tls12,
            raw::TlsVersion::Tls13 => TlsVersion::Tls13,
        },
        clients,
        ..TlsConfig::new(&raw.certificate, &raw.key)
    }
}

pub(super) fn services(raw: &raw::Root, overrides: &Overrides) -> Result<Vec<ServiceConfig>> {
    if !overrides.upstreams.is_empty() {
        return Ok(vec![ServiceConfig::new(
            "default",
            overrides.upstreams.clone(),
        )]);
    }
    ensure!(
        !raw.service.is_empty(),
        "no backend: say --upstream ADDRESS:PORT, or give a [[service]] in the configuration"
    );
    let mut names = std::collections::HashSet::new();
    for service in &raw.service {
        ensure!(
            !service.upstreams.is_empty(),
            "service {:?} has no upstreams",
            service.name
        );
        ensure!(
            service
                .tls
                .as_ref()
                .is_none_or(|tls| !tls.server_name.is_empty()),
            "service {:?}: tls.server_name is empty: nobody's certificate could be verified",
            service.name
        );
        ensure!(
            names.insert(&service.name),
            "two services are named {:?}",
            service.name
        );
    }
    Ok(raw.service.iter().map(service).collect())
}

fn service(raw: &raw::Service) -> ServiceConfig {
    let seconds = Duration::from_secs;
    let mut service = ServiceConfig::new(raw.name.clone(), raw.upstreams.clone());
    service.hosts = raw
        .hosts
        .iter()
        .map(|host| host.to_ascii_lowercase())
        .collect();
    service.tls = raw.tls.as_ref().map(|tls| UpstreamTls {
        server_name: tls.server_name.clone(),
        authorities: tls.authorities.clone(),
        identity: tls.identity.as_ref().map(|it| Identity {
            certificate: it.certificate.clone(),
            key: it.key.clone(),
        }),
    });
    service.http2 = raw.http == raw::HttpVersion::Http2;
    service.health_check = raw.health_check_seconds.map(|span| HealthCheck {
        interval: seconds(span.max(1)),
    });
    service.health_path = raw.health_check_path.clone();
    service.connect_timeout = seconds(raw.connect_timeout_seconds);
    service.read_timeout = seconds(raw.read_timeout_seconds);
    service.write_timeout = seconds(raw.write_timeout_seconds);
    service.idle_timeout = raw.idle_timeout_seconds.map(seconds);
    service
}

pub(super) fn limits(raw: &raw::LimitsTable) -> Result<Limits> {
    let limits = Limits {
        connections: raw.connections,
        head_bytes: raw.head_bytes,
        headers: raw.headers,
        body_bytes: raw.body_bytes,
        head_deadline: Duration::from_secs(raw.head_seconds),
        body_deadline: Duration::from_secs(raw.body_seconds),
        keepalive: Duration::from_secs(raw.keepalive_seconds),
        write_deadline: Duration::from_secs(raw.write_seconds),
        h2_streams: raw.h2_streams,
        bans: raw.bans,
        ..Limits::default()
    };
    ensure!(
        limits.connections > 0,
        "limits.connections must be at least 1"
    );
    ensure!(
        limits.head_bytes >= 1024,
        "limits.head_bytes must be at least 1024"
    );
    Ok(limits)
}

/// Bytes of a page at most.
const PAGE_BYTES: u64 = 64 * 1024;

pub(super) fn pages(raw: &raw::Pages) -> Result<Pages> {
    let page = |path: &Option<PathBuf>| -> Result<Option<Page>> {
        let Some(path) = path else { return Ok(None) };
        let shown = path.display();
        let file =
            std::fs::File::open(path).with_context(|| format!("cannot read the page {shown}"))?;
        let mut text = String::new();
        file.take(PAGE_BYTES + 1).read_to_string(&mut text)?;
        ensure!(
            text.len() as u64 <= PAGE_BYTES,
            "the page {shown} is longer than {PAGE_BYTES} bytes"
        );
        let page = Page::parse(&text).map_err(|name| {
            anyhow!("{shown}: {{{{{name}}}}} is none of request_id, status, sentence")
        })?;
        Ok(Some(page))
    };
    Ok(Pages {
        blocked_html: page(&raw.blocked_html)?,
        blocked_json: page(&raw.blocked_json)?,
        failed_html: page(&raw.failed_html)?,
        failed_json: page(&raw.failed_json)?,
    })
}
