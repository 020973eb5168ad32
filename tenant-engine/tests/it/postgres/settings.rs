//! Parameters of a server, a database or a role must not change what tenants' statements, migrations and restores mean.

use std::collections::BTreeMap;

use postgres_fixture::Settings;
use tenant_engine::*;

use super::kit::{Kit, Tenant, set};

/// A server whose every parameter of this kind has another value than PostgreSQL's own.
const ODD: [&str; 28] = [
    "search_path='nosuch'",
    "datestyle='SQL, DMY'",
    "intervalstyle='sql_standard'",
    "timezone='America/New_York'",
    "timezone_abbreviations='Australia'",
    "bytea_output='escape'",
    "extra_float_digits=-15",
    "xmlbinary='hex'",
    "xmloption='document'",
    "quote_all_identifiers=on",
    "standard_conforming_strings=off",
    "backslash_quote=on",
    "array_nulls=off",
    "transform_null_equals=on",
    "default_text_search_config='pg_catalog.german'",
    "default_transaction_isolation='serializable'",
    "default_transaction_deferrable=on",
    "exit_on_error=off",
    "row_security=off",
    "gin_fuzzy_search_limit=1",
    "temp_tablespaces='nowhere'",
    "default_toast_compression='lz4'",
    "check_function_bodies=off",
    "plpgsql.extra_errors='all'",
    "plpgsql.extra_warnings='all'",
    "plpgsql.check_asserts=off",
    "lock_timeout='1ms'",
    "statement_timeout='2s'",
];

/// What `pg_restore` sets by itself, for its session only, and the limits that each kind of session has of its own.
const OWN: [&str; 9] = [
    "search_path",
    "xmloption",
    "row_security",
    "check_function_bodies",
    "client_min_messages",
    "default_tablespace",
    "lock_timeout",
    "statement_timeout",
    "default_transaction_read_only",
];

/// Any role may set these, and they change no result: plans, memory, cost, speed, messages, statistics, times. Settings
/// that only some versions know cannot be given at a connect.
const NO_RESULT: &[&str] = &[
    "application_name",
    "backend_flush_after",
    "client_connection_check_interval",
    "client_encoding",
    "client_min_messages",
    "commit_siblings",
    "constraint_exclusion",
    "cpu_index_tuple_cost",
    "cpu_operator_cost",
    "cpu_tuple_cost",
    "createrole_self_grant",
    "cursor_tuple_fraction",
    "debug_logical_replication_streaming",
    "debug_parallel_query",
    "debug_pretty_print",
    "debug_print_parse",
    "debug_print_plan",
    "debug_print_rewritten",
    "default_statistics_target",
    "effective_cache_size",
    "effective_io_concurrency",
    "enable_",
    "escape_string_warning",
    "file_copy_method",
    "force_parallel_mode",
    "from_collapse_limit",
    "geqo",
    "gin_pending_list_limit",
    "hash_mem_multiplier",
    "icu_validation_level",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "io_combine_limit",
    "jit",
    "join_collapse_limit",
    "log_parameter_max_length_on_error",
    "logical_decoding_work_mem",
    "maintenance_io_concurrency",
    "maintenance_work_mem",
    "max_parallel_maintenance_workers",
    "max_parallel_workers",
    "min_parallel_",
    "parallel_",
    "password_encryption",
    "plan_cache_mode",
    "random_page_cost",
    "recursive_worktable_factor",
    "restrict_nonsystem_relation_kind",
    "scram_iterations",
    "seq_page_cost",
    "stats_fetch_consistency",
    "synchronize_seqscans",
    "synchronous_commit",
    "tcp_",
    "temp_buffers",
    "trace_",
    "transaction_",
    "vacuum_",
    "wal_sender_timeout",
    "wal_skip_threshold",
    "work_mem",
    "ssl_renegotiation_limit",
    "debug_",
    "role",
    "session_authorization",
    "seed",
];

const SEEN: &str = "select name, setting from pg_catalog.pg_settings where context = 'user'";

fn with_odd_settings() -> Kit {
    let more = ODD.iter().map(|setting| (*setting).to_owned()).collect();
    Kit::with(&Settings { more, ..Settings::default() })
}

