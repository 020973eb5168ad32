//! API tokens: the holder of the secret acts as the principal. Only a hash of the secret is stored.

use std::collections::HashMap;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use zeroize::Zeroizing;

use crate::bulk::{capped_limit, dynamic_query, placeholder_list, sized_chunks};
use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{TenantId, TokenId};
use crate::members::{Role, check_principal};
use crate::row;
use crate::seal::lower_hex;
use crate::tenants;
use crate::text_enum::TextEnum;

/// The rights of an operator; each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorRole {
    /// Reads through the admin API, without changes.
    Viewer,
    /// Also runs operations.
    Operator,
    /// Also manages tokens and servers, and deletes.
    Admin,
}

impl OperatorRole {
    /// The text of the role in the catalog and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.stored_text()
    }
}

/// The access that a token gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenScope {
    /// One tenant, with one role, independent of its members.
    Tenant {
        /// The only tenant.
        tenant: TenantId,
        /// The role in that tenant.
        role: Role,
    },
    /// Every tenant that this principal is a member of, with its role there.
    Member {
        /// The principal whose memberships count.
        principal: String,
    },
    /// One tenant, with the role of this principal among its members.
    TenantMember {
        /// The only tenant.
        tenant: TenantId,
        /// The principal whose membership counts.
        principal: String,
    },
    /// Nothing yet: [`redeem_ticket`] exchanges it once for an [`TokenScope::Impersonation`].
    ImpersonationTicket(Impersonation),
    /// One tenant, with the role of a member, for an operator who acts as this member.
    Impersonation(Impersonation),
    /// Every tenant, with one role. May name the tenant by header.
    Service {
        /// The role in every tenant.
        role: Role,
    },
    /// The admin API, but no tenant's data.
    Operator {
        /// The role in the admin API.
        role: OperatorRole,
    },
}

/// An operator who acts as a member of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impersonation {
    /// The only tenant.
    pub tenant: TenantId,
    /// The member whose role counts.
    pub principal: String,
    /// The operator, as the audit log names it.
    pub staff: String,
}

/// One row of `tokens`; never the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// The id, which lists and the log show.
    pub id: TokenId,
    /// The access that the token gives.
    pub scope: TokenScope,
    /// A note by its creator.
    pub label: Option<String>,
    /// Creation time, milliseconds since 1970.
    pub created_at: i64,
    /// Time of expiry, milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// Time of revocation, milliseconds since 1970.
    pub revoked_at: Option<i64>,
}

/// The prefix of every new secret, by which scanners of repositories and logs recognise it.
const PREFIX: &str = "ftk_";
/// The prefix of older secrets, which is also the prefix of fleet ids. These secrets stay valid.
const PREFIX_BEFORE: &str = "flt_";
/// Number of random bytes in a secret.
const RANDOM_LEN: usize = 32;
/// Check bytes, which detect a mistyped or truncated secret without a look-up.
const CHECK_LEN: usize = 3;
/// Longer input cannot be a secret and is not even hashed.
const SECRET_MAX: usize = 256;
/// Maximum length of a label in bytes.
const LABEL_MAX: usize = 256;

const COLUMNS: &str = "id, kind, tenant_id, principal, staff, role, label, created_at, expires_at, revoked_at";

impl TextEnum for OperatorRole {
    const NOUN: &'static str = "role of an operator";
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Viewer, "viewer"), (Self::Operator, "operator"), (Self::Admin, "admin")];
}

