//! Custom domains of tenants: who has added a host, and who has proven control of it.
//!
//! Several tenants may add one host. At most one of them is active. Only an active domain has a row in `names`, which
//! the router reads. Both rows change in one transaction, which also appends to the change feed. This module looks up
//! nothing in the DNS: its callers report what they found.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::bulk::{capped_limit, dynamic_query, placeholder_list, sized_chunks};
use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::TenantId;
use crate::name::{NameKind, TenantName};
use crate::names;
use crate::row;
use crate::seal::lower_hex;
use crate::tenants;
use crate::text_enum::TextEnum;

/// Maximum number of domains of one tenant, because each active one is looked up in the DNS every day.
const DOMAINS_MAX: i64 = 100;
/// Length of a nonce in bytes.
const NONCE_BYTES: usize = 16;

const COLUMNS: &str = "tenant_id, host, state, nonce, created_at, verified_at, checked_at, check_error, failing_since, \
                       failed_checks";

/// The state of a custom domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainState {
    /// Added, but never proven. The host leads nowhere.
    Pending,
    /// Proven: the host leads to the tenant.
    Active,
    /// It was active, but its proof is gone. The host leads nowhere.
    Expired,
}

impl TextEnum for DomainState {
    const NOUN: &'static str = "state of a domain";
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Pending, "pending"), (Self::Active, "active"), (Self::Expired, "expired")];
}

/// One row of `domains`. Times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainRecord {
    /// The tenant that added the host.
    pub tenant_id: TenantId,
    /// The host, in normal form.
    pub host: TenantName,
    /// The state of the domain.
    pub state: DomainState,
    /// The value of the TXT record that proves control: 64 hexadecimal digits. Nobody can guess it without the fleet's
    /// key, and it differs for each tenant and each addition.
    pub challenge: String,
    /// When it was added.
    pub created_at: i64,
    /// When a check last found the TXT record; `None`: never.
    pub verified_at: Option<i64>,
    /// The time of the last check; `None`: never.
    pub checked_at: Option<i64>,
    /// What the last check found instead of the TXT record; `None`: it found the record.
    pub check_error: Option<String>,
    /// For an active domain: the first check that found no TXT record since one found it.
    pub failing_since: Option<i64>,
    /// The number of such checks.
    pub failed_checks: i64,
    nonce: String,
}

/// What a check found that did not prove control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedCheck {
    /// What it found, for people.
    pub error: String,
    /// See [`DomainRecord::failing_since`].
    pub failing_since: Option<i64>,
    /// See [`DomainRecord::failed_checks`].
    pub failed_checks: i64,
}

/// Adds a pending domain to a tenant. The host leads nowhere until [`activate_domain`].
///
/// # Errors
/// `AlreadyExists` when the tenant has the domain; `Conflict` when it has too many; `Invalid` for a host without a dot;
/// `NotFound` for an unknown tenant.
pub async fn add_domain(tx: &mut WriteTx, tenant: TenantId, host: &TenantName) -> Result<DomainRecord> {
    if !host.as_str().contains('.') {
        return Err(Error::new(ErrorKind::Invalid, format!("'{host}' needs a dot to be a custom domain")));
    }
    if get(tx, tenant, host).await?.is_some() {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("the tenant has the domain '{host}' already")));
    }
    if count_domains(tx, tenant).await? >= DOMAINS_MAX {
        let message = format!("a tenant has at most {DOMAINS_MAX} custom domains: remove one first");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let sql = "insert into domains (tenant_id, host, state, nonce, created_at, failed_checks) \
               values ($1, $2, 'pending', $3, $4, 0)";
    let now = tx.now();
    let sql = sqlx::query(sql).bind(tenant.to_string()).bind(host.as_str().to_owned()).bind(new_nonce()).bind(now);
    tx.execute_sql(sql).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => tenants::tenant_not_found(tenant),
        _ => error,
    })?;
    get(tx, tenant, host).await?.ok_or_else(|| no_such_domain(host))
}

/// A tenant's domain with this host, in any state.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn get(tx: &mut ReadTx, tenant: TenantId, host: &TenantName) -> Result<Option<DomainRecord>> {
    let sql = dynamic_query(format!("select {COLUMNS} from domains where tenant_id = $1 and host = $2"));
    let found = tx.fetch_row(sql.bind(tenant.to_string()).bind(host.as_str().to_owned())).await?;
    found.map(|row| domain_from_row(tx, &row)).transpose()
}

