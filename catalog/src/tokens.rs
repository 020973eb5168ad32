//! API tokens: who holds the secret acts as the principal. Only a hash is stored.

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use zeroize::Zeroizing;

use crate::bulk::{built, limit};
use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{TenantId, TokenId};
use crate::members::{Role, check_principal};
use crate::row;
use crate::seal::hex;
use crate::tenants;
use crate::word::Word;

/// What an operator may do; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorRole {
    /// Looks.
    Viewer,
    /// Runs operations.
    Operator,
    /// Also tokens, servers, deletion.
    Admin,
}

/// What a token opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenScope {
    /// One tenant, with this role, whoever is a member.
    Tenant {
        /// The only one.
        tenant: TenantId,
        /// In it.
        role: Role,
    },
    /// Every tenant that this principal is a member of, with the role it has there.
    Member {
        /// Whose membership counts.
        principal: String,
    },
    /// Every tenant, with this role; may name the tenant by header.
    Service {
        /// In each.
        role: Role,
    },
    /// The admin API; no tenant's data.
    Operator {
        /// There.
        role: OperatorRole,
    },
}

/// One row of `tokens`; never the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Names it in lists and in the log.
    pub id: TokenId,
    /// See [`TokenScope`].
    pub scope: TokenScope,
    /// A human's note.
    pub label: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// Milliseconds since 1970.
    pub revoked_at: Option<i64>,
}

/// What every secret begins with, so that scanners of repositories and logs recognise one.
const PREFIX: &str = "flt_";
/// Random bytes of a secret.
const RANDOM_LEN: usize = 32;
/// Bytes that tell a mistyped or cut secret without a lookup.
const CHECK_LEN: usize = 3;
/// Longer input is no secret of ours and is not even hashed.
const SECRET_MAX: usize = 256;
/// A note, not a document.
const LABEL_MAX: usize = 256;

const COLUMNS: &str = "id, kind, tenant_id, principal, role, label, created_at, expires_at, revoked_at";

impl Word for OperatorRole {
    const NOUN: &'static str = "role of an operator";
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Viewer, "viewer"), (Self::Operator, "operator"), (Self::Admin, "admin")];
}

/// Makes a token; the secret (`flt_…`) is returned once and cannot be had again.
///
/// # Errors
/// `NotFound` for the tenant; `Invalid` for the principal or the label.
pub async fn create(
    tx: &mut WriteTx,
    scope: TokenScope,
    label: Option<&str>,
    expires_at: Option<i64>,
) -> Result<(TokenRecord, SecretString)> {
    check(&scope, label)?;
    let id = TokenId::generate();
    let secret = new_secret();
    let now = tx.now();
    let stored = Stored::of(&scope, id);
    let sql = "insert into tokens (id, secret_hash, kind, tenant_id, principal, role, label, created_at, expires_at) \
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let sql = sqlx::query(sql)
        .bind(id.to_string())
        .bind(hash(secret.expose_secret()))
        .bind(stored.kind)
        .bind(stored.tenant.map(|id| id.to_string()))
        .bind(stored.principal)
        .bind(stored.role)
        .bind(label.map(str::to_owned))
        .bind(now)
        .bind(expires_at);
    tx.run(sql).await.map_err(|error| match (error.kind(), stored.tenant) {
        (ErrorKind::NotFound, Some(tenant)) => tenants::missing(tenant),
        _ => error,
    })?;
    let label = label.map(str::to_owned);
    Ok((TokenRecord { id, scope, label, created_at: now, expires_at, revoked_at: None }, secret))
}

/// The token with this secret, even if expired or revoked: the caller decides. What cannot be a secret is `None`
/// without a look into the catalog.
///
/// # Errors
/// `Unavailable`.
pub async fn by_secret(tx: &mut ReadTx, secret: &str) -> Result<Option<TokenRecord>> {
    if !is_well_formed(secret) {
        return Ok(None);
    }
    let sql = format!("select {COLUMNS} from tokens where secret_hash = $1");
    let row = tx.one(built(sql).bind(hash(secret))).await?;
    row.as_ref().map(record).transpose()
}

