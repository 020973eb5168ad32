//! What a dump of a database cannot carry, asked before one is taken: the rest of a database without it would look like
//! a backup.

use super::sql::text;
use super::work::Work;
use crate::error::{Error, ErrorKind, Result};

/// The first few name the kind.
const SHOWN_MAX: usize = 5;

/// Each with its cure. Row security that its table's owner is subject to hides rows from the role that dumps, and
/// `pg_dump` refuses that; large objects belong to the login that made them.
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

/// Refuses a database that a dump cannot carry whole.
///
/// # Errors
/// [`ErrorKind::NotDumpable`], naming each obstacle and what removes it.
pub(super) async fn refuse(work: &mut Work) -> Result<()> {
    let answers = work.answers(QUESTION).await?;
    let found = answers.iter().flatten().map(|row| text(row, 0)).take(SHOWN_MAX).collect::<Result<Vec<_>>>()?;
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotDumpable, format!("the database cannot be backed up whole: {}", found.join("; "))))
}

/// What a dump leaves out without a word, and so do its restore and everything made from it.
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

/// For people, in the transaction that is open.
pub(super) async fn left_out(work: &mut Work) -> Result<Vec<String>> {
    let answers = work.answers(LEFT_OUT).await?;
    answers.iter().flatten().map(|row| text(row, 0)).collect()
}
