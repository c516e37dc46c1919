//! The sensor's part of the configuration, and what requests may do: the allow list, what packs say, what was learned.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clew_correlator::profile::Profile;
use clew_proxy::ServiceConfig;
use clew_sensor::{ConnectRule, ExecRule, FileRule, Mode, Policy, Watch};

use super::{Overrides, SensorConfiguration};
use crate::raw;

pub(super) fn sensor(
    raw: &raw::Root,
    overrides: &Overrides,
    services: &[ServiceConfig],
    state: &Path,
    packs: &clew_packs::policy::Policy,
) -> Result<SensorConfiguration> {
    let table = &raw.sensor;
    let mode = overrides.mode.unwrap_or(table.mode.into());
    let profile = table
        .profile
        .clone()
        .unwrap_or_else(|| state.join("profile.json"));
    let mut policy = allow_list(raw, services)?;
    policy.trampolines = table.trampolines.clone();
    // A backend on the command line is none of the file's services.
    if overrides.upstreams.is_empty() {
        policy.files = watched(raw)?;
    }
    add_packs(&mut policy, packs, services);
    if mode == Mode::Enforce && profile.exists() {
        add_profile(&mut policy, &profile, services)?;
    }
    Ok(SensorConfiguration {
        mode,
        fallback_mode: table.fallback_mode.into(),
        heartbeat_limit: Duration::from_secs(table.heartbeat_seconds.max(1)),
        hold_span: Duration::from_millis(table.hold_ms),
        redact_environment: table.redact_environment,
        policy,
        profile,
        cgroup: table.cgroup.clone(),
        keep_programs: table.on_stop == raw::OnStop::Keep,
        trace_opens: table.trace_opens,
    })
}

fn allow_list(raw: &raw::Root, services: &[ServiceConfig]) -> Result<Policy> {
    let index = |name: &Option<String>| match name {
        None => Ok(None),
        Some(name) => match services.iter().position(|service| service.name == *name) {
            Some(index) => Ok(Some(index)),
            None => bail!("allow rule for service {name:?}, which is not configured"),
        },
    };
    let mut policy = Policy::default();
    for rule in &raw.allow.exec {
        let arguments = rule.arguments.as_ref();
        policy.exec.push(ExecRule {
            service: index(&rule.service)?,
            path: rule.path.clone(),
            arguments: arguments.map(|it| it.iter().map(|a| a.clone().into_bytes()).collect()),
        });
    }
    for rule in &raw.allow.connect {
        policy.connect.push(ConnectRule {
            service: index(&rule.service)?,
            address: rule.network.network(),
            prefix_len: rule.network.prefix_len(),
            port: rule.port,
            transport: rule.transport,
        });
    }
    Ok(policy)
}

/// The files that are watched, service by service.
fn watched(raw: &raw::Root) -> Result<Vec<FileRule>> {
    let mut rules = Vec::new();
    for (service, table) in raw.service.iter().enumerate() {
        let files = &table.files;
        let root = if files.refuse_writes {
            Watch::Close
        } else {
            Watch::Remember
        };
        let secret = files.protect.iter().map(|path| (path, Watch::Protect));
        for (path, watch) in secret.chain(files.web_root.iter().map(|path| (path, root))) {
            ensure!(
                path.is_absolute(),
                "service {:?}: {} is watched by its whole path; write it out from /",
                table.name,
                path.display()
            );
            let path = path.clone();
            rules.push(FileRule {
                service,
                path,
                watch,
            });
        }
        ensure!(
            !files.refuse_writes || !files.web_root.is_empty(),
            "service {:?}: files.refuse_writes needs files.web_root: where is it that nothing may be written?",
            table.name
        );
    }
    Ok(rules)
}

/// Adds what active packs say. What they say of services that are not configured here is passed over.
fn add_packs(policy: &mut Policy, packs: &clew_packs::policy::Policy, services: &[ServiceConfig]) {
    let index = |name: &str| services.iter().position(|service| service.name == name);
    // None: it is for no service that there is; otherwise the service, or all of them.
    let whose = |service: &Option<String>| match service {
        None => Some(None),
        Some(name) => index(name).map(Some),
    };
    for rule in &packs.exec {
        let arguments = rule.arguments.as_ref();
        policy
            .exec
            .extend(whose(&rule.service).map(|service| ExecRule {
                service,
                path: rule.path.clone(),
                arguments: arguments.map(|it| it.iter().map(|a| a.clone().into_bytes()).collect()),
            }));
    }
    for rule in &packs.connect {
        policy
            .connect
            .extend(whose(&rule.service).map(|service| ConnectRule {
                service,
                address: rule.network.network(),
                prefix_len: rule.network.prefix_len(),
                port: rule.port,
                transport: rule.transport,
            }));
    }
    for files in &packs.files {
        let of_all = files.service.is_none();
        let chosen = services.iter().enumerate();
        let chosen = chosen.filter(|(_, it)| of_all || files.service.as_ref() == Some(&it.name));
        let root = if files.refuse_writes {
            Watch::Close
        } else {
            Watch::Remember
        };
        for (service, _) in chosen {
            let secret = files.protect.iter().map(|path| (path, Watch::Protect));
            let all = secret.chain(files.web_root.iter().map(|path| (path, root)));
            policy.files.extend(all.map(|(path, watch)| FileRule {
                service,
                path: path.clone(),
                watch,
            }));
        }
    }
}

/// Adds what was learned. Services that are not configured any more are passed over.
fn add_profile(policy: &mut Policy, path: &Path, services: &[ServiceConfig]) -> Result<()> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the profile {}", path.display()))?;
    let profile: Profile = serde_json::from_str(&text)
        .with_context(|| format!("{} is no profile; learn it anew", path.display()))?;
    for (index, service) in services.iter().enumerate() {
        let Some(learned) = profile.services.get(&service.name) else {
            continue;
        };
        policy.profiled.push(index);
        policy.exec.extend(learned.exec.iter().map(|entry| {
            ExecRule {
                service: Some(index),
                path: entry.path.clone().into(),
                arguments: entry
                    .arguments
                    .as_ref()
                    .map(|it| it.iter().map(|a| a.clone().into_bytes()).collect()),
            }
        }));
        policy
            .connect
            .extend(learned.connect.iter().map(|entry| ConnectRule {
                service: Some(index),
                address: entry.target.ip(),
                prefix_len: if entry.target.is_ipv4() { 32 } else { 128 },
                port: Some(entry.target.port()),
                transport: entry.transport,
            }));
    }
    Ok(())
}
