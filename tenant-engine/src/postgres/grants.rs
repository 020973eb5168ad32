//! The rights that a dump holds, given again after everything else.
//!
//! A table that a migration hid from readers must stay hidden in a copy. So a database that is filled from a dump of ours
//! gets its default rights from the dump, last: given before, they would open every table as it is made. Roles are the
//! server's, and one that a grant names may not be on this server; then that grant is left out and told.

use super::load::Load;
use super::work::Why;
use super::{archive, contents, error, layout, migrator, script};
use crate::error::Result;

/// Shown of a statement that was left out.
const SHOWN_CHARACTERS_MAX: usize = 200;
/// What a dump is asked for: nothing else in it is run here.
const KINDS: [&[&str]; 3] = [&["GRANT"], &["REVOKE"], &["ALTER", "DEFAULT", "PRIVILEGES"]];

/// Gives them; returns those that this server refuses.
pub(super) async fn give(load: &Load<'_>, entries: &[String]) -> Result<Vec<String>> {
    if !entries.iter().any(|entry| entry.contains(" DEFAULT ACL ")) {
        let mut work = load.site.enter(load.database).await?;
        work.run(layout::default_rights()).await?;
        work.close().await;
    }
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let (mut file, list) = archive::create(load.engine.scratch())?;
    archive::write(&mut file, (entries.join("\n") + "\n").as_bytes()).await?;
    let text = contents::script(load.engine.tools(), load.dump, &list).await?;
    let mut work = migrator::connect(load.site, load.database).await?;
    let mut left_out = Vec::new();
    for statement in script::statements(&text).iter().filter(|one| KINDS.iter().any(|kind| one.begins(kind))) {
        match work.try_answers(statement.text.to_owned()).await {
            Ok(_) => {}
            Err(Why::Sql(why)) if !error::ends_connection(&why) => {
                let shown: String = statement.text.chars().take(SHOWN_CHARACTERS_MAX).collect();
                left_out.push(format!("{shown}: {}", error::from_sqlx(why).message()));
            }
            Err(why) => return Err(why.into_ours()),
        }
    }
    work.close().await;
    Ok(left_out)
}
