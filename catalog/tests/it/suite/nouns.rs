//! The smaller nouns: names, labels, members, tokens, releases, backups, kept databases, events, remembered answers.

use std::collections::BTreeMap;

use catalog::backups::{self, BackupRecord};
use catalog::events::{self, NewEvent};
use catalog::idempotency::{self, ClaimedIdempotencyKey, IdempotencyClaimant, IdempotencyLookup};
use catalog::members::{self, Role};
use catalog::name::NameKind;
use catalog::retained::{self, RetainedReason, RetainedRecord};
use catalog::servers;
use catalog::tenants::{self, TenantUpdate};
use catalog::tokens::{self, Impersonation, OperatorRole, TokenCondition, TokenScope};
use catalog::{
    BackupId, ErrorKind, Generation, OperationId, ReleaseId, ServerId, ServerState, TenantId, TenantName, TenantState,
    WriteTx, fleet, names, releases,
};
use secrecy::ExposeSecret as _;
use tenant_engine::EngineKind;
use tenant_engine::migration::{MigrationFile, MigrationSets};

use super::{Fixture, START, new_tenant, seed};

fn slug(text: &str) -> TenantName {
    TenantName::parse_slug(text).unwrap()
}

#[tokio::test]
async fn a_name_leads_to_its_tenant_for_ever() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 2).await;
    let host = TenantName::parse_host("Shop.Example.com:443").unwrap();
    let mut tx = fixture.catalog.write().await.unwrap();
    names::insert_name(&mut tx, &host, ids[0], NameKind::Host).await.unwrap();
    names::insert_name(&mut tx, &slug("old"), ids[0], NameKind::Alias).await.unwrap();
    for (name, tenant, kind, refused) in [
        (host.clone(), ids[1], NameKind::Host, ErrorKind::AlreadyExists),
        (slug("t0"), ids[1], NameKind::Alias, ErrorKind::AlreadyExists),
        (TenantName::parse_host("shop").unwrap(), ids[1], NameKind::Host, ErrorKind::Invalid),
    ] {
        assert_eq!(names::insert_name(&mut tx, &name, tenant, kind).await.unwrap_err().kind(), refused, "{name}");
    }
    for name in [&slug("t0"), &slug("old"), &host] {
        assert_eq!(names::resolve_name(&mut tx, name).await.unwrap(), Some(ids[0]));
        assert_eq!(tenants::by_name(&mut tx, name).await.unwrap().unwrap().name, "t0");
    }
    let of_first = names::of_tenant(&mut tx, ids[0]).await.unwrap();
    assert_eq!(
        of_first,
        [(slug("t0"), NameKind::Slug), (slug("old"), NameKind::Alias), (host.clone(), NameKind::Host)]
    );
    let many = [slug("free"), slug("t1"), host.clone()];
    assert_eq!(names::taken_names(&mut tx, &many).await.unwrap(), [(slug("t1"), ids[1]), (host.clone(), ids[0])]);
    let nobodys =
        names::insert_name(&mut tx, &slug("nobody"), TenantId::generate(), NameKind::Alias).await.unwrap_err();
    assert_eq!(nobodys.kind(), ErrorKind::NotFound);
    assert!(names::resolve_name(&mut tx, &host).await.is_err(), "a refused statement ends its transaction");
}