/// Creates a token. The secret (`ftk_…`) is returned only here.
///
/// # Errors
/// `NotFound` for an unknown tenant; `Invalid` for a wrong principal or label.
pub async fn create_token(
    tx: &mut WriteTx,
    scope: TokenScope,
    label: Option<&str>,
    expires_at: Option<i64>,
) -> Result<(TokenRecord, SecretString)> {
    check_new_token(&scope, label)?;
    let id = TokenId::generate();
    let secret = new_secret();
    let now = tx.now();
    let stored = StoredTokenScope::from_scope(&scope, id);
    let sql = "insert into tokens (id, secret_hash, kind, tenant_id, principal, role, label, created_at, expires_at, \
               staff) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let sql = sqlx::query(sql)
        .bind(id.to_string())
        .bind(hash_secret(secret.expose_secret()))
        .bind(stored.kind)
        .bind(stored.tenant.map(|id| id.to_string()))
        .bind(stored.principal)
        .bind(stored.role)
        .bind(label.map(str::to_owned))
        .bind(now)
        .bind(expires_at)
        .bind(stored.staff);
    tx.execute_sql(sql).await.map_err(|error| match (error.kind(), stored.tenant) {
        (ErrorKind::NotFound, Some(tenant)) => tenants::tenant_not_found(tenant),
        _ => error,
    })?;
    let label = label.map(str::to_owned);
    Ok((TokenRecord { id, scope, label, created_at: now, expires_at, revoked_at: None }, secret))
}

/// The token with this secret, even if expired or revoked: the caller decides. Text that cannot be a secret gives
/// `None` without a query.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn by_secret(tx: &mut ReadTx, secret: &str) -> Result<Option<TokenRecord>> {
    if !is_well_formed(secret) {
        return Ok(None);
    }
    let sql = format!("select {COLUMNS} from tokens where secret_hash = $1");
    let row = tx.fetch_row(dynamic_query(sql).bind(hash_secret(secret))).await?;
    row.as_ref().map(token_from_row).transpose()
}

/// Exchanges a ticket of this tenant for a session that ends at `ends_at` (milliseconds since 1970). `None` when the ticket is
/// unknown, of another tenant, over, revoked, or was exchanged before.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn redeem_ticket(
    tx: &mut WriteTx,
    secret: &str,
    tenant: TenantId,
    ends_at: i64,
) -> Result<Option<(TokenRecord, Impersonation, SecretString)>> {
    if !is_well_formed(secret) {
        return Ok(None);
    }
    let now = tx.now();
    let sql = format!(
        "update tokens set revoked_at = $3 where secret_hash = $1 and tenant_id = $2 and kind = 'impersonation_ticket' \
         and revoked_at is null and expires_at > $3 returning {COLUMNS}"
    );
    let sql = dynamic_query(sql).bind(hash_secret(secret)).bind(tenant.to_string()).bind(now);
    let Some(row) = tx.fetch_row(sql).await? else { return Ok(None) };
    let TokenScope::ImpersonationTicket(impersonation) = token_from_row(&row)?.scope else { return Ok(None) };
    let scope = TokenScope::Impersonation(impersonation.clone());
    let (session, secret) = create_token(tx, scope, None, Some(ends_at)).await?;
    Ok(Some((session, impersonation, secret)))
}

/// The token with this id; `None` when there is none.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn get(tx: &mut ReadTx, id: TokenId) -> Result<Option<TokenRecord>> {
    let sql = format!("select {COLUMNS} from tokens where id = $1");
    tx.fetch_row(dynamic_query(sql).bind(id.to_string())).await?.as_ref().map(token_from_row).transpose()
}

/// True when the text can be a secret: prefix, length and check bytes. Pure; checked before a look-up.
#[must_use]
pub fn is_well_formed(secret: &str) -> bool {
    if secret.len() > SECRET_MAX {
        return false;
    }
    let text = secret.strip_prefix(PREFIX).or_else(|| secret.strip_prefix(PREFIX_BEFORE));
    let Some(decoded) = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()) else {
        return false;
    };
    decoded.len() == RANDOM_LEN + CHECK_LEN && check_bytes(&decoded[..RANDOM_LEN]) == decoded[RANDOM_LEN..]
}

/// Revokes a token; appends to the change feed (for its tenant, or for everything). Repeating it changes nothing.
///
/// # Errors
/// `NotFound` when the token does not exist.
pub async fn revoke_token(tx: &mut WriteTx, id: TokenId) -> Result<TokenRecord> {
    let sql = format!("update tokens set revoked_at = coalesce(revoked_at, $2) where id = $1 returning {COLUMNS}");
    let now = tx.now();
    let row = tx.fetch_row(dynamic_query(sql).bind(id.to_string()).bind(now)).await?;
    let row = row.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no token {id}")))?;
    match row::nullable_id(&row, "tenant_id")? {
        Some(tenant) => changes::append_changes(tx, &[tenant]).await?,
        None => changes::append_everything(tx).await?,
    }
    token_from_row(&row)
}

