//! The verbs `stamp` and `freeze`: the identity row, the right to connect, and the end of the sessions that were opened
//! under what was before.
//!
//! Row and rights change in one transaction, which no migration is running beside. A session that came in before reads
//! the old row, may not write from the commit on, and is ended after it; one that comes later reads the new row, or has
//! no right to connect.

use super::logins::login;
use super::prepare::{READ, WRITE};
use super::site::Site;
use super::sql::quoted;
use super::work::Work;
use super::{PostgresEngine, identity, ledger, reassert, sessions};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Expected, Identity, IdentityState};
use crate::placement::Placement;
use crate::pool::Access;

/// See [`crate::Engine::stamp`].
pub(super) async fn stamp(engine: &PostgresEngine, at: &Placement, expected: &Expected, new: &Identity) -> Result<()> {
    let (site, database) = engine.site(at)?;
    let _slot = site.slot().await?;
    replace(&site, database, expected, new).await
}

/// See [`crate::Engine::freeze`].
pub(super) async fn freeze(engine: &PostgresEngine, at: &Placement, expected: &Expected, new: &Identity) -> Result<()> {
    if new.state != IdentityState::Frozen {
        return Err(Error::new(ErrorKind::Internal, format!("freeze was asked to stamp '{}'", new.state)));
    }
    stamp(engine, at, expected, new).await
}

async fn replace(site: &Site, database: &str, expected: &Expected, new: &Identity) -> Result<()> {
    let mut work = site.enter(database).await?;
    let found = begin(&mut work, database).await?;
    let repeated = found.same_as(new);
    if !repeated {
        expected.check(&found)?;
    }
    let ended = ended(&found, new);
    let held_off =
        !repeated && goes_on_writing(new, ended) && sessions::is_inhabited(&mut work, database, ended).await?;
    let mut change = String::new();
    if !repeated {
        change.push_str(&identity::write(new));
    }
    if found.state != new.state || repeated {
        change.push_str(&rights(database, new.state));
    }
    change.push_str(&reassert::block(&site.server, database));
    change.push_str(&if held_off { no_writing(database) } else { writing(database, &found, new) });
    work.run(change + "commit;").await?;
    sessions::end(&mut work, database, ended).await?;
    if held_off {
        let_write_again(&mut work, database, new).await?;
    }
    work.close().await;
    Ok(())
}

/// Whether sessions end whose successors may write: those of before may not, until they are gone.
fn goes_on_writing(new: &Identity, ended: &[Access]) -> bool {
    ended.contains(&Access::Write) && may_write(new)
}

/// Unless another stamp has decided since. Whoever dies before this is repeated, and a repeated stamp only ever gives.
async fn let_write_again(work: &mut Work, database: &str, new: &Identity) -> Result<()> {
    let found = begin(work, database).await?;
    let change = if found.same_as(new) { writing_again(database) } else { String::new() };
    work.run(change + "commit;").await
}

/// A transaction that nobody else changes the identity beside, and in which no migration runs.
async fn begin(work: &mut Work, database: &str) -> Result<Identity> {
    let (lock, read) = (ledger::lock_key(database), identity::READ);
    let sql = format!("begin; select pg_advisory_xact_lock({lock}); {read} for update;");
    let answers = work.try_answers(sql).await.map_err(identity::missing)?;
    identity::from_rows(answers.get(2).map_or(&[], Vec::as_slice))
}

/// Who may connect in a state.
fn may_connect(state: IdentityState) -> &'static [Access] {
    match state {
        IdentityState::Building | IdentityState::Active => &[Access::Read, Access::Write],
        IdentityState::Frozen => &[Access::Read],
        IdentityState::Moved | IdentityState::Tombstone => &[],
    }
}

fn rights(database: &str, state: IdentityState) -> String {
    let right = |access: Access| {
        let (name, login) = (quoted(database), quoted(&login(database, access)));
        match may_connect(state).contains(&access) {
            true => format!("grant connect on database {name} to {login};"),
            false => format!("revoke connect on database {name} from {login};"),
        }
    };
    [Access::Read, Access::Write].map(right).concat()
}

/// Whether the writing login has a writer's rights on the tables. They end with the commit, in the middle of a session:
/// whatever is on its way to a session is refused before it runs, and not cut off with nobody knowing whether it was
/// done. A reader it is then, so that it can read the identity.
fn writing(database: &str, found: &Identity, new: &Identity) -> String {
    let login = quoted(&login(database, Access::Write));
    match (may_write(found), may_write(new)) {
        (_, false) => no_writing(database),
        // Taking what is not there would be a warning in the server's log each time.
        (true, true) => format!("grant {WRITE} to {login};"),
        (false, true) => writing_again(database),
    }
}

fn may_write(identity: &Identity) -> bool {
    may_connect(identity.state).contains(&Access::Write)
}

fn no_writing(database: &str) -> String {
    let login = quoted(&login(database, Access::Write));
    format!("grant {READ} to {login}; revoke {WRITE} from {login};")
}

fn writing_again(database: &str) -> String {
    let login = quoted(&login(database, Access::Write));
    format!("grant {WRITE} to {login}; revoke {READ} from {login};")
}

/// Whose sessions the new identity would refuse. A repeated call cannot know what was before, so it ends all whose
/// right could have changed; what it ends without need connects again.
fn ended(found: &Identity, new: &Identity) -> &'static [Access] {
    let same_owner = Identity { state: new.state, op: new.op, ..found.clone() }.same_as(new);
    let repeated = found.same_as(new);
    match new.state {
        IdentityState::Frozen if same_owner && !repeated => &[Access::Write],
        IdentityState::Active if same_owner && !repeated => &[],
        _ => &[Access::Read, Access::Write],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{FleetId, Generation, TenantId};

    #[test]
    fn sessions_end_when_the_new_identity_would_refuse_them() {
        use IdentityState::{Active, Frozen, Moved};
        let (tenant, fleet) = (TenantId::generate(), FleetId::generate());
        let at = |generation, state| Identity {
            tenant,
            fleet,
            generation: Generation(generation),
            state,
            op: None,
            stamped_at: generation,
        };
        let both: &[Access] = &[Access::Read, Access::Write];
        assert_eq!(ended(&at(1, Active), &at(1, Frozen)), [Access::Write]);
        assert_eq!(ended(&at(1, Frozen), &at(1, Active)), []);
        assert_eq!(ended(&at(1, Active), &at(2, Active)), both);
        assert_eq!(ended(&at(1, Active), &at(2, Frozen)), both);
        assert_eq!(ended(&at(1, Active), &at(1, Moved)), both);
        assert_eq!(ended(&at(2, Active), &at(2, Active)), both, "repeated");
    }
}