#[tokio::test]
async fn a_tenant_that_never_served_frees_its_name() {
    let fixture = Fixture::new().await;
    let (server, ids) = seed(&fixture.catalog, 2).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let mut active = TenantUpdate::for_generation(ids[1], Generation(1));
    active.state = Some(TenantState::Active);
    tenants::update_many(&mut tx, &[active]).await.unwrap();
    tenants::remove_provisioning(&mut tx, ids[0]).await.unwrap();
    let error = tenants::remove_provisioning(&mut tx, ids[1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("active"), "{error}");
    let unknown = tenants::remove_provisioning(&mut tx, TenantId::generate()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    tenants::insert_many(&mut tx, &[new_tenant("t0", server)]).await.unwrap();
    let error = tenants::insert_many(&mut tx, &[new_tenant("t1", server)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(tenants::get(&mut tx, ids[0]).await.unwrap().unwrap().state, TenantState::Purged);
}

#[tokio::test]
async fn epochs_count_every_attempt() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 3).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    tenants::next_epochs(&mut tx, &ids[..1]).await.unwrap();
    let epochs = tenants::next_epochs(&mut tx, &[ids[2], ids[0]]).await.unwrap();
    assert_eq!(epochs, [(ids[2], 1), (ids[0], 2)]);
    let missing = tenants::next_epochs(&mut tx, &[TenantId::generate()]).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_update_sets_clears_and_dates() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let release = release(&mut tx, "create table a (x);").await;
    let mut full = TenantUpdate::for_generation(ids[0], Generation(1));
    full.state = Some(TenantState::Deleted);
    full.reason = Some(Some("left".to_owned()));
    full.block_writes = Some(Some(catalog::BlockWrites::Operator));
    full.placement = Some(Some("p".to_owned()));
    full.purge_after = Some(Some(START + 9));
    full.schema_version = Some(Some(4));
    full.release_id = Some(Some(release));
    full.size_bytes = Some(77);
    assert!(tenants::update_many(&mut tx, &[full]).await.unwrap().is_empty());
    let deleted = tenants::get(&mut tx, ids[0]).await.unwrap().unwrap();
    assert_eq!(
        (deleted.state, deleted.deleted_at, deleted.purge_after),
        (TenantState::Deleted, Some(START), Some(START + 9))
    );
    assert_eq!((deleted.state_reason.as_deref(), deleted.placement.as_deref()), (Some("left"), Some("p")));
    assert_eq!(deleted.block_writes, Some(catalog::BlockWrites::Operator));
    assert_eq!((deleted.schema_version, deleted.release_id, deleted.size_bytes), (Some(4), Some(release), Some(77)));
    tenants::update_many(&mut tx, &[TenantUpdate::for_generation(ids[0], Generation(2))]).await.unwrap();
    let same = tenants::get(&mut tx, ids[0]).await.unwrap().unwrap();
    assert_eq!(same, tenants_with_generation(&deleted, 3), "nothing else changes");
    let mut back = TenantUpdate::for_generation(ids[0], Generation(3));
    back.state = Some(TenantState::Active);
    back.reason = Some(None);
    back.block_writes = Some(None);
    back.purge_after = Some(None);
    back.schema_version = Some(None);
    tenants::update_many(&mut tx, &[back]).await.unwrap();
    let active = tenants::get(&mut tx, ids[0]).await.unwrap().unwrap();
    assert_eq!((active.deleted_at, active.purge_after, active.state_reason), (None, None, None));
    assert_eq!((active.block_writes, active.schema_version, active.release_id), (None, None, Some(release)));
    let by_version = tenants::count_by_version(&mut tx).await.unwrap();
    assert_eq!(by_version, [(None, 1)]);
    tenants::set_sizes(&mut tx, &[(ids[0], 5), (ids[0], 6)]).await.unwrap();
    tenants::set_protected(&mut tx, ids[0], true).await.unwrap();
    let last = tenants::get(&mut tx, ids[0]).await.unwrap().unwrap();
    assert_eq!((last.size_bytes, last.protected, last.generation), (Some(6), true, Generation(4)));
}

fn tenants_with_generation(tenant: &catalog::TenantRecord, generation: i64) -> catalog::TenantRecord {
    catalog::TenantRecord { generation: Generation(generation), ..tenant.clone() }
}

#[tokio::test]
async fn labels_are_set_removed_and_bounded() {
    let fixture = Fixture::new().await;
    let (server, ids) = seed(&fixture.catalog, 1).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let set = |key: &str, value: Option<&str>| BTreeMap::from([(key.to_owned(), value.map(str::to_owned))]);
    for labels in [set("plan", Some("pro")), set("plan", Some("free")), set("region", Some("eu")), set("region", None)]
    {
        tenants::set_labels(&mut tx, ids[0], &labels).await.unwrap();
    }
    let tenant = tenants::get(&mut tx, ids[0]).await.unwrap().unwrap();
    assert_eq!(tenant.labels, BTreeMap::from([("plan".to_owned(), "free".to_owned())]));
    for bad in [set("", Some("x")), set("a b", Some("x")), set("a", Some("x\ny")), set(&"k".repeat(64), Some("x"))] {
        let error = tenants::set_labels(&mut tx, ids[0], &bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let missing = tenants::set_labels(&mut tx, TenantId::generate(), &set("a", None)).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let many = (0..64).map(|n| (format!("k{n}"), Some("v".to_owned()))).collect();
    assert_eq!(tenants::set_labels(&mut tx, ids[0], &many).await.unwrap_err().kind(), ErrorKind::Invalid);
    let mut labelled = new_tenant("labelled", server);
    labelled.labels.insert("a".to_owned(), "b".to_owned());
    tenants::insert_many(&mut tx, std::slice::from_ref(&labelled)).await.unwrap();
    assert_eq!(tenants::get(&mut tx, labelled.id).await.unwrap().unwrap().labels, labelled.labels);
}

#[tokio::test]
async fn members_have_one_role_each() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 2).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    for (principal, role) in [("bob", Role::Reader), ("ann", Role::Writer), ("bob", Role::Manager)] {
        members::set_member(&mut tx, ids[0], principal, role).await.unwrap();
    }
    assert_eq!(members::member_role(&mut tx, ids[0], "bob").await.unwrap(), Some(Role::Manager));
    assert_eq!(members::member_role(&mut tx, ids[1], "bob").await.unwrap(), None);
    assert_eq!(
        members::member_role(&mut tx, ids[0], "BOB").await.unwrap(),
        None,
        "principals are compared byte for byte"
    );
    let page = members::list_members(&mut tx, ids[0], None, 1).await.unwrap();
    assert_eq!(page[0].principal, "ann");
    let rest = members::list_members(&mut tx, ids[0], Some("ann"), 9).await.unwrap();
    assert_eq!(rest.iter().map(|member| member.principal.as_str()).collect::<Vec<_>>(), ["bob"]);
    members::remove_member(&mut tx, ids[0], "bob").await.unwrap();
    assert_eq!(members::remove_member(&mut tx, ids[0], "bob").await.unwrap_err().kind(), ErrorKind::NotFound);
    let long = "x".repeat(257);
    for (tenant, principal, refused) in [
        (ids[0], "", ErrorKind::Invalid),
        (ids[0], long.as_str(), ErrorKind::Invalid),
        (ids[0], "a\0", ErrorKind::Invalid),
        (TenantId::generate(), "ann", ErrorKind::NotFound),
    ] {
        let error = members::set_member(&mut tx, tenant, principal, Role::Reader).await.unwrap_err();
        assert_eq!(error.kind(), refused);
    }
}

#[tokio::test]
async fn a_token_is_found_by_its_secret_alone() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 2).await;
    let scopes = [
        TokenScope::Tenant { tenant: ids[0], role: Role::Writer },
        TokenScope::Member { principal: "ann".to_owned() },
        TokenScope::Service { role: Role::Reader },
        TokenScope::Operator { role: OperatorRole::Admin },
        TokenScope::TenantMember { tenant: ids[0], principal: "ann".to_owned() },
        TokenScope::ImpersonationTicket(acting_as(ids[1], "bob")),
    ];
    let mut tx = fixture.catalog.write().await.unwrap();
    let mut made = Vec::new();
    for scope in scopes {
        made.push(tokens::create_token(&mut tx, scope, Some("test"), Some(START + 5)).await.unwrap());
    }
    tx.commit().await.unwrap();
    let mut tx = fixture.catalog.read().await.unwrap();
    for (token, secret) in &made {
        let secret = secret.expose_secret();
        assert_eq!(tokens::by_secret(&mut tx, secret).await.unwrap().as_ref(), Some(token));
        assert!(secret.starts_with("ftk_"));
        assert!(!fixture.world.stored().windows(secret.len()).any(|w| w == secret.as_bytes()));
    }
    let (_, foreign) = tokens_of_another_catalog().await;
    for bad in ["", "flt_x", foreign.as_str(), &"flt_".repeat(1_000)] {
        assert_eq!(tokens::by_secret(&mut tx, bad).await.unwrap(), None);
    }
    let (tenant, principal) = (Some(ids[0]), Some("ann".to_owned()));
    for (condition, after, expected) in [
        (TokenCondition { tenant, principal: None }, None, vec![0, 4]),
        (TokenCondition { tenant: None, principal: principal.clone() }, None, vec![1, 4]),
        (TokenCondition { tenant, principal }, None, vec![4]),
        (TokenCondition::default(), Some(made[1].0.id), vec![2, 3, 4, 5]),
    ] {
        let listed = tokens::list_tokens(&mut tx, &condition, after, 9).await.unwrap();
        let expected: Vec<_> = expected.into_iter().map(|number: usize| made[number].0.clone()).collect();
        assert_eq!(listed, expected, "{condition:?}");
    }
}