/// The labels of these tokens. Skips unknown tokens and those without a label.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn token_labels(tx: &mut ReadTx, ids: &[TokenId]) -> Result<HashMap<TokenId, String>> {
    let mut found = HashMap::new();
    for chunk in sized_chunks(ids) {
        let sql = format!(
            "select id, label from tokens where id in ({}) and label is not null",
            placeholder_list(1, chunk.len())
        );
        let sql = chunk.iter().fold(dynamic_query(sql), |sql, id| sql.bind(id.to_string()));
        for row in tx.fetch_rows(sql).await? {
            found.insert(row::parsed_column(&row, "id")?, row::text_column(&row, "label")?);
        }
    }
    Ok(found)
}

/// The tokens with this label, including revoked ones. At most two, because an ambiguous label selects no token.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn by_label(tx: &mut ReadTx, label: &str) -> Result<Vec<TokenId>> {
    let sql = sqlx::query("select id from tokens where label = $1 order by id limit 2").bind(label.to_owned());
    tx.fetch_rows(sql).await?.iter().map(|row| row::parsed_column(row, "id")).collect()
}

/// Which tokens a list has. Without a condition, all.
#[derive(Debug, Clone, Default)]
pub struct TokenCondition {
    /// Only tokens that are limited to this tenant.
    pub tenant: Option<TenantId>,
    /// Only tokens that act as this principal.
    pub principal: Option<String>,
}

/// A page in the order of ids after `after`.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_tokens(
    tx: &mut ReadTx,
    condition: &TokenCondition,
    after: Option<TokenId>,
    page_limit: u32,
) -> Result<Vec<TokenRecord>> {
    let values = [("tenant_id", condition.tenant.map(|id| id.to_string())), ("principal", condition.principal.clone())];
    let wanted: Vec<_> = values.into_iter().filter_map(|(column, value)| Some((column, value?))).collect();
    let conditions: String =
        wanted.iter().zip(3..).map(|((column, _), number)| format!("{column} = ${number} and ")).collect();
    let sql = format!("select {COLUMNS} from tokens where {conditions}id > $1 order by id limit $2");
    let sql =
        dynamic_query(sql).bind(after.map(|id| id.to_string()).unwrap_or_default()).bind(capped_limit(page_limit));
    let sql = wanted.into_iter().fold(sql, |sql, (_, value)| sql.bind(value));
    tx.fetch_rows(sql).await?.iter().map(token_from_row).collect()
}

/// A scope in the form of its columns.
struct StoredTokenScope {
    kind: &'static str,
    tenant: Option<TenantId>,
    principal: String,
    role: Option<&'static str>,
    staff: Option<String>,
}

impl StoredTokenScope {
    fn from_scope(scope: &TokenScope, id: TokenId) -> Self {
        let own = format!("token:{id}");
        let (kind, tenant, principal, role) = match scope {
            TokenScope::Tenant { tenant, role } => ("tenant", Some(*tenant), own, Some(role.stored_text())),
            TokenScope::Member { principal } => ("member", None, principal.clone(), None),
            // A kind of its own: an older program that reads it as `member` would open every tenant of the principal.
            TokenScope::TenantMember { tenant, principal } => ("tenant_member", Some(*tenant), principal.clone(), None),
            TokenScope::ImpersonationTicket(of) => {
                ("impersonation_ticket", Some(of.tenant), of.principal.clone(), None)
            }
            TokenScope::Impersonation(of) => ("impersonation", Some(of.tenant), of.principal.clone(), None),
            TokenScope::Service { role } => ("service", None, own, Some(role.stored_text())),
            TokenScope::Operator { role } => ("operator", None, own, Some(role.stored_text())),
        };
        let staff = match scope {
            TokenScope::ImpersonationTicket(of) | TokenScope::Impersonation(of) => Some(of.staff.clone()),
            _ => None,
        };
        Self { kind, tenant, principal, role, staff }
    }
}

