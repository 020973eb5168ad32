//! Finds the parts of a database that a dump cannot hold, before a dump is taken: an incomplete dump would look like a
//! backup.

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::sql::text_column;

/// Number of objects shown of each kind.
const SHOWN_MAX: usize = 5;

/// Finds each obstacle with its remedy. Row security that is forced on a table's owner hides rows from the role that
/// dumps, and `pg_dump` refuses such a table. Large objects belong to the login that made them.
const QUESTION: &str = "
    select format('table %s forces row level security on its owner: alter table %1$s no force row level security, or give '
                  'the role %s bypassrls', c.oid::regclass, current_user)
    from pg_class c
    where c.relforcerowsecurity and c.relrowsecurity
      and not exists (select from pg_roles where rolname = current_user and (rolsuper or rolbypassrls))
    union all
    select format('%s large objects: keep their bytes in a column of type bytea, and remove them with lo_unlink', count(*))
    from pg_largeobject_metadata having count(*) > 0
    order by 1";

/// Refuses a database that a dump cannot hold completely.
///
/// # Errors
/// [`ErrorKind::NotDumpable`], naming each obstacle and how to remove it.
pub(in crate::postgres) async fn refuse_undumpable(work: &mut AdminConnection) -> Result<()> {
    let answers = work.fetch_answers(QUESTION).await?;
    let found = answers.iter().flatten().map(|row| text_column(row, 0)).take(SHOWN_MAX).collect::<Result<Vec<_>>>()?;
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotDumpable,
        format!("the database cannot be backed up completely: {}", found.join("; ")),
    ))
}

/// Finds what a dump silently leaves out, and so is missing from every restore of it.
const LEFT_OUT: &str = "
    select format('subscription %s: it is not made again', subname) from pg_subscription
      where subdbid = (select oid from pg_database where datname = current_database())
    union all
    select format('setting %s of the database: sessions have the settings of the fleet', split_part(setting, '=', 1))
      from pg_db_role_setting, unnest(setconfig) setting
      where setrole = 0 and setdatabase = (select oid from pg_database where datname = current_database())
    union all
    select 'comment on the database' from pg_database d where datname = current_database()
      and shobj_description(d.oid, 'pg_database') is not null
    order by 1";

/// Describes what a dump leaves out, for people, in the open transaction.
pub(in crate::postgres) async fn left_out(work: &mut AdminConnection) -> Result<Vec<String>> {
    let answers = work.fetch_answers(LEFT_OUT).await?;
    answers.iter().flatten().map(|row| text_column(row, 0)).collect()
}