/// A page of a tenant's domains in the order of hosts after `after`.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_domains(
    tx: &mut ReadTx,
    tenant: TenantId,
    after: Option<&str>,
    page_limit: u32,
) -> Result<Vec<DomainRecord>> {
    // Hosts are never empty, so the empty one sorts before all.
    let sql = format!("select {COLUMNS} from domains where tenant_id = $1 and host > $2 order by host limit $3");
    let sql = dynamic_query(sql).bind(tenant.to_string()).bind(after.unwrap_or_default().to_owned());
    let rows = tx.fetch_rows(sql.bind(capped_limit(page_limit))).await?;
    rows.iter().map(|row| domain_from_row(tx, row)).collect()
}

/// Active domains whose last check was before `checked_before`, the oldest check first.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn due_domains(tx: &mut ReadTx, checked_before: i64, page_limit: u32) -> Result<Vec<DomainRecord>> {
    let sql = format!(
        "select {COLUMNS} from domains where state = 'active' and checked_at < $1 order by checked_at, host limit $2"
    );
    let rows = tx.fetch_rows(dynamic_query(sql).bind(checked_before).bind(capped_limit(page_limit))).await?;
    rows.iter().map(|row| domain_from_row(tx, row)).collect()
}

/// Whether requests for this host reach a tenant that is neither deleted nor purged. One statement by index.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn is_active(tx: &mut ReadTx, host: &TenantName) -> Result<bool> {
    let sql = "select 1 as found from domains d join tenants t on t.id = d.tenant_id \
               where d.host = $1 and d.state = 'active' and t.state not in ('deleted', 'purged')";
    Ok(tx.fetch_row(sqlx::query(sql).bind(host.as_str().to_owned())).await?.is_some())
}

/// Records that a check found the TXT record of this domain, and makes the domain active if it is not.
///
/// # Errors
/// `AlreadyExists` when the host belongs to another tenant, which the message does not name; `Conflict` when the domain
/// was removed or added anew meanwhile.
pub async fn activate_domain(tx: &mut WriteTx, domain: &DomainRecord) -> Result<()> {
    let owner = names::resolve_name(tx, &domain.host).await?;
    if owner.is_some_and(|owner| owner != domain.tenant_id) {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("the domain '{}' is in use", domain.host)));
    }
    let now = tx.now();
    let sql = "update domains set state = 'active', verified_at = $4, checked_at = $4, check_error = null, \
               failing_since = null, failed_checks = 0 where tenant_id = $1 and host = $2 and nonce = $3";
    let sql = sqlx::query(sql).bind(domain.tenant_id.to_string()).bind(domain.host.as_str().to_owned());
    require_updated(tx.execute_sql(sql.bind(domain.nonce.clone()).bind(now)).await?, domain)?;
    match owner {
        None => names::insert_name(tx, &domain.host, domain.tenant_id, NameKind::Host).await,
        Some(_) => Ok(()),
    }
}

/// Records a check that did not find the TXT record. The state stays.
///
/// # Errors
/// `Conflict` when the domain was removed or added anew meanwhile.
pub async fn record_failed_check(tx: &mut WriteTx, domain: &DomainRecord, check: FailedCheck) -> Result<()> {
    let now = tx.now();
    let sql = "update domains set checked_at = $4, check_error = $5, failing_since = $6, failed_checks = $7 \
               where tenant_id = $1 and host = $2 and nonce = $3";
    let sql = sqlx::query(sql).bind(domain.tenant_id.to_string()).bind(domain.host.as_str().to_owned());
    let sql = sql.bind(domain.nonce.clone()).bind(now).bind(check.error).bind(check.failing_since);
    require_updated(tx.execute_sql(sql.bind(check.failed_checks)).await?, domain)
}

