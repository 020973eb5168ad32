//! Labels: what tenants are selected by.

use std::collections::{BTreeMap, HashMap};

use sqlx::any::AnyRow;

use crate::bulk::{TEXT, built, chunks, places, values};
use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::TenantId;
use crate::row;
use crate::tenant::TenantRecord;
use crate::tenants::{NewTenant, bind_ids, record, touch};

/// More labels are a table of one's own.
const LABELS_MAX: i64 = 64;

/// As long as a slug.
const LABEL_KEY_MAX: usize = 63;

/// Enough for a URL or a date with a word; labels are for selecting.
const LABEL_VALUE_MAX: usize = 255;

/// Sets and removes (`None`) labels; at most 64 per tenant; appends to the change feed.
///
/// # Errors
/// `NotFound`; `Invalid` for a malformed or one too many label.
pub async fn set_labels(tx: &mut WriteTx, id: TenantId, labels: &BTreeMap<String, Option<String>>) -> Result<()> {
    touch(tx, id).await?;
    for (key, value) in labels {
        let sql = match value {
            Some(value) => {
                check_label(key, value)?;
                sqlx::query(
                    "insert into tenant_labels (tenant_id, key, value) values ($1, $2, $3) \
                     on conflict (tenant_id, key) do update set value = excluded.value",
                )
                .bind(id.to_string())
                .bind(key.clone())
                .bind(value.clone())
            }
            None => sqlx::query("delete from tenant_labels where tenant_id = $1 and key = $2")
                .bind(id.to_string())
                .bind(key.clone()),
        };
        tx.run(sql).await?;
    }
    let sql = "select count(*) as labels from tenant_labels where tenant_id = $1";
    let row = tx.one(sqlx::query(sql).bind(id.to_string())).await?;
    if row.map_or(Ok(0), |row| row::int(&row, "labels"))? > LABELS_MAX {
        return Err(Error::new(ErrorKind::Invalid, format!("a tenant has at most {LABELS_MAX} labels")));
    }
    changes::append(tx, &[id]).await
}

pub(super) async fn insert_labels(tx: &mut WriteTx, tenants: &[NewTenant]) -> Result<()> {
    let mut labels = Vec::new();
    for tenant in tenants {
        check_labels(&tenant.labels)?;
        labels.extend(tenant.labels.iter().map(|(key, value)| (tenant.id, key, value)));
    }
    for chunk in chunks(&labels) {
        let rows = values(chunk.len(), &[TEXT, TEXT, TEXT]);
        let sql = format!(
            "with v(tenant_id, key, value) as ({rows}) insert into tenant_labels (tenant_id, key, value) \
             select tenant_id, key, value from v"
        );
        let sql = chunk.iter().fold(built(sql), |sql, (tenant, key, value)| {
            sql.bind(tenant.to_string()).bind((*key).clone()).bind((*value).clone())
        });
        tx.run(sql).await?;
    }
    Ok(())
}

/// One tenant from the rows of its labels.
pub(super) fn with_labels(rows: &[AnyRow]) -> Result<Option<TenantRecord>> {
    let Some(first) = rows.first() else { return Ok(None) };
    let mut tenant = record(first)?;
    for row in rows {
        if let (Some(key), Some(value)) = (row::text_or_null(row, "label_key")?, row::text_or_null(row, "label_value")?)
        {
            tenant.labels.insert(key, value);
        }
    }
    Ok(Some(tenant))
}

pub(super) async fn add_labels(tx: &mut ReadTx, tenants: &mut [TenantRecord]) -> Result<()> {
    let ids: Vec<TenantId> = tenants.iter().map(|tenant| tenant.id).collect();
    let mut labels: HashMap<TenantId, BTreeMap<String, String>> = HashMap::new();
    for chunk in chunks(&ids) {
        let sql =
            format!("select tenant_id, key, value from tenant_labels where tenant_id in ({})", places(1, chunk.len()));
        for row in tx.all(bind_ids(built(sql), chunk)).await? {
            let tenant = labels.entry(row::parsed(&row, "tenant_id")?).or_default();
            tenant.insert(row::text(&row, "key")?, row::text(&row, "value")?);
        }
    }
    for tenant in tenants {
        tenant.labels = labels.remove(&tenant.id).unwrap_or_default();
    }
    Ok(())
}

/// PURE: refuses labels that a tenant cannot have.
///
/// # Errors
/// `Invalid`.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<()> {
    if i64::try_from(labels.len()).is_ok_and(|count| count > LABELS_MAX) {
        return Err(Error::new(ErrorKind::Invalid, format!("a tenant has at most {LABELS_MAX} labels")));
    }
    labels.iter().try_for_each(|(key, value)| check_label(key, value))
}

/// Whether a text can be the key of a label.
pub(super) fn is_label_key(key: &str) -> bool {
    (1..=LABEL_KEY_MAX).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
}

fn check_label(key: &str, value: &str) -> Result<()> {
    if !is_label_key(key) {
        let message = format!("a label's key is 1 to {LABEL_KEY_MAX} of a-z, A-Z, 0-9, '-', '_', '.', '/'");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if value.len() > LABEL_VALUE_MAX || value.chars().any(char::is_control) {
        let message =
            format!("the value of label '{key}' must have at most {LABEL_VALUE_MAX} bytes, no control characters");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}