fn acting_as(tenant: TenantId, principal: &str) -> Impersonation {
    Impersonation { tenant, principal: principal.to_owned(), staff: "token:tok_1".to_owned() }
}

#[tokio::test]
async fn a_ticket_is_exchanged_once_by_its_tenant_and_in_time() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 2).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let ticket = TokenScope::ImpersonationTicket(acting_as(ids[0], "ann"));
    let (_, secret) = tokens::create_token(&mut tx, ticket.clone(), None, Some(START + 5)).await.unwrap();
    let (_, over) = tokens::create_token(&mut tx, ticket, None, Some(START)).await.unwrap();
    let scope = TokenScope::TenantMember { tenant: ids[0], principal: "ann".to_owned() };
    let (_, other) = tokens::create_token(&mut tx, scope, None, Some(START + 5)).await.unwrap();
    for (secret, tenant, refused) in
        [(&secret, ids[1], "another tenant"), (&over, ids[0], "over"), (&other, ids[0], "another kind")]
    {
        let redeemed = tokens::redeem_ticket(&mut tx, secret.expose_secret(), tenant, START + 9).await.unwrap();
        assert!(redeemed.is_none(), "{refused}");
    }
    let redeemed = tokens::redeem_ticket(&mut tx, secret.expose_secret(), ids[0], START + 9).await.unwrap();
    let (session, of, session_secret) = redeemed.unwrap();
    assert_eq!((&of, session.expires_at), (&acting_as(ids[0], "ann"), Some(START + 9)));
    assert_eq!(session.scope, TokenScope::Impersonation(of));
    let found = tokens::by_secret(&mut tx, session_secret.expose_secret()).await.unwrap();
    assert_eq!(found, Some(session));
    let again = tokens::redeem_ticket(&mut tx, secret.expose_secret(), ids[0], START + 9).await.unwrap();
    assert!(again.is_none(), "a second time");
    assert!(tokens::redeem_ticket(&mut tx, "x", ids[0], START + 9).await.unwrap().is_none());
}

