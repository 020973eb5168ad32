//! An operator who acts as a member, for support.

use fleet_client::ApiRequest;
use fleet_client::fleet_api::impersonations::{ImpersonationRequest, ImpersonationTicket};
use serde_json::json;

use crate::on_both_engines;
use crate::running::{Browser, RunningTasks, invitation};

on_both_engines! {
    an_operator_acts_as_a_member_and_the_organisation_sees_it
    an_operator_makes_no_token_that_outlives_the_session
}

async fn new_ticket(running: &RunningTasks, organisation: &str, member: &str) -> String {
    let reason = Some("ticket 4711".to_owned());
    let wanted = ImpersonationRequest { member: member.to_owned(), reason, ..ImpersonationRequest::default() };
    let request = ApiRequest::post(format!("/v1/tenants/{organisation}/impersonations"), &wanted);
    running.application().fleet.send::<ImpersonationTicket>(&request).await.unwrap().ticket
}

async fn begin(running: &RunningTasks, organisation: &str, ticket: &str) -> Result<Browser, (u16, String)> {
    let mut staff = running.visitor();
    let path = format!("/orgs/{organisation}/api/session/support");
    let answer = staff.post(&path, &json!({ "ticket": ticket })).await;
    if answer.status != 200 {
        let (status, code) = answer.refusal();
        return Err((status, code.to_owned()));
    }
    staff.keep_cookie(&answer);
    Ok(staff)
}

async fn an_operator_acts_as_a_member_and_the_organisation_sees_it(running: &RunningTasks) {
    let (alice, _bob) = (running.sign_up("acme").await, running.sign_up("globex").await);
    let (_, reader) = running.invite(&alice, "acme", "reader").await;
    let ticket = new_ticket(running, "acme", &reader).await;
    let refused = Err((401, "unauthenticated".to_owned()));
    assert_eq!(begin(running, "globex", &ticket).await.map(drop), refused, "the ticket is of acme");
    let staff = begin(running, "acme", &ticket).await.unwrap();
    assert_eq!(begin(running, "acme", &ticket).await.map(drop), refused, "a ticket is used once");
    let session = staff.get("/orgs/acme/api/session").await.body;
    assert_eq!((&session["person"], &session["role"]), (&json!(reader), &json!("reader")));
    assert!(session["staff"].as_str().unwrap().starts_with("token:tok_"), "{session}");
    assert!(alice.get("/orgs/acme/api/session").await.body["staff"].is_null());
    let written = staff.post("/orgs/acme/api/tasks", &json!({ "title": "x" })).await;
    assert_eq!(written.refusal(), (403, "forbidden"), "the rights of the member, and no more");
    assert_eq!(staff.get("/orgs/globex/api/tasks").await.refusal(), (404, "not_found"));
    assert_eq!(staff.delete("/orgs/acme/api/session").await.status, 204);
    assert_eq!(staff.get("/orgs/acme/api/session").await.refusal(), (401, "unauthenticated"), "the session has ended");
    let tenant = running.tenant_of(&alice, "acme").await;
    let log = tenant.audit_log(None, 100).await.unwrap().entries;
    let kinds: Vec<_> = log.iter().map(|entry| &*entry.kind).filter(|kind| kind.starts_with("imp")).collect();
    assert_eq!(kinds, ["impersonation.ended", "impersonation.started", "impersonation.requested"]);
    let requested = log.iter().find(|entry| entry.kind == "impersonation.requested").unwrap();
    assert_eq!((requested.on_behalf_of.as_ref(), requested.reason.as_deref()), (Some(&reader), Some("ticket 4711")));
}

async fn an_operator_makes_no_token_that_outlives_the_session(running: &RunningTasks) {
    let alice = running.sign_up("acme").await;
    let me = alice.get("/orgs/acme/api/session").await.body["person"].as_str().unwrap().to_owned();
    let staff = begin(running, "acme", &new_ticket(running, "acme", &me).await).await.unwrap();
    let link = staff.post(&format!("/orgs/acme/api/members/{me}/link"), &json!(null)).await;
    assert_eq!(link.refusal(), (403, "support_session"));
    let invited = staff.post("/orgs/acme/api/members", &invitation("Eve", "manager")).await;
    assert_eq!(invited.refusal(), (403, "support_session"));
    assert_eq!(alice.get("/orgs/acme/api/members").await.body.as_array().unwrap().len(), 1);
}
