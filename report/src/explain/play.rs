//! Plays a call through the filter's core on a host in memory.

use super::exchange::Exchange;
use std::rc::Rc;
use tollgate::budget::ledger::Account;
use tollgate::budget::{Amount, Limits};
use tollgate::config::Config;
use tollgate::exchange::{Context, Edit, Ending, Event, Exchange as Core, Route};
use tollgate::http::Headers;
use tollgate::identity::Instance;
use tollgate::memory::MemoryHost;
use tollgate::overview;
use tollgate::record::UsageRecord;

/// What the core did.
#[derive(Debug, Default)]
pub(super) struct Played {
    /// The record; absent for what is no LLM call.
    pub(super) record: Option<UsageRecord>,
    /// Changes to the request's headers.
    pub(super) edits: Vec<Edit>,
    /// The provider gets another body than the caller sent.
    pub(super) rewrites_body: bool,
    /// The status of the filter's own answer, where it refuses the call.
    pub(super) refused: Option<u16>,
    /// What it held before it was answered.
    pub(super) holds: Vec<Hold>,
}

/// What a call holds in a budget.
#[derive(Debug)]
pub(super) struct Hold {
    /// In which counter.
    pub(super) account: Account,
    /// How much.
    pub(super) amount: Amount,
}

/// Plays `exchange` at the time `at_ns`, in nanoseconds since the Unix epoch, where so much was `spent` before.
pub(super) fn play(exchange: &Exchange, config: &Rc<Config>, at_ns: u64, spent: &[(Account, Amount)]) -> Played {
    let mut host = MemoryHost::default();
    host.now_ns = at_ns;
    let mut instance = Instance::register(&mut host, None);
    let now = at_ns / 1_000_000_000;
    for (account, amount) in spent {
        let mut context = Context { host: &mut host, instance: &mut instance };
        let (ledger, mut access) = context.ledger(config, now);
        if let Ok(held) = ledger.reserve(&mut access, account, *amount, None) {
            // What is held has its place.
            let _ = ledger.settle(&mut access, held, *amount, &[], &Limits::default());
        }
    }
    let mut core = Core::new(Rc::clone(config));
    let route = Route { route: exchange.route.as_deref(), cluster: exchange.cluster.as_deref(), properties: &[] };
    let mut played = Played::default();
    let mut sent = Vec::new();
    let mut on = |host: &mut MemoryHost, instance: &mut Instance, event: Event<'_>| {
        let body = if let Event::RequestBody { chunk, .. } = event { Some(chunk) } else { None };
        let verdict = core.on(event, &mut Context { host, instance });
        if let Some(chunk) = body {
            sent.extend_from_slice(verdict.body.as_deref().unwrap_or(chunk));
        }
        verdict
    };

    let headers = borrowed(&exchange.request_headers);
    let end_of_stream = exchange.request_body.is_empty();
    let verdict = on(&mut host, &mut instance, Event::RequestHeaders { headers: &headers, route, end_of_stream });
    played.edits = verdict.edits;
    played.refused = verdict.reply.map(|reply| reply.status);
    if !end_of_stream && played.refused.is_none() {
        let verdict =
            on(&mut host, &mut instance, Event::RequestBody { chunk: &exchange.request_body, end_of_stream: true });
        // Headers that were held until now.
        played.edits.extend(verdict.edits);
        played.refused = verdict.reply.map(|reply| reply.status);
    }
    if !config.budgets.is_empty() {
        let mut context = Context { host: &mut host, instance: &mut instance };
        let scopes = overview::scopes(config, &mut context, now, usize::MAX, &|_| true).into_iter();
        let holds = scopes.map(|scope| Hold { account: scope.account, amount: scope.standing.held });
        played.holds = holds.filter(|hold| !hold.amount.is_zero()).collect();
    }
    let answered = exchange.response_headers.as_ref().filter(|_| played.refused.is_none());
    if let Some(response) = answered {
        let headers = borrowed(response);
        let end_of_stream = exchange.response_body.is_empty();
        on(&mut host, &mut instance, Event::ResponseHeaders { headers: &headers, end_of_stream });
        if !end_of_stream {
            on(&mut host, &mut instance, Event::ResponseBody { chunk: &exchange.response_body, end_of_stream: true });
        }
    }
    on(
        &mut host,
        &mut instance,
        Event::Log(Ending {
            code_details: answered.map(|_| "via_upstream"),
            route: route.route,
            cluster: route.cluster,
            ..Ending::default()
        }),
    );
    played.rewrites_body = played.refused.is_none() && sent != exchange.request_body;
    played.record = host.records.into_iter().next();
    played
}

fn borrowed(headers: &[(String, Vec<u8>)]) -> Headers<'_> {
    headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect()
}
