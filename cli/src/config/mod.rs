//! The configuration file: raw TOML, then what has been checked.

mod edge;
mod policy;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clew_bans::Measure;
use clew_packs::policy::BanPolicy;
use clew_packs::store::Store;
use clew_packs::{Pack, PackName};
use clew_proxy::{Limits, ListenerConfig, Pages, ServiceConfig, TrustedHops};
use clew_sensor::{Mode, Policy};
use ipnet::IpNet;
use semver::Version;

use self::edge::{limits, listeners, pages, services};
use self::policy::sensor;
use crate::api::access::Remote;
use crate::inspection::Inspection;
use crate::packs::trusted;
use crate::raw;
use crate::spans::SpansConfig;

/// Everything `clew run` needs, checked.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub(crate) listeners: Vec<ListenerConfig>,
    pub(crate) services: Vec<ServiceConfig>,
    pub(crate) limits: Limits,
    pub(crate) trusted_hops: TrustedHops,
    pub(crate) shared_addresses: Vec<IpNet>,
    pub(crate) threads: usize,
    pub(crate) inspection: Inspection,
    /// The packs among them, in order.
    pub(crate) packs: Vec<Pack>,
    pub(crate) shutdown_grace: Duration,
    /// None: the edge runs alone.
    pub(crate) sensor: Option<SensorConfiguration>,
    pub(crate) bans: clew_bans::Policy,
    /// Interfaces that banned sources are refused at.
    pub(crate) ban_interfaces: Vec<String>,
    /// None: the admin API is at its socket alone.
    pub(crate) admin: Option<Remote>,
    pub(crate) observe: Option<SocketAddr>,
    pub(crate) pages: Pages,
    pub(crate) fail: raw::Fail,
    /// What else has a say in what fails how: the table and key, and what it says.
    pub(crate) strictness: Vec<(&'static str, String)>,
    pub(crate) access_log: Option<PathBuf>,
    /// None: no spans are made.
    pub(crate) spans: Option<SpansConfig>,
    /// The block log; without sinks nobody is told.
    pub(crate) log: clew_blocklog::Config,
    pub(crate) state: PathBuf,
    pub(crate) user: String,
}

/// What the kernel side is told.
#[derive(Debug, Clone)]
pub(crate) struct SensorConfiguration {
    pub(crate) mode: Mode,
    pub(crate) fallback_mode: Mode,
    pub(crate) heartbeat_limit: Duration,
    pub(crate) hold_span: Duration,
    pub(crate) redact_environment: bool,
    pub(crate) policy: Policy,
    pub(crate) profile: PathBuf,
    pub(crate) cgroup: Option<PathBuf>,
    /// The programs stay at work when Clew stops.
    pub(crate) keep_programs: bool,
    /// Files are watched by looking at every system call, where there is no better way.
    pub(crate) trace_opens: bool,
}

impl Configuration {
    /// Whether the programs stay at work when Clew stops.
    pub(crate) fn keeps_programs(&self) -> bool {
        self.sensor.as_ref().is_some_and(|it| it.keep_programs)
    }
}

/// What the command line says; it wins over the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    pub(crate) upstreams: Vec<SocketAddr>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) mode: Option<Mode>,
    pub(crate) no_sensor: bool,
    pub(crate) state: Option<PathBuf>,
    /// The state directory where nobody names one, as it was at start: who has given up root is given another.
    pub(crate) default_state: Option<PathBuf>,
    pub(crate) rules: Vec<PathBuf>,
    /// A pack that is tried in place of the active version of it, or beside the others.
    pub(crate) candidate: Option<(PackName, Option<Version>)>,
}

/// Reads and checks a file.
pub(crate) fn load(path: &Path, overrides: &Overrides) -> Result<Configuration> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    check(raw::parse(&text, &path.display().to_string())?, overrides)
}

/// Checks a configuration made of the command line alone.
pub(crate) fn from_command_line(overrides: &Overrides) -> Result<Configuration> {
    check(raw::Root::default(), overrides)
}

