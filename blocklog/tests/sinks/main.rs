//! The block log against what receives it: rsyslog, and servers that speak the protocols of Elasticsearch, Splunk and
//! webhooks as far as a sender can tell.
#![forbid(unsafe_code)]

mod crash;
mod http;
mod local;
#[path = "../../src/sample.rs"]
mod sample;
mod server;
mod stage;
mod syslog;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    // The crash test starts this program again, as what is killed.
    if let Some(state) = std::env::var_os(crash::STATE) {
        return match crash::write(state.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let root = rustix::process::geteuid().is_root();
    let mut trials: Vec<Trial> = TESTS
        .iter()
        .map(|(name, test)| trial(name, *test))
        .collect();
    // It mounts a file system.
    trials.push(trial("full_disk", local::full_disk).with_ignored_flag(!root));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

type Test = fn() -> anyhow::Result<()>;

const TESTS: [(&str, Test); 15] = [
    (
        "https_goes_to_who_has_a_certificate_of_the_authority",
        http::https_goes_to_who_has_a_certificate_of_the_authority,
    ),
    (
        "standard_output_that_is_not_read_makes_nobody_wait",
        crash::standard_output_that_is_not_read_makes_nobody_wait,
    ),
    (
        "elasticsearch_has_every_event_once_and_in_order",
        http::elasticsearch_has_every_event_once_and_in_order,
    ),
    (
        "items_that_are_put_off_are_sent_again_and_bad_ones_are_counted",
        http::items_that_are_put_off_are_sent_again_and_bad_ones_are_counted,
    ),
    (
        "a_server_that_is_busy_or_down_gets_all_when_it_is_back_and_nobody_waits",
        http::a_server_that_is_busy_or_down_gets_all_when_it_is_back_and_nobody_waits,
    ),
    (
        "what_is_not_sent_in_time_is_sent_at_the_next_start",
        http::what_is_not_sent_in_time_is_sent_at_the_next_start,
    ),
    (
        "a_wrong_key_is_said_and_not_shown",
        http::a_wrong_key_is_said_and_not_shown,
    ),
    (
        "splunk_has_every_event_but_the_one_it_refuses",
        http::splunk_has_every_event_but_the_one_it_refuses,
    ),
    (
        "webhooks_are_signed_and_have_lines_or_an_array",
        http::webhooks_are_signed_and_have_lines_or_an_array,
    ),
    (
        "each_sink_gets_what_its_filter_lets_pass",
        local::each_sink_gets_what_its_filter_lets_pass,
    ),
    (
        "kill_9_loses_nothing_that_was_written",
        crash::kill_9_loses_nothing_that_was_written,
    ),
    ("rsyslog_has_every_event_over_udp", syslog::udp),
    (
        "rsyslog_has_every_event_over_tcp_also_of_a_restart",
        syslog::tcp,
    ),
    ("rsyslog_has_every_event_over_tls", syslog::tls),
    (
        "a_receiver_of_another_authority_gets_nothing",
        syslog::wrong_authority,
    ),
];

fn trial(name: &str, test: Test) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| Failed::from(format!("{error:#}")))
    })
}
