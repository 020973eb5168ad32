//! Grants the rights in a dump again, after everything else.
//!
//! A table that a migration hid from readers must stay hidden in a copy. So a database that is filled from a fleet's
//! dump gets its default rights from the dump, last. If they were granted earlier, every table would be readable as
//! soon as it is made. Roles belong to the server, and a role of a grant may not exist on this server. Such a grant is
//! left out and reported.

use super::load::DumpLoad;
use super::{archive, contents};
use crate::error::Result;
use crate::postgres::error;
use crate::postgres::error::AdminConnectionError;
use crate::postgres::migrations::{layout, script};
use crate::postgres::servers::migrator;

/// Maximum characters shown of a statement that was left out.
const SHOWN_CHARACTERS_MAX: usize = 200;
/// The kinds of statements that are taken from a dump; no other statement runs here.
const KINDS: [&[&str]; 3] = [&["GRANT"], &["REVOKE"], &["ALTER", "DEFAULT", "PRIVILEGES"]];

/// Grants the rights; returns the statements that this server refuses.
pub(super) async fn give_grants(load: &DumpLoad<'_>, entries: &[String]) -> Result<Vec<String>> {
    if !entries.iter().any(|entry| entry.contains(" DEFAULT ACL ")) {
        let mut work = load.site.open_connection(load.database).await?;
        work.run_sql(layout::default_rights()).await?;
        work.close().await;
    }
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let (mut file, list) = archive::create_scratch_file(load.engine.scratch_directory())?;
    archive::write_scratch_file(&mut file, (entries.join("\n") + "\n").as_bytes()).await?;
    let text = contents::script_text(load.engine.postgres_tools(), load.dump, &list).await?;
    let mut work = migrator::connect_as_migrator(load.site, load.database).await?;
    let mut left_out = Vec::new();
    for statement in script::split_statements(&text).iter().filter(|one| KINDS.iter().any(|kind| one.begins_with(kind)))
    {
        match work.try_answers(statement.text.to_owned()).await {
            Ok(_) => {}
            Err(AdminConnectionError::Sql(why)) if !error::ends_connection(&why) => {
                let shown: String = statement.text.chars().take(SHOWN_CHARACTERS_MAX).collect();
                left_out.push(format!("{shown}: {}", error::from_sqlx(why).message()));
            }
            Err(why) => return Err(why.into_ours()),
        }
    }
    work.close().await;
    Ok(left_out)
}
