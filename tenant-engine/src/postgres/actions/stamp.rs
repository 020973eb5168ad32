//! Implements [`crate::Engine::stamp_identity`] and [`crate::Engine::freeze_database`]: changes the identity row and
//! the right to connect, and ends the sessions that were opened under the earlier identity.
//!
//! Row and rights change in one transaction, and no migration runs at the same time. A session that connected earlier
//! has read the old row; it may not write after the commit, and is ended then. A later session reads the new row, or
//! has no right to connect.

use crate::error::{Error, ErrorKind, Result};
use crate::identity::{ExpectedIdentity, Identity, IdentityState};
use crate::placement::Placement;
use crate::postgres::migration_lock::lock_key;
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::servers::logins::login_name;
use crate::postgres::servers::prepare::{READ, WRITE};
use crate::postgres::servers::server_state::PostgresServerState;
use crate::postgres::servers::{reassert, sessions};
use crate::postgres::sql::quoted_name;
use crate::postgres::{PostgresEngine, identity};
use crate::statement::AccessMode;

/// See [`crate::Engine::stamp_identity`].
pub(in crate::postgres) async fn stamp_identity(
    engine: &PostgresEngine,
    at: &Placement,
    expected: &ExpectedIdentity,
    new: &Identity,
) -> Result<()> {
    let (site, database) = engine.locate_placement(at)?;
    let _slot = site.take_slot().await?;
    replace_identity(&site, database, expected, new).await
}

/// See [`crate::Engine::freeze_database`].
pub(in crate::postgres) async fn freeze_database(
    engine: &PostgresEngine,
    at: &Placement,
    expected: &ExpectedIdentity,
    new: &Identity,
) -> Result<()> {
    if new.state != IdentityState::Frozen {
        return Err(Error::new(ErrorKind::Internal, format!("freeze was asked to stamp '{}'", new.state)));
    }
    stamp_identity(engine, at, expected, new).await
}

async fn replace_identity(
    site: &PostgresServerState,
    database: &str,
    expected: &ExpectedIdentity,
    new: &Identity,
) -> Result<()> {
    let mut work = site.open_connection(database).await?;
    let found = begin_exclusively(&mut work, database).await?;
    let repeated = found.same_as(new);
    if !repeated {
        expected.check_identity(&found)?;
    }
    let ended = ended_logins(&found, new);
    let held_off =
        !repeated && goes_on_writing(new, ended) && sessions::is_inhabited(&mut work, database, ended).await?;
    let mut change = String::new();
    if !repeated {
        change.push_str(&identity::write_identity(new));
    }
    if found.state != new.state || repeated {
        change.push_str(&connect_rights_sql(database, new.state));
    }
    change.push_str(&reassert::reassert_block(&site.server, database));
    change.push_str(&if held_off { no_writing(database) } else { writing_rights_sql(database, &found, new) });
    work.run_sql(change + "commit;").await?;
    sessions::end_sessions(&mut work, database, ended).await?;
    if held_off {
        let_write_again(&mut work, database, new).await?;
    }
    work.close().await;
    Ok(())
}

/// Whether the ended logins may write again under the new identity: the old sessions must be gone before that.
fn goes_on_writing(new: &Identity, ended: &[AccessMode]) -> bool {
    ended.contains(&AccessMode::Write) && may_write(new)
}

/// Lets the login write again, unless another stamp has changed the identity since. If the process dies before this,
/// the stamp is repeated, and a repeated stamp only grants rights.
async fn let_write_again(work: &mut AdminConnection, database: &str, new: &Identity) -> Result<()> {
    let found = begin_exclusively(work, database).await?;
    let change = if found.same_as(new) { writing_again(database) } else { String::new() };
    work.run_sql(change + "commit;").await
}

/// Begins a transaction in which no other session changes the identity and no migration runs.
async fn begin_exclusively(work: &mut AdminConnection, database: &str) -> Result<Identity> {
    let (lock, read) = (lock_key(database), identity::READ);
    let sql = format!("begin; select pg_advisory_xact_lock({lock}); {read} for update;");
    let answers = work.try_answers(sql).await.map_err(identity::identity_read_error)?;
    identity::from_rows(answers.get(2).map_or(&[], Vec::as_slice))
}

/// The logins that may connect in a state.
fn may_connect(state: IdentityState) -> &'static [AccessMode] {
    match state {
        IdentityState::Building | IdentityState::Active => &[AccessMode::Read, AccessMode::Write],
        IdentityState::Frozen => &[AccessMode::Read],
        IdentityState::Moved | IdentityState::Tombstone => &[],
    }
}

fn connect_rights_sql(database: &str, state: IdentityState) -> String {
    let right = |access: AccessMode| {
        let (name, login) = (quoted_name(database), quoted_name(&login_name(database, access)));
        match may_connect(state).contains(&access) {
            true => format!("grant connect on database {name} to {login};"),
            false => format!("revoke connect on database {name} from {login};"),
        }
    };
    [AccessMode::Read, AccessMode::Write].map(right).concat()
}

/// Changes whether the writing login has a writer's rights on the tables. A revoked right ends with the commit, in the
/// middle of a session. A statement that is on its way is then refused before it runs, instead of interrupted with an
/// unknown result. The login becomes a reader, so that it can read the identity.
fn writing_rights_sql(database: &str, found: &Identity, new: &Identity) -> String {
    let login = quoted_name(&login_name(database, AccessMode::Write));
    match (may_write(found), may_write(new)) {
        (_, false) => no_writing(database),
        // Revoking a right that is not there would log a warning on the server each time.
        (true, true) => format!("grant {WRITE} to {login};"),
        (false, true) => writing_again(database),
    }
}

fn may_write(identity: &Identity) -> bool {
    may_connect(identity.state).contains(&AccessMode::Write)
}

fn no_writing(database: &str) -> String {
    let login = quoted_name(&login_name(database, AccessMode::Write));
    format!("grant {READ} to {login}; revoke {WRITE} from {login};")
}

fn writing_again(database: &str) -> String {
    let login = quoted_name(&login_name(database, AccessMode::Write));
    format!("grant {WRITE} to {login}; revoke {READ} from {login};")
}

/// The logins whose sessions the new identity would refuse. A repeated call cannot know the earlier identity, so it
/// ends all sessions whose rights could have changed. Sessions that are ended without need connect again.
fn ended_logins(found: &Identity, new: &Identity) -> &'static [AccessMode] {
    let same_owner = Identity { state: new.state, op: new.op, ..found.clone() }.same_as(new);
    let repeated = found.same_as(new);
    match new.state {
        IdentityState::Frozen if same_owner && !repeated => &[AccessMode::Write],
        IdentityState::Active if same_owner && !repeated => &[],
        _ => &[AccessMode::Read, AccessMode::Write],
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
        let both: &[AccessMode] = &[AccessMode::Read, AccessMode::Write];
        assert_eq!(ended_logins(&at(1, Active), &at(1, Frozen)), [AccessMode::Write]);
        assert_eq!(ended_logins(&at(1, Frozen), &at(1, Active)), []);
        assert_eq!(ended_logins(&at(1, Active), &at(2, Active)), both);
        assert_eq!(ended_logins(&at(1, Active), &at(2, Frozen)), both);
        assert_eq!(ended_logins(&at(1, Active), &at(1, Moved)), both);
        assert_eq!(ended_logins(&at(2, Active), &at(2, Active)), both, "repeated");
    }
}