/// Ends an active domain whose proof is gone: the host leads nowhere, and another tenant may prove it.
///
/// # Errors
/// `Conflict` when the domain was removed, added anew or has expired meanwhile.
pub async fn expire_domain(tx: &mut WriteTx, domain: &DomainRecord, error: &str) -> Result<()> {
    let now = tx.now();
    let sql = "update domains set state = 'expired', checked_at = $4, check_error = $5 \
               where tenant_id = $1 and host = $2 and nonce = $3 and state = 'active'";
    let sql = sqlx::query(sql).bind(domain.tenant_id.to_string()).bind(domain.host.as_str().to_owned());
    let ended = tx.execute_sql(sql.bind(domain.nonce.clone()).bind(now).bind(error.to_owned())).await?;
    require_updated(ended, domain)?;
    names::remove_host(tx, &domain.host, domain.tenant_id).await?;
    changes::append_changes(tx, &[domain.tenant_id]).await
}

/// Removes a domain from a tenant. If it was active, the host leads nowhere from now on.
///
/// # Errors
/// `NotFound` when the tenant has no such domain.
pub async fn remove_domain(tx: &mut WriteTx, tenant: TenantId, host: &TenantName) -> Result<()> {
    let sql = sqlx::query("delete from domains where tenant_id = $1 and host = $2");
    if tx.execute_sql(sql.bind(tenant.to_string()).bind(host.as_str().to_owned())).await? == 0 {
        return Err(no_such_domain(host));
    }
    names::remove_host(tx, host, tenant).await?;
    changes::append_changes(tx, &[tenant]).await
}

/// Removes all domains of these tenants, which are gone. The caller appends to the change feed.
pub(crate) async fn remove_all_domains(tx: &mut WriteTx, tenants: &[TenantId]) -> Result<()> {
    for chunk in sized_chunks(tenants) {
        let ids = placeholder_list(1, chunk.len());
        for sql in [
            format!("delete from names where kind = 'host' and tenant_id in ({ids})"),
            format!("delete from domains where tenant_id in ({ids})"),
        ] {
            tx.execute_sql(tenants::bind_ids(dynamic_query(sql), chunk)).await?;
        }
    }
    Ok(())
}

/// Takes back all proofs, because they belong to another fleet. The hosts lead nowhere until they are proven anew.
pub(crate) async fn forget_proofs(tx: &mut WriteTx) -> Result<()> {
    for sql in [
        "delete from names where kind = 'host'",
        "update domains set state = 'pending', verified_at = null, checked_at = null, check_error = null, \
         failing_since = null, failed_checks = 0",
    ] {
        tx.execute_sql(sqlx::query(sql)).await?;
    }
    Ok(())
}

async fn count_domains(tx: &mut ReadTx, tenant: TenantId) -> Result<i64> {
    let sql = sqlx::query("select count(*) as domains from domains where tenant_id = $1");
    tx.fetch_row(sql.bind(tenant.to_string())).await?.map_or(Ok(0), |row| row::int_column(&row, "domains"))
}

fn require_updated(updated: i64, domain: &DomainRecord) -> Result<()> {
    match updated {
        0 => Err(Error::new(ErrorKind::Conflict, format!("the domain '{}' changed meanwhile", domain.host))),
        _ => Ok(()),
    }
}

fn no_such_domain(host: &TenantName) -> Error {
    Error::new(ErrorKind::NotFound, format!("the tenant has no domain '{host}'"))
}

fn new_nonce() -> String {
    let mut bytes = [0; NONCE_BYTES];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    lower_hex(&bytes)
}

/// The value of the TXT record of a domain. The ids and the nonce have fixed forms without spaces.
fn challenge_of(tx: &ReadTx, tenant: TenantId, host: &str, nonce: &str) -> String {
    let text = format!("{} {tenant} {nonce}", tx.fleet_id());
    tx.sealer().derive_text(("domains", "challenge", host), text.as_bytes())
}

fn domain_from_row(tx: &ReadTx, row: &AnyRow) -> Result<DomainRecord> {
    let (tenant_id, host) = (row::parsed_column(row, "tenant_id")?, row::text_column(row, "host")?);
    let nonce = row::text_column(row, "nonce")?;
    Ok(DomainRecord {
        tenant_id,
        challenge: challenge_of(tx, tenant_id, &host, &nonce),
        host: TenantName::from_stored(host),
        state: row::enum_column(row, "state")?,
        created_at: row::int_column(row, "created_at")?,
        verified_at: row::nullable_int(row, "verified_at")?,
        checked_at: row::nullable_int(row, "checked_at")?,
        check_error: row::nullable_text(row, "check_error")?,
        failing_since: row::nullable_int(row, "failing_since")?,
        failed_checks: row::int_column(row, "failed_checks")?,
        nonce,
    })
}