/// Checks what was read.
pub(crate) fn check(raw: raw::Root, overrides: &Overrides) -> Result<Configuration> {
    let services = services(&raw, overrides)?;
    let state = overrides.state.clone().or(raw.state.directory.clone());
    let state = state.or_else(|| overrides.default_state.clone());
    let state = state.unwrap_or_else(default_state);
    let packs = packs(&raw, overrides, &state)?;
    let inspection = Inspection::load(&raw.rules, &overrides.rules, &packs)?;
    let said = &inspection.compiled.policy;
    let said_of_bans = said.ban.clone();
    let sensor = match raw.sensor.enabled && !overrides.no_sensor {
        true => Some(sensor(&raw, overrides, &services, &state, said)?),
        false => None,
    };
    if sensor.is_none() && !raw.ban.interfaces.is_empty() {
        bail!(
            "ban.interfaces needs the sensor, which loads the program that refuses there; \
             leave it out, or run with the sensor"
        );
    }
    let default_threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Configuration {
        listeners: listeners(&raw, overrides)?,
        limits: limits(&raw.limits)?,
        trusted_hops: TrustedHops {
            networks: networks("trust.hops", &raw.trust.hops)?,
            header: raw.trust.header.into(),
        },
        shared_addresses: networks("trust.shared", &raw.trust.shared)?,
        threads: raw.edge.threads.unwrap_or(default_threads).clamp(1, 256),
        inspection,
        packs,
        shutdown_grace: Duration::from_secs(raw.edge.shutdown_grace_seconds),
        bans: bans(&raw, said_of_bans.as_ref())?,
        admin: Remote::check(&raw.admin)?,
        observe: raw.observe.listen,
        pages: pages(&raw.pages)?,
        fail: raw.fail,
        strictness: strictness(&raw),
        access_log: raw.edge.access_log.clone(),
        spans: raw.spans.as_ref().map(SpansConfig::check).transpose()?,
        log: clew_blocklog::Config::check(&raw.log, &raw.log_spool, &state, observer())?,
        ban_interfaces: raw.ban.interfaces.clone(),
        user: raw.state.user.clone(),
        services,
        sensor,
        state,
    })
}

/// The packs in force, with a candidate among them where there is one.
fn packs(raw: &raw::Root, overrides: &Overrides, state: &Path) -> Result<Vec<Pack>> {
    let (store, trust) = (Store::of(state), trusted(&raw.packs)?);
    let mut packs = store.active_packs(&trust)?;
    if let Some((name, version)) = &overrides.candidate {
        let candidate = store.pack(&store.find(name, version.as_ref())?, &trust)?;
        match packs.iter_mut().find(|it| it.id().name == *name) {
            Some(place) => *place = candidate,
            None => packs.push(candidate),
        }
    }
    Ok(packs)
}

fn strictness(raw: &raw::Root) -> Vec<(&'static str, String)> {
    let word = |it: &dyn std::fmt::Debug| format!("{it:?}").to_lowercase();
    let beyond = raw.rules.beyond_limit;
    vec![
        ("sensor.fallback_mode", word(&raw.sensor.fallback_mode)),
        ("rules.over_budget", word(&raw.rules.over_budget)),
        ("rules.unknown_coding", word(&raw.rules.unknown_coding)),
        (
            "rules.beyond_limit",
            beyond.map_or_else(|| "as the rule files say".to_owned(), |it| word(&it)),
        ),
    ]
}

