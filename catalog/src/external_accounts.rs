//! Accounts of tenants with other services. A webhook of such an account is for the tenant that is linked here.

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::any::AnyRow;

use crate::bulk::{capped_limit, dynamic_query};
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::TenantId;
use crate::row;
use crate::tenants;

/// Maximum number of accounts of one tenant.
const ACCOUNTS_MAX: i64 = 100;
/// Maximum length of the name of a provider.
const PROVIDER_BYTES_MAX: usize = 63;
/// Maximum length of the id of an account.
const ACCOUNT_BYTES_MAX: usize = 255;
/// Minimum length of a secret: a shorter one can be guessed.
const SECRET_BYTES_MIN: usize = 16;

const COLUMNS: &str =
    "provider, account, tenant_id, case when secret is null then 0 else 1 end as has_secret, created_at";

/// One row of `external_accounts`, without the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    /// The application's name for the service.
    pub provider: String,
    /// The service's id of the account.
    pub account: String,
    /// The tenant that has the account.
    pub tenant_id: TenantId,
    /// Whether the account has a secret of its own.
    pub has_secret: bool,
    /// When it was linked, milliseconds since 1970.
    pub created_at: i64,
}

/// The tenant of an account, and the secret that signs the account's webhooks.
#[derive(Debug)]
pub struct AccountOwner {
    /// The tenant that has the account.
    pub tenant: TenantId,
    /// `None` when the application has one secret for all accounts.
    pub secret: Option<SecretString>,
}

/// Links an account to a tenant. Linking it to the tenant again replaces the secret.
///
/// # Errors
/// `Conflict` when another tenant has the account, or when this tenant has too many; `Invalid` for names or a secret that are
/// too long, too short or have control characters; `NotFound` for an unknown tenant.
pub async fn link_account(
    tx: &mut WriteTx,
    tenant: TenantId,
    (provider, account): (&str, &str),
    secret: Option<&SecretString>,
) -> Result<AccountRecord> {
    check_texts(provider, account, secret)?;
    match account_owner(tx, provider, account).await? {
        Some(owner) if owner.tenant != tenant && !is_purged(tx, owner.tenant).await? => {
            let message = format!("another tenant has the account '{account}' of '{provider}': unlink it there first");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        Some(_) => {}
        None => refuse_too_many(tx, tenant).await?,
    }
    let context = secret_id(provider, account);
    let sealed = secret.map(|plain| tx.sealer().seal_value(secret_context(&context), plain.expose_secret().as_bytes()));
    let sql = "insert into external_accounts (provider, account, tenant_id, secret, created_at) \
               values ($1, $2, $3, $4, $5) on conflict (provider, account) do update \
               set tenant_id = excluded.tenant_id, secret = excluded.secret";
    let now = tx.now();
    let sql = sqlx::query(sql).bind(provider.to_owned()).bind(account.to_owned()).bind(tenant.to_string());
    tx.execute_sql(sql.bind(sealed).bind(now)).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => tenants::tenant_not_found(tenant),
        _ => error,
    })?;
    get(tx, provider, account).await?.ok_or_else(|| no_such_account(provider, account))
}

/// Unlinks an account of a tenant.
///
/// # Errors
/// `NotFound` when the tenant does not have the account.
pub async fn unlink_account(
    tx: &mut WriteTx,
    tenant: TenantId,
    provider: &str,
    account: &str,
) -> Result<AccountRecord> {
    let found = get(tx, provider, account).await?.filter(|found| found.tenant_id == tenant);
    let found = found.ok_or_else(|| no_such_account(provider, account))?;
    let sql = sqlx::query("delete from external_accounts where provider = $1 and account = $2");
    tx.execute_sql(sql.bind(provider.to_owned()).bind(account.to_owned())).await?;
    Ok(found)
}

/// A page of a tenant's accounts in the order of provider and account, after this pair.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_accounts(
    tx: &mut ReadTx,
    tenant: TenantId,
    after: Option<(&str, &str)>,
    page_limit: u32,
) -> Result<Vec<AccountRecord>> {
    let (provider, account) = after.unwrap_or_default();
    let sql = format!(
        "select {COLUMNS} from external_accounts where tenant_id = $1 \
         and (provider > $2 or provider = $2 and account > $3) order by provider, account limit $4"
    );
    let sql = dynamic_query(sql).bind(tenant.to_string()).bind(provider.to_owned()).bind(account.to_owned());
    tx.fetch_rows(sql.bind(capped_limit(page_limit))).await?.iter().map(record_from_row).collect()
}

