//! Whether a database from outside can be adopted as it is, asked before anything is copied, and whether its copy has the
//! same objects.
//!
//! What the copy could not have is refused with its reason: an adopted database that behaves otherwise is worse than
//! none.

use super::objects;
use super::settings::SESSION_SETTINGS;
use super::sql::{literal, text};
use super::work::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Objects;

/// Reasons shown at once.
const SHOWN_MAX: usize = 10;

/// What roles of a fleet may not make, or what a tenant's database does not keep.
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
    select format('its ledger is %s.%s; a fleet reads public._sqlx_migrations', n.nspname, c.relname)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relname = '_sqlx_migrations' and c.relkind in ('r', 'p') and n.nspname <> 'public'
      and to_regclass('public._sqlx_migrations') is null
    order by 1";

/// Settings of the database, as `name=value`.
const SETTINGS: &str = "
    select split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
    from pg_db_role_setting, unnest(setconfig) setting
    where setrole = 0 and setdatabase = (select oid from pg_database where datname = current_database()) order by 1";

/// Versions that did not end well, if there is a ledger.
const DIRTY: &str = "select version::text from public._sqlx_migrations where not success order by version limit 1";

/// Refuses a source that a copy could not be equal to; returns its objects.
///
/// # Errors
/// [`ErrorKind::NotAdoptable`], with every reason.
pub(super) async fn examine(work: &mut Work) -> Result<Objects> {
    let answers = work.answers(UNFIT).await?;
    let mut reasons = answers.iter().flatten().map(|row| text(row, 0)).collect::<Result<Vec<_>>>()?;
    reasons.extend(settings(work).await?);
    reasons.extend(ledger(work).await?);
    if reasons.is_empty() {
        return objects::read(work).await;
    }
    reasons.truncate(SHOWN_MAX);
    Err(unfit(&reasons.join("; ")))
}

/// Those that the sessions of a fleet do not have.
async fn settings(work: &mut Work) -> Result<Vec<String>> {
    let mut reasons = Vec::new();
    for row in work.answers(SETTINGS).await?.iter().flatten() {
        let (name, value) = (text(row, 0)?, text(row, 1)?);
        let same = SESSION_SETTINGS.iter().any(|(ours, of_ours)| name.eq_ignore_ascii_case(ours) && value == *of_ours);
        if !same {
            reasons.push(format!(
                "the database sets {name} to {}, which the sessions of a fleet do not have (alter database … reset {name}, \
                 and say it in the statements and functions that need it)",
                literal(&value)
            ));
        }
    }
    Ok(reasons)
}

async fn ledger(work: &mut Work) -> Result<Vec<String>> {
    match work.try_answers(DIRTY.to_owned()).await {
        Ok(answers) => {
            let versions = answers.iter().flatten().map(|row| text(row, 0)).collect::<Result<Vec<_>>>()?;
            let told =
                |version: String| format!("version {version} of its ledger did not succeed: finish or undo it first");
            Ok(versions.into_iter().map(told).collect())
        }
        // No ledger.
        Err(why) if why.code() == "42P01" => Ok(Vec::new()),
        // A table of that name with other columns.
        Err(why) if why.code() == "42703" => {
            Ok(vec!["public._sqlx_migrations does not hold what sqlx writes".to_owned()])
        }
        Err(why) => Err(why.into_ours()),
    }
}

/// Refuses a copy without an object of the source's, or with another one.
pub(super) async fn compare(source: &Objects, copy: &mut Work) -> Result<()> {
    match source.difference(&objects::read(copy).await?) {
        None => Ok(()),
        Some(difference) => Err(unfit(&format!("the copy would differ: {difference}"))),
    }
}

pub(super) fn unfit(why: &str) -> Error {
    Error::new(ErrorKind::NotAdoptable, format!("the database cannot be adopted as it is: {why}"))
}