/// Who tells, in the block log.
fn observer() -> clew_blocklog::Observer {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    clew_blocklog::Observer {
        hostname: host,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// `/var/lib/clew` for root, `$XDG_STATE_HOME/clew` or `~/.local/state/clew` for others.
pub(crate) fn default_state() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/clew");
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(home);
    base.unwrap_or_else(std::env::temp_dir).join("clew")
}

/// The configuration's word on bans, and that of the packs where they have one.
fn bans(raw: &raw::Root, packs: Option<&BanPolicy>) -> Result<clew_bans::Policy> {
    let table = &raw.ban;
    for (key, bits, most) in [
        ("ipv4_prefix", table.ipv4_prefix, 32),
        ("ipv6_prefix", table.ipv6_prefix, 128),
    ] {
        // A shorter one would be a large part of all there are.
        ensure!(
            (8..=most).contains(&bits),
            "ban.{key} = {bits}: a ban is for 8 to {most} bits of an address"
        );
    }
    ensure!(table.seconds > 0, "ban.seconds must be at least 1");
    ensure!(
        table.escalation > 0,
        "ban.escalation must be at least 1, which is none"
    );
    let mut never = networks("ban.never", &table.never)?;
    never.extend(networks("trust.hops", &raw.trust.hops)?);
    Ok(clew_bans::Policy {
        measure: Measure {
            by_verdict: packs.and_then(|it| it.enabled).unwrap_or(table.enabled),
            span: packs
                .and_then(|it| it.span)
                .unwrap_or(Duration::from_secs(table.seconds)),
            escalation: packs.map_or(table.escalation, |it| it.escalation),
            longest: packs.map_or(Duration::from_secs(table.longest_seconds), |it| it.most),
        },
        memory: Duration::from_secs(table.memory_seconds),
        ipv4_prefix: table.ipv4_prefix,
        ipv6_prefix: table.ipv6_prefix,
        never,
        shared: networks("trust.shared", &raw.trust.shared)?,
        dry_run: table.dry_run,
    })
}

fn networks(key: &str, entries: &[String]) -> Result<Vec<IpNet>> {
    let parse = |text: &String| {
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .with_context(|| format!("{key}: {text:?} is neither an address nor a network"))
    };
    entries.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use clew_proxy::ForwardingHeader;
    use clew_sensor::{FileRule, Watch};

    use super::*;

    fn checked(text: &str) -> Result<Configuration> {
        check(raw::parse(text, "test.toml")?, &Overrides::default())
    }

    #[test]
    fn the_example_is_valid() {
        let text = include_str!("../../examples/clew.toml");
        let configuration = checked(text).expect("example");
        assert_eq!(configuration.services.len(), 2);
        assert!(configuration.sensor.is_some());
    }

    #[test]
    fn the_default_state_directory_is_that_of_the_start() -> Result<()> {
        let overrides = Overrides {
            upstreams: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            default_state: Some("/of/the/start".into()),
            ..Overrides::default()
        };
        let state_of = |text: &str| -> Result<PathBuf> {
            Ok(check(raw::parse(text, "test.toml")?, &overrides)?.state)
        };
        assert_eq!(state_of("")?, Path::new("/of/the/start"));
        assert_eq!(
            state_of("[state]\ndirectory = \"/named\"\n")?,
            Path::new("/named")
        );
        Ok(())
    }

    #[test]
    fn an_upstream_is_enough() {
        let overrides = Overrides {
            upstreams: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            ..Overrides::default()
        };
        let configuration = from_command_line(&overrides).expect("configuration");
        assert_eq!(configuration.listeners[0].address.port(), 8000);
        assert_eq!(configuration.sensor.expect("sensor").mode, Mode::Enforce);
    }

    #[test]
    fn files_are_watched_service_by_service() {
        let of = |files: &str| {
            let service = "[[service]]\nname = \"a\"\nupstreams = [\"127.0.0.1:1\"]\n";
            let other = service.replace("\"a\"", "\"b\"").replace(":1\"", ":2\"");
            checked(&format!(
                "{service}{other}hosts = [\"b\"]\n[service.files]\n{files}\n"
            ))
        };
        let rules = |files: &str| {
            let configuration = of(files).expect("configuration");
            configuration.sensor.expect("sensor").policy.files
        };
        let rule = |path: &str, watch| FileRule {
            service: 1,
            path: path.into(),
            watch,
        };
        assert_eq!(
            rules("protect = [\"/etc/shadow\"]\nweb_root = [\"/srv\"]"),
            [
                rule("/etc/shadow", Watch::Protect),
                rule("/srv", Watch::Remember)
            ]
        );
        assert_eq!(
            rules("web_root = [\"/srv\"]\nrefuse_writes = true"),
            [rule("/srv", Watch::Close)]
        );
        for (files, complaint) in [
            ("protect = [\"shadow\"]", "write it out from /"),
            ("refuse_writes = true", "needs files.web_root"),
        ] {
            let error = of(files).expect_err(files).to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    /// A state directory in which a pack with this policy is active.
    fn state_with(policy: &str) -> Result<tempfile::TempDir> {
        let (folder, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let head = "name = \"p\"\nversion = \"1.0.0\"\nclew = \"0.1\"\ndescription = \"x\"\nmode = \"block\"\n";
        std::fs::write(folder.path().join("pack.toml"), format!("{head}{policy}"))?;
        let contents = clew_packs::contents::Contents::of_folder(folder.path())?;
        let trust = clew_packs::signature::Trust {
            allow_unsigned: true,
            ..Default::default()
        };
        let store = Store::of(state.path());
        store.install(&contents.to_archive()?, None, &trust)?;
        let name = "p".parse().map_err(anyhow::Error::msg)?;
        store.activate(&name, None, &trust, crate::inspection::host()?)?;
        Ok(state)
    }

    #[test]
    fn what_active_packs_say_is_in_the_policy() -> Result<()> {
        let state = state_with(
            "[[exec]]\npath = \"/bin/a\"\n[[exec]]\npath = \"/bin/b\"\nservice = \"gone\"\n\
             [[connect]]\nnetwork = \"10.0.0.0/8\"\nport = 5\nservice = \"b\"\n\
             [[files]]\nprotect = [\"/etc/shadow\"]\n",
        )?;
        let service = |name: &str, port: u16| {
            format!(
                "[[service]]\nname = \"{name}\"\nhosts = [\"{name}\"]\nupstreams = [\"127.0.0.1:{port}\"]\n"
            )
        };
        let of = |packs: &str| {
            let state = format!("[state]\ndirectory = {:?}\n", state.path());
            checked(&format!(
                "{state}{packs}{}{}",
                service("a", 1),
                service("b", 2)
            ))
        };
        let refusal = of("").expect_err("unsigned").to_string();
        assert!(refusal.contains("p@1.0.0: it is not signed"), "{refusal}");
        let configuration = of("[packs]\nallow_unsigned = true\n")?;
        let policy = configuration.sensor.context("sensor")?.policy;
        let exec = policy.exec.iter().map(|it| (it.service, it.path.as_path()));
        assert_eq!(exec.collect::<Vec<_>>(), [(None, Path::new("/bin/a"))]);
        assert_eq!(
            (policy.connect[0].service, policy.connect[0].port),
            (Some(1), Some(5))
        );
        let watched: Vec<_> = policy.files.iter().map(|it| it.service).collect();
        assert_eq!(watched, [0, 1]);
        Ok(())
    }

    #[test]
    fn trusted_hops_own_one_header() {
        let header = |line: &str| {
            let text = format!(
                "[trust]\n{line}\n[[service]]\nname = \"a\"\nupstreams = [\"127.0.0.1:1\"]\n"
            );
            checked(&text).map(|it| it.trusted_hops.header)
        };
        let of = |line| header(line).expect("configuration");
        assert_eq!(of(""), ForwardingHeader::XForwardedFor);
        assert_eq!(
            of("header = \"x-forwarded-for\""),
            ForwardingHeader::XForwardedFor
        );
        assert_eq!(of("header = \"forwarded\""), ForwardingHeader::Forwarded);
        assert!(header("header = \"x-real-ip\"").is_err());
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let error = checked("[sensor]\nmod = \"enforce\"\n").expect_err("unknown key");
        let text = format!("{error:#}");
        assert!(
            text.contains("test.toml:2") && text.contains("`mode`"),
            "{text}"
        );
    }

    #[test]
    fn wrong_types_and_values_are_refused() {
        for text in [
            "[limits]\nhead_bytes = \"many\"\n",
            "[[service]]\nname = \"a\"\nupstreams = [\"nowhere\"]\n",
            "[[service]]\nname = \"a\"\nupstreams = []\n",
            "[[service]]\nname = \"a\"\nupstreams = [\"127.0.0.1:1\"]\nhttp = \"3\"\n",
            "[[service]]\nname = \"a\"\nupstreams = [\"127.0.0.1:1\"]\ntls = {}\n",
            "[[service]]\nname = \"a\"\nupstreams = [\"127.0.0.1:1\"]\ntls = { server_name = \"\" }\n",
            "[sensor]\nmode = \"pray\"\n",
            "[ban]\nipv4_prefix = 0\n[[service]]\nname = \"a\"\nupstreams = [\"127.0.0.1:1\"]\n",
            "[ban]\nescalation = 0\n[[service]]\nname = \"a\"\nupstreams = [\"127.0.0.1:1\"]\n",
            "[ban]\nnever = [\"nobody\"]\n[[service]]\nname = \"a\"\nupstreams = [\"127.0.0.1:1\"]\n",
            "[trust]\nhops = [\"300.1.1.1\"]\n[[service]]\nname = \"a\"\nupstreams = [\"127.0.0.1:1\"]\n",
            "",
        ] {
            assert!(checked(text).is_err(), "{text}");
        }
    }
}