/// The settings that a session saw, without those that may differ.
fn read(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.filter(|(name, _)| !OWN.contains(name) && !NO_RESULT.iter().any(|start| name.starts_with(start)));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

async fn of_request(kit: &Kit, tenant: &Tenant, access: AccessMode) -> BTreeMap<String, String> {
    let pool = kit.engine.open_pool(&tenant.at, &tenant.expected()).await.unwrap();
    let sql = "select string_agg(name || '=' || setting, e'\\n') from shown()".to_owned();
    let statement = SqlStatement { sql, params: Vec::new() };
    let rows = pool
        .new_session(access, SessionLimits::default())
        .run_statements(vec![statement], AfterStatements::Commit)
        .await
        .unwrap();
    pool.close().await;
    match &rows[0].rows[0][0] {
        SqlValue::Text(text) => read(text),
        other => panic!("{other:?}"),
    }
}

fn of_relation(kit: &Kit, tenant: &Tenant, name: &str) -> BTreeMap<String, String> {
    read(&kit.ask(tenant, &format!("select name || '=' || setting from public.{name}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_write_migrate_and_restore_have_the_same_settings() {
    let kit = with_odd_settings();
    let schema = format!(
        "create function shown() returns table(name text, setting text) language sql as $$ {SEEN} $$;
         create table migrated as {SEEN};
         create materialized view restored as {SEEN};"
    );
    let tenant = kit.provisioned(&set(&[("1_schema.sql", &schema)])).await;
    for role in [tenant.login(AccessMode::Read), tenant.login(AccessMode::Write)] {
        let role = format!("alter role \"{role}\" set");
        kit.cluster.psql("postgres", &format!("{role} timezone = 'Asia/Tokyo'; {role} transform_null_equals = on"));
    }
    let database = format!("alter database \"{}\" set", tenant.database());
    kit.cluster.psql("postgres", &format!("{database} search_path = 'nosuch'; {database} intervalstyle = 'iso_8601'"));
    let written = of_request(&kit, &tenant, AccessMode::Write).await;
    assert_eq!(written["TimeZone"], "UTC");
    assert_eq!(written["transform_null_equals"], "off");
    assert!(written.len() > 20, "{written:?}");
    assert_eq!(of_request(&kit, &tenant, AccessMode::Read).await, written);
    assert_eq!(of_relation(&kit, &tenant, "migrated"), written);
    assert_eq!(of_relation(&kit, &tenant, "restored"), written, "migrated");
    let image = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap().image;
    let copy = kit.placed(Identity { tenant: TenantId::generate(), ..tenant.identity.clone() });
    kit.engine.restore_database(&copy.at, image, tenant.identity.tenant, &copy.identity).await.unwrap();
    assert_eq!(of_relation(&kit, &copy, "restored"), written, "restored");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_parameter_that_any_role_may_set_is_given_or_changes_no_result() {
    let kit = with_odd_settings();
    let all = kit.cluster.psql("postgres", "load 'plpgsql'; select name from pg_settings where context = 'user'");
    let given = include_str!("../../../src/postgres/servers/settings.rs").to_lowercase();
    let unknown: Vec<_> = all
        .lines()
        .filter(|name| !given.contains(&format!("(\"{}\",", name.to_lowercase())))
        .filter(|name| !NO_RESULT.iter().any(|start| name.starts_with(start)))
        .collect();
    assert!(unknown.is_empty(), "neither given at the connect nor known to change no result: {unknown:?}");
    for odd in ODD {
        let name = odd.split('=').next().unwrap();
        assert!(given.contains(&format!("(\"{name}\",")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_tenant_takes_bounded_memory_whatever_the_server_allows() {
    let wide =
        ["work_mem='4GB'", "hash_mem_multiplier=1000", "max_parallel_workers_per_gather=64", "temp_buffers='1GB'"];
    let more = wide.iter().map(|setting| (*setting).to_owned()).collect();
    let kit = Kit::with(&Settings { more, ..Settings::default() });
    let shown = "create function shown() returns text language sql as $$ select string_agg(name || '=' || setting, ' ' \
                 order by name) from pg_settings where name in ('work_mem', 'hash_mem_multiplier', \
                 'max_parallel_workers_per_gather', 'temp_buffers') $$";
    let tenant = kit.provisioned(&set(&[("1_schema.sql", shown)])).await;
    for access in [AccessMode::Read, AccessMode::Write] {
        let role = tenant.login(access);
        kit.cluster.psql("postgres", &format!("alter role \"{role}\" set work_mem = '8GB'"));
        let pool = kit.engine.open_pool(&tenant.at, &tenant.expected()).await.unwrap();
        let statement = SqlStatement { sql: "select shown()".to_owned(), params: Vec::new() };
        let rows = pool
            .new_session(access, SessionLimits::default())
            .run_statements(vec![statement], AfterStatements::Commit)
            .await
            .unwrap();
        pool.close().await;
        let bounded = "hash_mem_multiplier=2 max_parallel_workers_per_gather=2 temp_buffers=128 work_mem=16384";
        assert_eq!(rows[0].rows[0][0], SqlValue::Text(bounded.to_owned()));
    }
}