async fn tokens_of_another_catalog() -> (tokens::TokenRecord, String) {
    let fixture = Fixture::new().await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let (token, secret) =
        tokens::create_token(&mut tx, TokenScope::Service { role: Role::Reader }, None, None).await.unwrap();
    (token, secret.expose_secret().to_owned())
}

#[tokio::test]
async fn a_revoked_token_stays_known_as_revoked() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let scope = TokenScope::Tenant { tenant: ids[0], role: Role::Reader };
    let (token, secret) = tokens::create_token(&mut tx, scope, None, None).await.unwrap();
    let revoked = tokens::revoke_token(&mut tx, token.id).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(START));
    let found = tokens::by_secret(&mut tx, secret.expose_secret()).await.unwrap();
    assert_eq!(found, Some(revoked));
    let missing = tokens::revoke_token(&mut tx, catalog::TokenId::generate()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let scope = TokenScope::Tenant { tenant: TenantId::generate(), role: Role::Reader };
    assert_eq!(tokens::create_token(&mut tx, scope, None, None).await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn release(tx: &mut WriteTx, sql: &str) -> ReleaseId {
    let files = vec![MigrationFile { name: "0001_a.sql".to_owned(), sql: sql.to_owned() }];
    let sets = MigrationSets::from_files(&files).unwrap();
    releases::ensure_release(tx, &sets, &files, "test").await.unwrap().id
}

#[tokio::test]
async fn a_release_is_stored_once_and_byte_for_byte() {
    let fixture = Fixture::new().await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let sql = "create table ü (x);\r\n-- end";
    let first = release(&mut tx, sql).await;
    let second = release(&mut tx, "create table b (x);").await;
    assert_eq!(release(&mut tx, sql).await, first);
    let files = releases::release_files(&mut tx, first).await.unwrap();
    assert_eq!((files.len(), files[0].name.as_str(), files[0].sql.as_str()), (1, "0001_a.sql", sql));
    let page: Vec<_> =
        releases::list_releases(&mut tx, None, 9).await.unwrap().iter().map(|release| release.id).collect();
    assert_eq!(page, [second, first]);
    let older = releases::list_releases(&mut tx, Some(second), 9).await.unwrap();
    assert_eq!((older[0].id, older[0].head_version), (first, Some(1)));
    assert_eq!(fleet::current_release(&mut tx).await.unwrap(), None);
    fleet::set_current_release(&mut tx, second).await.unwrap();
    assert_eq!(fleet::current_release(&mut tx).await.unwrap(), Some(second));
    let missing = fleet::set_current_release(&mut tx, ReleaseId::generate()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

pub(super) fn backup(tenant: TenantId, taken_at: i64) -> BackupRecord {
    let id = BackupId::generate();
    BackupRecord {
        id,
        tenant_id: tenant,
        op_id: None,
        object_key: format!("{tenant}/{id}.json"),
        engine: EngineKind::Sqlite,
        content_hash: "00".to_owned(),
        size_bytes: 4096,
        stored_bytes: 900,
        schema_version: Some(2),
        reason: "manual".to_owned(),
        taken_at,
        manifest_sha256: None,
        verified_at: None,
        verify_error: None,
        store: None,
    }
}

#[tokio::test]
async fn the_newest_backup_before_a_moment_is_found() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 2).await;
    let all = [backup(ids[0], 10), backup(ids[0], 20), backup(ids[1], 15)];
    let mut tx = fixture.catalog.write().await.unwrap();
    backups::insert_many(&mut tx, &all).await.unwrap();
    backups::insert_many(&mut tx, &all[..1]).await.unwrap();
    for (at, found) in [(None, Some(1)), (Some(20), Some(1)), (Some(19), Some(0)), (Some(10), Some(0)), (Some(9), None)]
    {
        let newest = backups::newest_backup(&mut tx, ids[0], at).await.unwrap();
        assert_eq!(newest, found.map(|index: usize| all[index].clone()), "{at:?}");
    }
    let page: Vec<_> =
        backups::list_backups(&mut tx, None, None, 9).await.unwrap().iter().map(|backup| backup.id).collect();
    assert_eq!(page, [all[2].id, all[1].id, all[0].id]);
    let older = backups::list_backups(&mut tx, Some(ids[0]), Some(all[1].id), 9).await.unwrap();
    assert_eq!(older, [all[0].clone()]);
    backups::set_verified(&mut tx, all[0].id, Some("hash differs")).await.unwrap();
    let verified = backups::get(&mut tx, all[0].id).await.unwrap().unwrap();
    assert_eq!((verified.verified_at, verified.verify_error.as_deref()), (Some(START), Some("hash differs")));
    let missing = backups::set_verified(&mut tx, BackupId::generate(), None).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let mut same_key = backup(ids[1], 1);
    same_key.object_key = all[0].object_key.clone();
    assert_eq!(backups::insert_many(&mut tx, &[same_key]).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[tokio::test]
async fn kept_databases_are_found_until_they_are_forgotten() {
    let fixture = Fixture::new().await;
    let (server, ids) = seed(&fixture.catalog, 1).await;
    let kept = |placement: &str, created_at: i64, reason: RetainedReason| RetainedRecord {
        tenant_id: ids[0],
        server_id: server,
        placement: placement.to_owned(),
        generation: Generation(created_at),
        reason,
        op_id: OperationId::generate(),
        schema_version: None,
        pin: None,
        created_at,
        keep_until: created_at + 100,
    };
    let all = [
        kept("a", 1, RetainedReason::Restore),
        kept("b", 2, RetainedReason::Move),
        kept("c", 3, RetainedReason::Restore),
    ];
    let mut tx = fixture.catalog.write().await.unwrap();
    for record in all.iter().chain(&all[..1]) {
        retained::insert_retained(&mut tx, record).await.unwrap();
    }
    assert_eq!(
        retained::newest_retained(&mut tx, ids[0], RetainedReason::Restore, Generation(9)).await.unwrap(),
        Some(all[2].clone())
    );
    assert_eq!(retained::of_tenant(&mut tx, ids[0]).await.unwrap().len(), 3);
    assert_eq!(retained::on_server(&mut tx, server).await.unwrap(), all);
    assert_eq!(retained::on_server(&mut tx, ServerId::generate()).await.unwrap(), []);
    assert_eq!(retained::expired_retained(&mut tx, 102, 9).await.unwrap(), all[..2]);
    let error = servers::set_state(&mut tx, server, ServerState::Removed).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    retained::remove_retained(&mut tx, server, "c").await.unwrap();
    assert_eq!(retained::remove_retained(&mut tx, server, "c").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        retained::newest_retained(&mut tx, ids[0], RetainedReason::Restore, Generation(9)).await.unwrap(),
        Some(all[0].clone())
    );
}

#[tokio::test]
async fn servers_change_state_and_count_their_databases() {
    let fixture = Fixture::new().await;
    let (server, ids) = seed(&fixture.catalog, 2).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let mut placed = TenantUpdate::for_generation(ids[0], Generation(1));
    placed.placement = Some(Some("p".to_owned()));
    tenants::update_many(&mut tx, &[placed]).await.unwrap();
    servers::set_state(&mut tx, server, ServerState::Cordoned).await.unwrap();
    let list = servers::list_servers(&mut tx).await.unwrap();
    assert_eq!((list.len(), list[0].0.state, list[0].1), (1, ServerState::Cordoned, 1));
    let other = super::server(&mut tx, "empty", std::path::Path::new("/srv/b")).await;
    servers::set_state(&mut tx, other, ServerState::Removed).await.unwrap();
    assert_eq!(servers::list_servers(&mut tx).await.unwrap().len(), 1);
    assert_eq!(servers::get(&mut tx, other).await.unwrap().unwrap().state, ServerState::Removed);
    let missing = servers::set_state(&mut tx, catalog::ServerId::generate(), ServerState::Active).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn events_come_out_in_the_order_they_went_in() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 2).await;
    let event = |number: usize| NewEvent {
        kind: "tenant.created".to_owned(),
        actor: "token:x".to_owned(),
        tenant_id: Some(ids[number % 2]),
        op_id: None,
        request_id: Some(format!("r{number}")),
        data: serde_json::json!({"number": number, "text": "it's \"quoted\""}),
    };
    let mut tx = fixture.catalog.write().await.unwrap();
    events::append_events(&mut tx, &(0..300).map(event).collect::<Vec<_>>()).await.unwrap();
    events::append_events(&mut tx, &[event(300)]).await.unwrap();
    let all = events::list_events(&mut tx, None, None, 0, 1_000).await.unwrap();
    assert!(all.iter().enumerate().all(|(n, found)| found.event.data["number"] == n && found.at == START));
    assert_eq!(all.iter().map(|found| found.seq).collect::<Vec<_>>(), (1..=301).collect::<Vec<_>>());
    let one = events::list_events(&mut tx, Some(ids[1]), None, 10, 2).await.unwrap();
    assert_eq!(one.iter().map(|found| found.seq).collect::<Vec<_>>(), [12, 14]);
    assert!(events::list_events(&mut tx, None, Some(OperationId::generate()), 0, 9).await.unwrap().is_empty());
}

/// Its lease ends at [`START`] + 100.
fn taker(owner: &str, is_running: bool) -> IdempotencyClaimant<'_> {
    IdempotencyClaimant { owner, is_running, until: START + 100 }
}

fn taken(owner: &str) -> ClaimedIdempotencyKey {
    ClaimedIdempotencyKey { key: "k".to_owned(), owner: owner.to_owned() }
}

#[tokio::test]
async fn a_repeated_request_gets_its_first_answer() {
    let fixture = Fixture::new().await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let mine = taker("p", true);
    assert_eq!(idempotency::begin_request(&mut tx, "ann", "k", "h", mine).await.unwrap(), IdempotencyLookup::New);
    assert_eq!(idempotency::begin_request(&mut tx, "ann", "k", "h", mine).await.unwrap(), IdempotencyLookup::Running);
    assert_eq!(idempotency::begin_request(&mut tx, "bob", "k", "h", mine).await.unwrap(), IdempotencyLookup::New);
    idempotency::finish_request(&mut tx, "ann", &taken("p"), 201, "{\"secret\":\"flt_abc\"}").await.unwrap();
    let answered = idempotency::begin_request(&mut tx, "ann", "k", "h", mine).await.unwrap();
    assert_eq!(answered, IdempotencyLookup::Answered { status: 201, body: "{\"secret\":\"flt_abc\"}".to_owned() });
    assert_eq!(
        idempotency::begin_request(&mut tx, "ann", "k", "other", mine).await.unwrap(),
        IdempotencyLookup::Different
    );
    tx.commit().await.unwrap();
    fixture.catalog.close().await;
    let file = fixture.world.stored();
    assert!(!file.windows(7).any(|window| window == b"flt_abc"), "sealed at rest");

    let again = fixture.other_process().await;
    let mut tx = again.write().await.unwrap();
    idempotency::forget_key(&mut tx, "bob", &taken("p")).await.unwrap();
    let gone = idempotency::finish_request(&mut tx, "bob", &taken("p"), 200, "").await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert_eq!(idempotency::begin_request(&mut tx, "bob", "k", "h", mine).await.unwrap(), IdempotencyLookup::New);
    assert_eq!(idempotency::trim_keys(&mut tx, START).await.unwrap(), 0);
    assert_eq!(idempotency::trim_keys(&mut tx, START + 1).await.unwrap(), 2);
    let long = "k".repeat(256);
    for bad in ["", long.as_str()] {
        let refused = idempotency::begin_request(&mut tx, "ann", bad, "h", mine).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
}

/// Of another process only the lease tells whether it still runs the request; of its own a process knows.
#[tokio::test]
async fn a_key_is_held_while_its_process_runs_the_request() {
    let fixture = Fixture::new().await;
    let mut tx = fixture.catalog.write().await.unwrap();
    for actor in ["ann", "bob", "eve"] {
        idempotency::begin_request(&mut tx, actor, "k", "h", taker("p", false)).await.unwrap();
    }
    let other = taker("q", false);
    assert_eq!(idempotency::begin_request(&mut tx, "ann", "k", "h", other).await.unwrap(), IdempotencyLookup::Running);
    assert_eq!(
        idempotency::begin_request(&mut tx, "ann", "k", "h", taker("p", true)).await.unwrap(),
        IdempotencyLookup::Running
    );
    let refused_before = taker("p", false);
    assert_eq!(
        idempotency::begin_request(&mut tx, "ann", "k", "mended", refused_before).await.unwrap(),
        IdempotencyLookup::New
    );
    idempotency::renew_key(&mut tx, "ann", &taken("p"), START + 200).await.unwrap();
    tx.commit().await.unwrap();

    fixture.advance(100);
    let mut tx = fixture.catalog.write().await.unwrap();
    let later = IdempotencyClaimant { until: START + 300, ..other };
    assert_eq!(
        idempotency::begin_request(&mut tx, "ann", "k", "mended", later).await.unwrap(),
        IdempotencyLookup::Running,
        "renewed"
    );
    assert_eq!(
        idempotency::begin_request(&mut tx, "bob", "k", "h", later).await.unwrap(),
        IdempotencyLookup::New,
        "its lease ended"
    );
    // The first one goes on after all: only one of two requests may count.
    let late = idempotency::finish_request(&mut tx, "bob", &taken("p"), 200, "").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::NotFound);
    idempotency::forget_key(&mut tx, "bob", &taken("p")).await.unwrap();
    assert_eq!(
        idempotency::begin_request(&mut tx, "bob", "k", "h", taker("x", false)).await.unwrap(),
        IdempotencyLookup::Running
    );
    // A successor frees what is left of it, and nothing else.
    idempotency::finish_request(&mut tx, "eve", &taken("p"), 200, "{}").await.unwrap();
    assert_eq!(idempotency::release_keys(&mut tx, "p").await.unwrap(), 1);
    assert_eq!(idempotency::begin_request(&mut tx, "ann", "k", "h", later).await.unwrap(), IdempotencyLookup::New);
    assert_eq!(
        idempotency::begin_request(&mut tx, "bob", "k", "h", taker("x", false)).await.unwrap(),
        IdempotencyLookup::Running
    );
    let answered = idempotency::begin_request(&mut tx, "eve", "k", "h", later).await.unwrap();
    assert!(matches!(answered, IdempotencyLookup::Answered { status: 200, .. }));
}

#[tokio::test]
async fn a_renamed_tenant_keeps_its_old_names() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 2).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    tenants::rename_tenant(&mut tx, ids[0], &slug("new")).await.unwrap();
    let of_first = names::of_tenant(&mut tx, ids[0]).await.unwrap();
    assert_eq!(of_first, [(slug("new"), NameKind::Slug), (slug("t0"), NameKind::Alias)]);
    assert_eq!(tenants::by_name(&mut tx, &slug("t0")).await.unwrap().unwrap().name, "new");
    for taken in ["t1", "t0", "new"] {
        let refused = tenants::rename_tenant(&mut tx, ids[1], &slug(taken)).await.err().map(|error| error.kind());
        assert_eq!(refused, (taken != "t1").then_some(ErrorKind::AlreadyExists), "{taken}");
    }
    tenants::rename_tenant(&mut tx, ids[0], &slug("t0")).await.unwrap();
    let of_first = names::of_tenant(&mut tx, ids[0]).await.unwrap();
    assert_eq!(of_first, [(slug("t0"), NameKind::Slug), (slug("new"), NameKind::Alias)]);
    let missing = tenants::rename_tenant(&mut tx, TenantId::generate(), &slug("x")).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}