/// The tenant of an account, and its secret; `None` for an account that is not linked.
///
/// # Errors
/// `WrongKey` or `Corrupt` when the secret cannot be opened; `Unavailable`.
pub async fn account_owner(tx: &mut ReadTx, provider: &str, account: &str) -> Result<Option<AccountOwner>> {
    let sql = sqlx::query("select tenant_id, secret from external_accounts where provider = $1 and account = $2");
    let row = tx.fetch_row(sql.bind(provider.to_owned()).bind(account.to_owned())).await?;
    let Some(row) = row else { return Ok(None) };
    let open = |sealed: String| {
        let id = secret_id(provider, account);
        let opened = tx.sealer().open_sealed(secret_context(&id), &sealed)?;
        let text = String::from_utf8_lossy(opened.expose_secret()).into_owned();
        Ok(SecretString::from(text))
    };
    let secret = row::nullable_text(&row, "secret")?.map(open).transpose()?;
    Ok(Some(AccountOwner { tenant: row::parsed_column(&row, "tenant_id")?, secret }))
}

async fn get(tx: &mut ReadTx, provider: &str, account: &str) -> Result<Option<AccountRecord>> {
    let sql = format!("select {COLUMNS} from external_accounts where provider = $1 and account = $2");
    let sql = dynamic_query(sql).bind(provider.to_owned()).bind(account.to_owned());
    tx.fetch_row(sql).await?.as_ref().map(record_from_row).transpose()
}

/// The accounts of a purged tenant can be linked again.
async fn is_purged(tx: &mut ReadTx, tenant: TenantId) -> Result<bool> {
    let record = tenants::get(tx, tenant).await?;
    Ok(record.is_none_or(|record| record.state == crate::tenant::TenantState::Purged))
}

async fn refuse_too_many(tx: &mut ReadTx, tenant: TenantId) -> Result<()> {
    let sql = sqlx::query("select count(*) as accounts from external_accounts where tenant_id = $1");
    let row = tx.fetch_row(sql.bind(tenant.to_string())).await?;
    match row.map_or(Ok(0), |row| row::int_column(&row, "accounts"))? {
        count if count < ACCOUNTS_MAX => Ok(()),
        _ => {
            let message = format!("a tenant has at most {ACCOUNTS_MAX} accounts with other services: unlink one first");
            Err(Error::new(ErrorKind::Conflict, message))
        }
    }
}

fn check_texts(provider: &str, account: &str, secret: Option<&SecretString>) -> Result<()> {
    let is_provider = (1..=PROVIDER_BYTES_MAX).contains(&provider.len())
        && provider.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !is_provider {
        let message = format!("a provider is 1 to {PROVIDER_BYTES_MAX} of a-z, 0-9 and '-'");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if !(1..=ACCOUNT_BYTES_MAX).contains(&account.len()) || account.chars().any(char::is_control) {
        let message = format!("an account has 1 to {ACCOUNT_BYTES_MAX} bytes without control characters");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if secret.is_some_and(|secret| secret.expose_secret().len() < SECRET_BYTES_MIN) {
        return Err(Error::new(ErrorKind::Invalid, format!("a secret has at least {SECRET_BYTES_MIN} bytes")));
    }
    Ok(())
}

fn secret_id(provider: &str, account: &str) -> String {
    format!("{provider}/{account}")
}

fn secret_context(id: &str) -> (&'static str, &'static str, &str) {
    ("external_accounts", "secret", id)
}

fn no_such_account(provider: &str, account: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("the tenant does not have the account '{account}' of '{provider}'"))
}

fn record_from_row(row: &AnyRow) -> Result<AccountRecord> {
    Ok(AccountRecord {
        provider: row::text_column(row, "provider")?,
        account: row::text_column(row, "account")?,
        tenant_id: row::parsed_column(row, "tenant_id")?,
        has_secret: row::int_column(row, "has_secret")? != 0,
        created_at: row::int_column(row, "created_at")?,
    })
}