/// Whether this can be a secret at all: prefix, length and check bytes. Pure; asked before a lookup.
#[must_use]
pub fn is_well_formed(secret: &str) -> bool {
    if secret.len() > SECRET_MAX {
        return false;
    }
    let Some(decoded) = secret.strip_prefix(PREFIX).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()) else {
        return false;
    };
    decoded.len() == RANDOM_LEN + CHECK_LEN && check_bytes(&decoded[..RANDOM_LEN]) == decoded[RANDOM_LEN..]
}

/// Ends a token; appends to the change feed (of its tenant, or of no tenant). Ending it again changes nothing.
///
/// # Errors
/// `NotFound`.
pub async fn revoke(tx: &mut WriteTx, id: TokenId) -> Result<TokenRecord> {
    let sql = format!("update tokens set revoked_at = coalesce(revoked_at, $2) where id = $1 returning {COLUMNS}");
    let now = tx.now();
    let row = tx.one(built(sql).bind(id.to_string()).bind(now)).await?;
    let row = row.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no token {id}")))?;
    match row::id_or_null(&row, "tenant_id")? {
        Some(tenant) => changes::append(tx, &[tenant]).await?,
        None => changes::append_everything(tx).await?,
    }
    record(&row)
}

/// A page in the order of ids, beginning after `after`; of one tenant when given.
///
/// # Errors
/// `Unavailable`.
pub async fn page(
    tx: &mut ReadTx,
    tenant: Option<TenantId>,
    after: Option<TokenId>,
    page_limit: u32,
) -> Result<Vec<TokenRecord>> {
    let condition = if tenant.is_some() { "tenant_id = $3 and" } else { "" };
    let sql = format!("select {COLUMNS} from tokens where {condition} id > $1 order by id limit $2");
    let mut sql = built(sql).bind(after.map(|id| id.to_string()).unwrap_or_default()).bind(limit(page_limit));
    if let Some(tenant) = tenant {
        sql = sql.bind(tenant.to_string());
    }
    tx.all(sql).await?.iter().map(record).collect()
}

/// A scope as the columns that hold it.
struct Stored {
    kind: &'static str,
    tenant: Option<TenantId>,
    principal: String,
    role: Option<&'static str>,
}

impl Stored {
    fn of(scope: &TokenScope, id: TokenId) -> Self {
        let own = format!("token:{id}");
        let (kind, tenant, principal, role) = match scope {
            TokenScope::Tenant { tenant, role } => ("tenant", Some(*tenant), own, Some(role.word())),
            TokenScope::Member { principal } => ("member", None, principal.clone(), None),
            TokenScope::Service { role } => ("service", None, own, Some(role.word())),
            TokenScope::Operator { role } => ("operator", None, own, Some(role.word())),
        };
        Self { kind, tenant, principal, role }
    }
}

fn record(row: &AnyRow) -> Result<TokenRecord> {
    let scope = match row::text(row, "kind")?.as_str() {
        "tenant" => TokenScope::Tenant { tenant: row::parsed(row, "tenant_id")?, role: row::word(row, "role")? },
        "member" => TokenScope::Member { principal: row::text(row, "principal")? },
        "service" => TokenScope::Service { role: row::word(row, "role")? },
        "operator" => TokenScope::Operator { role: row::word(row, "role")? },
        other => {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the catalog holds an unknown kind of token: {other:?}"),
            ));
        }
    };
    Ok(TokenRecord {
        id: row::parsed(row, "id")?,
        scope,
        label: row::text_or_null(row, "label")?,
        created_at: row::int(row, "created_at")?,
        expires_at: row::int_or_null(row, "expires_at")?,
        revoked_at: row::int_or_null(row, "revoked_at")?,
    })
}

fn check(scope: &TokenScope, label: Option<&str>) -> Result<()> {
    if let TokenScope::Member { principal } = scope {
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
    rand::fill(bytes.as_mut()).expect("the system gives random bytes");
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

fn hash(secret: &str) -> String {
    hex(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for bad in ["", "flt_", "flt_é", &format!("{secret} "), &format!(" {secret}"), &"f".repeat(1_000_000)] {
            assert!(!is_well_formed(bad));
        }
    }
}
