//! Labels, by which tenants are selected.

use std::collections::{BTreeMap, HashMap};

use sqlx::any::AnyRow;

use crate::bulk::{TEXT, dynamic_query, placeholder_list, sized_chunks, values_clause};
use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::TenantId;
use crate::row;
use crate::tenant::TenantRecord;
use crate::tenants::{NewTenant, bind_ids, tenant_from_row, touch_tenant};

/// Maximum number of labels per tenant. More data belongs into a table.
const LABELS_MAX: i64 = 64;

/// Maximum length of a key, equal to that of a slug.
const LABEL_KEY_MAX: usize = 63;

/// Maximum length of a value: enough for a URL, or a date with a word.
const LABEL_VALUE_MAX: usize = 255;

/// Sets and removes (`None`) labels; at most 64 per tenant; appends to the change feed.
///
/// # Errors
/// `NotFound` when the tenant does not exist; `Invalid` for a malformed label or too many labels.
pub async fn set_labels(tx: &mut WriteTx, id: TenantId, labels: &BTreeMap<String, Option<String>>) -> Result<()> {
    touch_tenant(tx, id).await?;
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
        tx.execute_sql(sql).await?;
    }
    let sql = "select count(*) as labels from tenant_labels where tenant_id = $1";
    let row = tx.fetch_row(sqlx::query(sql).bind(id.to_string())).await?;
    if row.map_or(Ok(0), |row| row::int_column(&row, "labels"))? > LABELS_MAX {
        return Err(Error::new(ErrorKind::Invalid, format!("a tenant has at most {LABELS_MAX} labels")));
    }
    changes::append_changes(tx, &[id]).await
}

pub(super) async fn insert_labels(tx: &mut WriteTx, tenants: &[NewTenant]) -> Result<()> {
    let mut labels = Vec::new();
    for tenant in tenants {
        check_labels(&tenant.labels)?;
        labels.extend(tenant.labels.iter().map(|(key, value)| (tenant.id, key, value)));
    }
    for chunk in sized_chunks(&labels) {
        let rows = values_clause(chunk.len(), &[TEXT, TEXT, TEXT]);
        let sql = format!(
            "with v(tenant_id, key, value) as ({rows}) insert into tenant_labels (tenant_id, key, value) \
             select tenant_id, key, value from v"
        );
        let sql = chunk.iter().fold(dynamic_query(sql), |sql, (tenant, key, value)| {
            sql.bind(tenant.to_string()).bind((*key).clone()).bind((*value).clone())
        });
        tx.execute_sql(sql).await?;
    }
    Ok(())
}

/// One tenant, built from the rows of its labels.
pub(super) fn with_labels(rows: &[AnyRow]) -> Result<Option<TenantRecord>> {
    let Some(first) = rows.first() else { return Ok(None) };
    let mut tenant = tenant_from_row(first)?;
    for row in rows {
        if let (Some(key), Some(value)) =
            (row::nullable_text(row, "label_key")?, row::nullable_text(row, "label_value")?)
        {
            tenant.labels.insert(key, value);
        }
    }
    Ok(Some(tenant))
}

pub(super) async fn add_labels(tx: &mut ReadTx, tenants: &mut [TenantRecord]) -> Result<()> {
    let ids: Vec<TenantId> = tenants.iter().map(|tenant| tenant.id).collect();
    let mut labels: HashMap<TenantId, BTreeMap<String, String>> = HashMap::new();
    for chunk in sized_chunks(&ids) {
        let sql = format!(
            "select tenant_id, key, value from tenant_labels where tenant_id in ({})",
            placeholder_list(1, chunk.len())
        );
        for row in tx.fetch_rows(bind_ids(dynamic_query(sql), chunk)).await? {
            let tenant = labels.entry(row::parsed_column(&row, "tenant_id")?).or_default();
            tenant.insert(row::text_column(&row, "key")?, row::text_column(&row, "value")?);
        }
    }
    for tenant in tenants {
        tenant.labels = labels.remove(&tenant.id).unwrap_or_default();
    }
    Ok(())
}

/// PURE: refuses invalid labels.
///
/// # Errors
/// `Invalid` when a label is malformed or there are too many.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<()> {
    if i64::try_from(labels.len()).is_ok_and(|count| count > LABELS_MAX) {
        return Err(Error::new(ErrorKind::Invalid, format!("a tenant has at most {LABELS_MAX} labels")));
    }
    labels.iter().try_for_each(|(key, value)| check_label(key, value))
}

/// True when the text is a valid key of a label.
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
