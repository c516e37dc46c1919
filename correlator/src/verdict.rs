//! What is done to a request that is named.

use clew_protocol::Moment;
use clew_protocol::incident::BanRecord;
use clew_protocol::verdict::Action;

use crate::cases::{Case, END_WAIT};
use crate::correlator::Config;
use crate::requests::Requests;

/// Where something was stopped: cancels the request that the attribution names, and bans its source
/// where it may.
pub(crate) fn judge(
    case: &mut Case,
    at: Moment,
    config: &Config,
    requests: &mut Requests,
    actions: &mut Vec<Action>,
) {
    let open = case.stopped && !case.condemned && case.names_one();
    let Some(sequence) = case.attribution.sequence.filter(|_| open) else {
        return;
    };
    case.condemned = true;
    requests.condemn(sequence);
    case.due = Some(at.after(END_WAIT));
    actions.push(Action::Condemn {
        sequence,
        incident: case.id,
    });
    ban(case, at, config, requests, actions);
}

/// Bans the source of a request that was ended for what happened at `at`, where it may.
pub(crate) fn ban(
    case: &mut Case,
    at: Moment,
    config: &Config,
    requests: &Requests,
    actions: &mut Vec<Action>,
) {
    let condemned = case.attribution.sequence.filter(|_| case.condemned);
    let told = condemned.and_then(|it| Some((it, requests.told(it)?)));
    let Some((sequence, told)) = told.filter(|_| config.ban && case.ban.is_none()) else {
        return;
    };
    let client = &told.client;
    // What another has stored here fires for whoever comes by: he shows nothing of it, and the other is
    // long gone.
    let is_own = case.attribution.evidence.is_some() && requests.was_open(sequence, at);
    if is_own && !client.cross_site && !client.shared {
        let span = config.ban_span;
        case.ban = Some(BanRecord {
            address: client.address,
            seconds: span.as_secs(),
        });
        actions.push(Action::Ban {
            address: client.address,
            span,
            incident: case.id,
        });
    }
}
