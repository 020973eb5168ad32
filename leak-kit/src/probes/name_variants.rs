use crate::error::Result;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::session::{Call, Session};
use crate::world::{Caller, Side, TenantAddress};

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    if !session.world.names_tenants() {
        outcome.skip("only the credential says which tenant a request is for");
        return Ok(());
    }
    let name = session.world.tenant(Side::Second).name.clone();
    let own_name = session.world.tenant(Side::First).name.clone();
    for route in session.reads().filter(|route| session.can_name_tenants(route)) {
        let label = route.label();
        if session.send(&Call::own(route, Side::Second)).await?.is_success() {
            outcome.control(&label);
        }
        for variant in variants(&name, &own_name) {
            for caller in [Caller::Member(Side::First), Caller::Nobody] {
                let call = Call::own(route, Side::Second).to(TenantAddress::Text(variant.clone())).by(caller);
                // An address that no HTTP request can have needs no answer.
                let Ok(exchange) = session.send(&call).await else { continue };
                if let Some(hit) = exchange.find(&session.canaries, Side::Second) {
                    outcome.report_hit(&label, &hit, &exchange);
                } else if exchange.status.is_server_error() && exchange.status != http::StatusCode::SERVICE_UNAVAILABLE
                {
                    let text = format!("the spelling {variant:?} of a tenant's name is answered with a server error");
                    outcome.report(FindingKind::ExistenceShown, &label, text, &exchange);
                }
            }
        }
    }
    Ok(())
}

/// Spellings of B's name, some of them behind the own name.
fn variants(name: &str, own: &str) -> Vec<String> {
    let first = name.chars().next().unwrap_or('x');
    let coded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let wide: String = name.chars().map(wide_character).collect();
    let wide = percent_encoding::utf8_percent_encode(&wide, percent_encoding::NON_ALPHANUMERIC).to_string();
    vec![
        name.to_uppercase(),
        coded,
        wide,
        format!("{name}."),
        format!("{name}%20"),
        format!("%20{name}"),
        format!("{name}%00"),
        format!("{name}%0a"),
        format!("{name}%2f"),
        format!("{name};{own}"),
        format!("{own},{name}"),
        format!("{own}%2c{name}"),
        format!("{own}%2f..%2f{name}"),
        format!("..%2f{name}"),
        format!(".%2f{name}"),
        name[..name.len() - 1].to_owned(),
        format!("{name}x"),
        format!("{first}%25"),
        format!("{first}*"),
        "*".to_owned(),
        "%25".to_owned(),
        "null".to_owned(),
        "undefined".to_owned(),
        "default".to_owned(),
    ]
}

/// The full-width form of an ASCII character, which some normalisations turn back.
fn wide_character(c: char) -> char {
    match c {
        '!'..='~' => char::from_u32(c as u32 + 0xFEE0).unwrap_or(c),
        _ => c,
    }
}