fn token_from_row(row: &AnyRow) -> Result<TokenRecord> {
    let scope = match row::text_column(row, "kind")?.as_str() {
        "tenant" => {
            TokenScope::Tenant { tenant: row::parsed_column(row, "tenant_id")?, role: row::enum_column(row, "role")? }
        }
        "member" => TokenScope::Member { principal: row::text_column(row, "principal")? },
        "tenant_member" => TokenScope::TenantMember {
            tenant: row::parsed_column(row, "tenant_id")?,
            principal: row::text_column(row, "principal")?,
        },
        "impersonation_ticket" => TokenScope::ImpersonationTicket(impersonation_from_row(row)?),
        "impersonation" => TokenScope::Impersonation(impersonation_from_row(row)?),
        "service" => TokenScope::Service { role: row::enum_column(row, "role")? },
        "operator" => TokenScope::Operator { role: row::enum_column(row, "role")? },
        other => {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the catalog contains an unknown kind of token: {other:?}"),
            ));
        }
    };
    Ok(TokenRecord {
        id: row::parsed_column(row, "id")?,
        scope,
        label: row::nullable_text(row, "label")?,
        created_at: row::int_column(row, "created_at")?,
        expires_at: row::nullable_int(row, "expires_at")?,
        revoked_at: row::nullable_int(row, "revoked_at")?,
    })
}

fn impersonation_from_row(row: &AnyRow) -> Result<Impersonation> {
    Ok(Impersonation {
        tenant: row::parsed_column(row, "tenant_id")?,
        principal: row::text_column(row, "principal")?,
        staff: row::text_column(row, "staff")?,
    })
}

fn check_new_token(scope: &TokenScope, label: Option<&str>) -> Result<()> {
    if let TokenScope::Member { principal } | TokenScope::TenantMember { principal, .. } = scope {
        check_principal(principal)?;
    }
    if label.is_some_and(|label| label.len() > LABEL_MAX || label.chars().any(char::is_control)) {
        let message = format!("a token's label has at most {LABEL_MAX} bytes and no control characters");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

fn new_secret() -> SecretString {
    let mut bytes = Zeroizing::new(vec![0; RANDOM_LEN]);
    getrandom::fill(bytes.as_mut()).expect("the system gives random bytes");
    let check = check_bytes(&bytes);
    bytes.extend_from_slice(&check);
    SecretString::from(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

fn check_bytes(random: &[u8]) -> [u8; CHECK_LEN] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"fleet token check\0");
    context.update(random);
    let all = context.finish();
    std::array::from_fn(|at| all.as_ref()[at])
}

fn hash_secret(secret: &str) -> String {
    lower_hex(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_no_id_of_a_fleet_and_the_former_prefix_stays_valid() {
        let secret = new_secret().expose_secret().to_owned();
        let fleet = crate::ids::FleetId::generate().to_string();
        assert_ne!(secret[..4], fleet[..4]);
        assert!(is_well_formed(&secret.replacen(PREFIX, PREFIX_BEFORE, 1)));
        assert!(!is_well_formed(&fleet));
    }

    #[test]
    fn a_mistyped_or_cut_secret_is_told_without_a_lookup() {
        let secret = new_secret().expose_secret().to_owned();
        assert!(is_well_formed(&secret));
        for cut in 0..secret.len() {
            assert!(!is_well_formed(&secret[..cut]), "{cut}");
        }
        for at in 0..secret.len() {
            let mut bytes = secret.clone().into_bytes();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            assert!(!is_well_formed(std::str::from_utf8(&bytes).unwrap()), "{at}");
        }
        for bad in [
            "",
            "flt_",
            "ftk_",
            "ftk_é",
            "fkt_",
            &format!("flt_{secret}"),
            &format!("{secret} "),
            &format!(" {secret}"),
            &"f".repeat(1_000_000),
        ] {
            assert!(!is_well_formed(bad));
        }
    }
}
