//! Checks the owner of the data directory. A command run as another user would create files there that the owner cannot
//! read.
//!
//! Once the fleet has files, their owner decides. Before that, only a directory that was created for another user is
//! refused. One that belongs to root may be a volume that was given to a container.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// The files that processes create. `fleet.key` may come from somebody else, for instance as a secret of a container.
const FILES: [&str; 2] = ["catalog.db", "operator.token"];
/// The id that the system shows for users that this user namespace does not know.
const UNKNOWN: u32 = 65_534;
const ROOT: u32 = 0;

/// Refuses another user's data directory, before anything is created in it.
///
/// # Errors
/// `wrong_user`.
pub(super) fn require_own(root: &Path) -> Result<()> {
    let owner = |path: &Path| std::fs::symlink_metadata(path).ok().map(|found| found.uid());
    let files: Vec<u32> = FILES.iter().filter_map(|name| owner(&root.join(name))).collect();
    match other_owner(rustix::process::geteuid().as_raw(), owner(root), &files) {
        None => Ok(()),
        Some(other) => Err(wrong_user(root, other)),
    }
}

/// PURE: the user who should run this instead. `None` if the present user is right.
fn other_owner(own: u32, directory: Option<u32>, files: &[u32]) -> Option<u32> {
    let is_other = |owner: &u32| *owner != own && *owner != UNKNOWN;
    match files.is_empty() {
        false => files.iter().copied().find(is_other),
        true => directory.filter(|owner| is_other(owner) && *owner != ROOT),
    }
}

fn wrong_user(root: &Path, owner: u32) -> Error {
    let own = rustix::process::geteuid().as_raw();
    let names = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let (owner_name, own_name) = (name_of(&names, owner), name_of(&names, own));
    let detail = format!(
        "the data directory {} belongs to the user {owner_name}, and this process runs as {own_name}; files it made there \
         could not be read by {owner_name}",
        root.display()
    );
    Error::new(ErrorKind::WrongUser, detail)
        .try_next(format!(
            "sudo -u {} fleetctl …      # in a container: run it as the user {owner}",
            quote_numeric_id(&owner_name)
        ))
        .try_next(format!("or make all of it {own_name}'s: chown -R {own} {}", root.display()))
}

/// PURE: the user's name from the text of `/etc/passwd`, or the number in the form that `sudo` takes.
fn name_of(passwd: &str, user: u32) -> String {
    let number = user.to_string();
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| format!("#{user}"))
}

fn quote_numeric_id(name: &str) -> String {
    if name.starts_with('#') { format!("'{name}'") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_decide_and_before_them_the_directory() {
        const FLEET: u32 = 1_000;
        const OTHER: u32 = 1_001;
        assert_eq!(other_owner(FLEET, Some(FLEET), &[FLEET, FLEET]), None);
        assert_eq!(other_owner(ROOT, Some(ROOT), &[ROOT]), None);
        assert_eq!(other_owner(ROOT, Some(FLEET), &[FLEET]), Some(FLEET), "root on the directory of a user");
        assert_eq!(other_owner(OTHER, Some(FLEET), &[FLEET]), Some(FLEET));
        assert_eq!(other_owner(FLEET, Some(FLEET), &[FLEET, ROOT]), Some(ROOT), "root has been there already");
        assert_eq!(other_owner(FLEET, Some(ROOT), &[FLEET]), None, "a volume that a container was given");
        assert_eq!(other_owner(FLEET, Some(ROOT), &[]), None);
        assert_eq!(other_owner(ROOT, Some(FLEET), &[]), Some(FLEET), "it was made for somebody");
        assert_eq!(other_owner(OTHER, Some(FLEET), &[]), Some(FLEET));
        assert_eq!(other_owner(FLEET, Some(UNKNOWN), &[UNKNOWN]), None);
        assert_eq!(other_owner(FLEET, None, &[]), None);
    }

    #[test]
    fn a_user_is_called_by_name_where_it_has_one() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nfleet:x:1000:1000::/srv:/bin/sh\nbroken\n";
        assert_eq!((name_of(passwd, 1_000), name_of(passwd, 7)), ("fleet".to_owned(), "#7".to_owned()));
        assert_eq!((quote_numeric_id("fleet"), quote_numeric_id("#7")), ("fleet".to_owned(), "'#7'".to_owned()));
    }
}
