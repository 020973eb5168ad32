//! Checks whether a database from outside can be adopted completely, before anything is copied, and whether its copy
//! has equal objects.
//!
//! A source that a copy could not equal is refused with the reasons: an adopted database that behaves differently would
//! be worse than none.

use super::objects;
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::SchemaObjects;
use crate::migration::LedgerName;
use crate::postgres::migrations::ledger;
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::servers::settings::SESSION_SETTINGS;
use crate::postgres::sql::{sql_literal, text_column};

/// Maximum number of reasons shown at once.
const SHOWN_MAX: usize = 10;

/// Finds what the roles of a fleet may not make, and what a tenant's database does not keep. The versions in a ledger
/// of another name would run a second time; such a table is recognized by its columns.
const UNFIT: &str = "
    select format('event trigger %s: only a superuser may make it (drop it first)', evtname) from pg_event_trigger
    union all
    select format('publication %s publishes all tables: only a superuser may make it (publish the tables by name)', pubname)
      from pg_publication p where puballtables or exists (select from pg_publication_namespace where pnpubid = p.oid)
    union all
    select format('subscription %s: a copy must not go on with it (drop it first)', subname) from pg_subscription
      where subdbid = (select oid from pg_database where datname = current_database())
    union all
    select format('foreign server %s: only a superuser may make it (drop it first)', srvname) from pg_foreign_server
    union all
    select format('its ledger is %s.%s; this fleet reads {ledger} (name it as table-name in the sqlx.toml of the '
        'first release, or rename the table)', n.nspname, c.relname)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and c.oid is distinct from to_regclass('{ledger}')
      and coalesce(pg_relation_size(to_regclass('{ledger}')), 0) = 0
      and 6 = (select count(*) from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped and attname in
        ('version', 'description', 'installed_on', 'success', 'checksum', 'execution_time'))
    order by 1";

/// Reads the settings of the database, as `name=value`.
const SETTINGS: &str = "
    select split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
    from pg_db_role_setting, unnest(setconfig) setting
    where setrole = 0 and setdatabase = (select oid from pg_database where datname = current_database()) order by 1";

/// Reads the versions that did not finish, if there is a ledger.
const DIRTY: &str = "select version::text from {ledger} where not success order by version limit 1";

/// Refuses a source that a copy could not equal; returns its objects.
///
/// # Errors
/// [`ErrorKind::NotAdoptable`], with every reason.
pub(in crate::postgres) async fn examine_source(
    work: &mut AdminConnection,
    name: &LedgerName,
) -> Result<SchemaObjects> {
    let answers = work.fetch_answers(UNFIT.replace("{ledger}", &ledger::table(name))).await?;
    let mut reasons = answers.iter().flatten().map(|row| text_column(row, 0)).collect::<Result<Vec<_>>>()?;
    reasons.extend(unfit_settings(work).await?);
    reasons.extend(unfinished_versions(work, &ledger::table(name)).await?);
    if reasons.is_empty() {
        return objects::read_objects(work, name).await;
    }
    reasons.truncate(SHOWN_MAX);
    Err(not_adoptable(&reasons.join("; ")))
}

/// Settings of the source that the sessions of a fleet do not have.
async fn unfit_settings(work: &mut AdminConnection) -> Result<Vec<String>> {
    let mut reasons = Vec::new();
    for row in work.fetch_answers(SETTINGS).await?.iter().flatten() {
        let (name, value) = (text_column(row, 0)?, text_column(row, 1)?);
        let same = SESSION_SETTINGS.iter().any(|(ours, of_ours)| name.eq_ignore_ascii_case(ours) && value == *of_ours);
        if !same {
            reasons.push(format!(
                "the database sets {name} to {}, which the sessions of a fleet do not have (alter database … reset {name}, \
                 and set it in the statements and functions that need it)",
                sql_literal(&value)
            ));
        }
    }
    Ok(reasons)
}

async fn unfinished_versions(work: &mut AdminConnection, table: &str) -> Result<Vec<String>> {
    match work.try_answers(DIRTY.replace("{ledger}", table)).await {
        Ok(answers) => {
            let versions = answers.iter().flatten().map(|row| text_column(row, 0)).collect::<Result<Vec<_>>>()?;
            let told =
                |version: String| format!("version {version} of its ledger did not succeed: finish or undo it first");
            Ok(versions.into_iter().map(told).collect())
        }
        // There is no ledger.
        Err(why) if why.sqlstate_code() == "42P01" => Ok(Vec::new()),
        // A table of that name has other columns.
        Err(why) if why.sqlstate_code() == "42703" => Ok(vec![format!("{table} does not hold what sqlx writes")]),
        Err(why) => Err(why.into_ours()),
    }
}

/// Refuses a copy that lacks an object of the source, or has a different one.
pub(in crate::postgres) async fn compare_objects(
    source: &SchemaObjects,
    copy: &mut AdminConnection,
    name: &LedgerName,
) -> Result<()> {
    match source.first_difference(&objects::read_objects(copy, name).await?) {
        None => Ok(()),
        Some(difference) => Err(not_adoptable(&format!("the copy would differ: {difference}"))),
    }
}

pub(in crate::postgres) fn not_adoptable(why: &str) -> Error {
    Error::new(ErrorKind::NotAdoptable, format!("the database cannot be adopted as it is: {why}"))
}
