use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::Result;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::route::RouteClass;
use crate::session::{Call, Session};
use crate::views::reading_calls;
use crate::world::{Caller, Side, TenantAddress};

/// The shortest text that may be a cursor, a ticket or a signature.
const OPAQUE_LENGTH_MIN: usize = 12;
/// Maximum number of values that are kept for each field.
const VALUES_MAX: usize = 3;

/// What the answers for B contain: links, and opaque texts by the names of their fields.
#[derive(Default)]
struct Replayable {
    links: Vec<String>,
    texts: BTreeMap<String, Vec<String>>,
}

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    for side in Side::BOTH {
        let values = collect_values(session, side).await?;
        for link in &values.links {
            replay_link(session, outcome, side, link).await?;
        }
        replay_texts(session, outcome, side, &values).await?;
    }
    if outcome.attempt_count() == 0 {
        outcome.skip("no answer contains a link or an opaque text that a request could repeat");
    }
    Ok(())
}

/// Reads all that the tenant sees, and asks for new links.
async fn collect_values(session: &Session, side: Side) -> Result<Replayable> {
    let mut found = Replayable::default();
    for call in reading_calls(session, side) {
        found.collect("", &session.send(&call).await?.json());
    }
    for route in session.writes().filter(|route| route.method == http::Method::POST) {
        found.collect("", &session.send_own(route, side).await?.json());
    }
    Ok(found)
}

impl Replayable {
    fn add_link(&mut self, link: &str) {
        if self.links.iter().filter(|known| same_start(known, link)).count() < VALUES_MAX {
            self.links.push(link.to_owned());
        }
    }

    fn collect(&mut self, field: &str, value: &Value) {
        match value {
            Value::Object(object) => object.iter().for_each(|(name, value)| self.collect(name, value)),
            Value::Array(items) => items.iter().for_each(|value| self.collect(field, value)),
            Value::String(text) if is_link(text) => self.add_link(text),
            Value::String(text) if text.len() >= OPAQUE_LENGTH_MIN && !text.contains(char::is_whitespace) => {
                let values = self.texts.entry(field.to_owned()).or_default();
                if values.len() < VALUES_MAX {
                    values.push(text.clone());
                }
            }
            _ => {}
        }
    }
}

fn is_link(text: &str) -> bool {
    ["/", "http://", "https://"].iter().any(|start| text.starts_with(start))
}

fn same_start(one: &str, two: &str) -> bool {
    one.bytes().zip(two.bytes()).take_while(|(a, b)| a == b).count() >= one.len().min(two.len()) / 3
}

/// A link of one tenant: as it is, and with the other tenant's name.
async fn replay_link(session: &Session, outcome: &mut ProbeOutcome, side: Side, link: &str) -> Result<()> {
    let Some(path) = path_of(link) else { return Ok(()) };
    let (own, other) = (session.world.tenant(side), session.world.tenant(side.other()));
    let shown = session.follow(&path, Caller::Member(side), &TenantAddress::Of(side)).await?;
    if !shown.is_success() {
        return Ok(());
    }
    let label = format!("GET {}", template_of(session, &path, &own.name));
    outcome.control(&label);
    let moved = path.replace(&format!("/{}/", own.name), &format!("/{}/", other.name));
    let address = TenantAddress::Of(side.other());
    let is_open = session.follow(&path, Caller::Nobody, &TenantAddress::Of(side)).await?.is_success();
    for caller in [Caller::Member(side.other()), Caller::Nobody] {
        // A link that opens for nobody in particular is a right of its holder. Under another name it must not open.
        for path in [Some(&moved), (!is_open).then_some(&path)].into_iter().flatten() {
            if moved == *path && moved == link && is_open {
                continue;
            }
            let exchange = session.follow(path, caller, &address).await?;
            if let Some(hit) = exchange.find(&session.canaries, side) {
                outcome.report_hit(&label, &hit, &exchange);
            } else if exchange.is_success() && *path == moved && moved != link && is_open {
                let text = "a signed link of one tenant opens under the address of another";
                outcome.report(FindingKind::ForeignEffect, &label, text, &exchange);
            }
        }
    }
    Ok(())
}

/// The path of a link, without its scheme and host.
fn path_of(link: &str) -> Option<String> {
    let Some((_, rest)) = link.split_once("://") else { return Some(link.to_owned()) };
    rest.find('/').map(|at| rest[at..].to_owned())
}

/// The template of the route that the path belongs to.
fn template_of(session: &Session, path: &str, tenant: &str) -> String {
    let parts: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
    let fits = |template: &str| {
        let own: Vec<&str> = template.split('/').collect();
        own.len() == parts.len() && own.iter().zip(&parts).all(|(own, part)| own.starts_with('{') || own == part)
    };
    let links = session.routes(RouteClass::Link).chain(session.all_routes());
    let found = links.map(|route| &route.template).find(|template| fits(template));
    found.cloned().unwrap_or_else(|| path.replace(tenant, "{tenant}"))
}

/// Opaque texts of one tenant in the queries of the other.
async fn replay_texts(session: &Session, outcome: &mut ProbeOutcome, side: Side, values: &Replayable) -> Result<()> {
    let side_of_caller = side.other();
    for route in session.reads() {
        for parameter in route.query_parameters() {
            for value in values.texts.values().flatten() {
                let label = route.label();
                let shown = session.send(&Call::own(route, side).parameter(&parameter.name, value)).await?;
                // A text that its own tenant cannot use is not one that a request repeats.
                if !shown.is_success() {
                    continue;
                }
                outcome.control(&label);
                let call = Call::own(route, side_of_caller).parameter(&parameter.name, value);
                let exchange = session.send(&call).await?;
                // A text that the request itself contained is not an answer.
                if let Some(hit) = exchange.find(&session.canaries, side).filter(|hit| !value.contains(&hit.canary)) {
                    outcome.report_hit(&label, &hit, &exchange);
                }
            }
        }
    }
    Ok(())
}
