//! What somebody changed on a server is found, with the statement that puts it right.

use tenant_engine::*;

use super::kit::{BASE, Kit, set};

async fn findings(kit: &Kit) -> Vec<RoleFinding> {
    kit.engine.audit_roles(&kit.server()).await.unwrap().findings
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_roles_rights_and_settings_is_found_and_cured() {
    let kit = Kit::new();
    let (tenant, other) = (kit.provisioned(&set(&BASE)).await, kit.provisioned(&set(&BASE)).await);
    kit.migrate(&tenant, &set(&BASE)).await.unwrap();
    let audit = kit.engine.audit_roles(&kit.server()).await.unwrap();
    assert_eq!(audit, RoleAudit { findings: Vec::new(), databases: 2, entered: 2 });
    let (d, e) = (tenant.database(), other.database());
    kit.cluster.psql("postgres", "create role stranger");
    for (change, what) in [
        (format!("alter role {d}_r superuser"), "is SUPERUSER"),
        (format!("alter role {d}_w createrole"), "is CREATEROLE"),
        (format!("alter role {d}_w createdb"), "is CREATEDB"),
        (format!("alter role {d}_r replication"), "is REPLICATION"),
        (format!("alter role {d}_r bypassrls"), "is BYPASSRLS"),
        ("alter role fleet_write bypassrls".to_owned(), "role fleet_write is BYPASSRLS"),
        ("alter role fleet_owner login".to_owned(), "role fleet_owner is LOGIN"),
        (format!("grant pg_read_all_stats to {d}_r"), "is a member of pg_read_all_stats"),
        (format!("grant fleet_write to {d}_r"), "is a member of fleet_write"),
        (format!("grant {e}_r to {d}_r"), "is a member of"),
        (format!("grant {d}_w to stranger"), "role stranger is a member of"),
        ("grant fleet_owner to stranger".to_owned(), "role stranger is a member of fleet_owner"),
        ("grant pg_signal_backend to fleet_owner".to_owned(), "role fleet_owner is a member of pg_signal_backend"),
        (format!("alter role {d}_w set search_path = 'x'"), "setting search_path=x of role"),
        (format!("alter role {d}_w in database {d} set work_mem = '1GB'"), "in database"),
        ("alter role fleet_owner set search_path = 'x'".to_owned(), "setting search_path=x of role fleet_owner"),
        (format!("alter role {d}_r set default_transaction_read_only = off"), "default_transaction_read_only=off"),
        (format!("alter database {d} set timezone = 'Asia/Tokyo'"), "setting TimeZone=Asia/Tokyo of database"),
        (format!("grant connect on database {d} to public"), "everybody may connect"),
        (format!("grant connect on database {d} to {e}_w"), "may connect to database"),
        (format!("grant connect on database {d} to fleet_owner"), "fleet_owner may connect"),
        (format!("alter database {d} owner to fleet_owner"), "belongs to fleet_owner"),
        (format!("create role {e}_m login valid until '2020-01-01'"), "is left over"),
        (format!("create role t_{}_g1_1_m login", "0".repeat(32)), "is left over"),
    ] {
        kit.cluster.psql("postgres", &change);
        let found = findings(&kit).await;
        assert!(found.iter().any(|found| found.what.contains(what)), "{change}: {found:?}");
        for RoleFinding { cure, .. } in &found {
            kit.cluster.psql("postgres", &cure.replace("current_user", "fleet"));
        }
        // Taking back what was given to the default setting leaves none; the next use of the database gives it again.
        kit.cluster.psql("postgres", &format!("alter role {d}_r set default_transaction_read_only = on"));
        assert_eq!(findings(&kit).await, [], "{change}");
    }
    kit.cluster.psql(d, "alter table _fleet_identity owner to fleet_owner");
    let found = findings(&kit).await;
    assert!(found[0].what.contains("_fleet_identity") && found.len() == 1, "{found:?}");
    kit.cluster.psql(d, &found[0].cure);
    assert_eq!(findings(&kit).await, []);
    let pool = kit.engine.open_pool(&tenant.at, &tenant.expected()).await.unwrap();
    let statement = SqlStatement { sql: "select count(*) from tasks".to_owned(), params: Vec::new() };
    pool.new_session(AccessMode::Read, SessionLimits::default())
        .run_statements(vec![statement], AfterStatements::Commit)
        .await
        .unwrap();
}
