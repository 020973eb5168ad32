//! Templates of releases.

use super::kit::{BASE, Kit, base_and, set};

#[tokio::test]
async fn a_later_release_goes_on_from_the_template_of_an_earlier_one() {
    let kit = Kit::new();
    let first = kit.provisioned(&set(&BASE)).await;
    let later = base_and(&[("0003_later.sql", "create table later(x int);")]);
    let second = kit.provisioned(&later).await;
    let applied_at = "select installed_on from _sqlx_migrations where version = 1";
    assert_eq!(kit.ask(&first, applied_at), kit.ask(&second, applied_at));
    assert_eq!(kit.ask(&second, "select max(version) from _sqlx_migrations"), "3");
    assert_eq!(kit.ask(&second, "select count(*) from later"), "0");
    // Another text of version 1 is another line of releases.
    let other = set(&[("0001_other.sql", "create table other(x int);")]);
    let third = kit.provisioned(&other).await;
    assert_ne!(kit.ask(&first, applied_at), kit.ask(&third, applied_at));
}
