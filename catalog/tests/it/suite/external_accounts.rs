//! Accounts of tenants with other services.

use catalog::external_accounts::{self, AccountRecord};
use catalog::{ErrorKind, TenantId};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Fixture, START, seed};

const SECRET: &str = "whsec_0123456789abcdef";

#[tokio::test]
async fn an_account_has_one_tenant_and_a_sealed_secret() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 2).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let secret = SecretString::from(SECRET);
    let stripe = ("stripe", "acct_1");
    let linked = external_accounts::link_account(&mut tx, ids[0], stripe, Some(&secret)).await.unwrap();
    let record = |account: &str, has_secret| AccountRecord {
        provider: "stripe".to_owned(),
        account: account.to_owned(),
        tenant_id: ids[0],
        has_secret,
        created_at: START,
    };
    assert_eq!(linked, record("acct_1", true));
    let taken = external_accounts::link_account(&mut tx, ids[1], stripe, None).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict);
    let owner = external_accounts::account_owner(&mut tx, "stripe", "acct_1").await.unwrap().unwrap();
    assert_eq!((owner.tenant, owner.secret.unwrap().expose_secret()), (ids[0], SECRET));
    assert!(external_accounts::account_owner(&mut tx, "github", "acct_1").await.unwrap().is_none());
    external_accounts::link_account(&mut tx, ids[0], ("stripe", "acct_2"), None).await.unwrap();
    let page = external_accounts::list_accounts(&mut tx, ids[0], None, 1).await.unwrap();
    assert_eq!(page, [record("acct_1", true)]);
    let rest = external_accounts::list_accounts(&mut tx, ids[0], Some(stripe), 10).await.unwrap();
    assert_eq!(rest, [record("acct_2", false)]);
    external_accounts::link_account(&mut tx, ids[0], stripe, None).await.unwrap();
    assert!(external_accounts::account_owner(&mut tx, "stripe", "acct_1").await.unwrap().unwrap().secret.is_none());
    let other = external_accounts::unlink_account(&mut tx, ids[1], "stripe", "acct_1").await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::NotFound);
    external_accounts::unlink_account(&mut tx, ids[0], "stripe", "acct_1").await.unwrap();
    external_accounts::link_account(&mut tx, ids[1], stripe, None).await.unwrap();
}

#[tokio::test]
async fn odd_names_and_short_secrets_are_refused() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let long = ["p".repeat(64), "a".repeat(256)];
    let short = SecretString::from("0123456789");
    for (provider, account, secret) in [
        ("", "a", None),
        ("Stripe", "a", None),
        ("a/b", "a", None),
        (&*long[0], "a", None),
        ("stripe", "", None),
        ("stripe", "a\nb", None),
        ("stripe", &*long[1], None),
        ("stripe", "a", Some(&short)),
    ] {
        let refused = external_accounts::link_account(&mut tx, ids[0], (provider, account), secret).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{provider:?} {account:?}");
    }
    for number in 0..100 {
        external_accounts::link_account(&mut tx, ids[0], ("stripe", &format!("{number}")), None).await.unwrap();
    }
    let many = external_accounts::link_account(&mut tx, ids[0], ("stripe", "more"), None).await.unwrap_err();
    assert_eq!(many.kind(), ErrorKind::Conflict);
    let unknown = external_accounts::link_account(&mut tx, TenantId::generate(), ("stripe", "new"), None).await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::NotFound);
}
