//! JSON Web Tokens that PyJWT and openssl made: who is let in, and everything that is refused.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tenant_router::jwt::{JwtIssuer, JwtVerifier, SigningAlgorithms};
use tenant_router::test_fleet::TestFleet;
use tenant_router::{ErrorKind, Read, RequestView, Role, Router};

use crate::key_server::{KeyServer, made_by_pyjwt};

const ISSUER: &str = "https://id.example/";
const AUDIENCE: &str = "tasks";

impl KeyServer {
    fn issuer(&self, algorithms: SigningAlgorithms) -> JwtIssuer {
        JwtIssuer::with_jwks(ISSUER, AUDIENCE, algorithms, &self.url).tenant_claim("org")
    }
}

/// Two tenants; `ada` is a member of the first.
async fn fleet() -> TestFleet {
    let fleet = TestFleet::start("create table t (id integer) strict", ["acme", "globex"]).await.unwrap();
    fleet.set_member("acme", "ada", Role::Reader).await.unwrap();
    fleet
}

async fn router_for(fleet: &TestFleet, issuer: JwtIssuer) -> Router {
    let verifier = JwtVerifier::new([issuer]).unwrap();
    fleet.router_builder().await.unwrap().jwt(verifier).build().await.unwrap()
}

async fn open(router: &Router, path: &str, token: &str) -> Result<String, ErrorKind> {
    let request = RequestView { credential: Some(token), path, ..RequestView::default() };
    router.open::<Read>(&request).await.map(|tenant| tenant.name().to_owned()).map_err(|error| error.kind())
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is missing"))
}

#[tokio::test]
async fn tokens_of_every_family_prove_a_member() {
    let (fleet, made) = (fleet().await, made_by_pyjwt());
    let (sets, public, good) = (&made["sets"], &made["public"], &made["good"]);
    let secret = text(&made, "secret").to_owned().into();
    let (rsa, ecdsa) = (KeyServer::start(&sets["first"]), KeyServer::start(&sets["ecdsa"]));
    let edwards = KeyServer::start(&sets["ed25519"]);
    use SigningAlgorithms::{Ecdsa, Ed25519, Rsa};
    for (issuer, tokens) in [
        (rsa.issuer(Rsa), vec!["rsa", "audiences"]),
        (ecdsa.issuer(Ecdsa), vec!["ecdsa"]),
        (edwards.issuer(Ed25519), vec!["ed25519"]),
        (JwtIssuer::with_public_key(ISSUER, AUDIENCE, Rsa, text(public, "rsa")), vec!["rsa", "rsa_pss", "audiences"]),
        (JwtIssuer::with_public_key(ISSUER, AUDIENCE, Ecdsa, text(public, "ecdsa")), vec!["ecdsa"]),
        (JwtIssuer::with_public_key(ISSUER, AUDIENCE, Ed25519, text(public, "ed25519")), vec!["ed25519"]),
        (JwtIssuer::with_secret(ISSUER, AUDIENCE, secret), vec!["secret"]),
    ] {
        let router = router_for(&fleet, issuer).await;
        for (name, token) in good.as_object().unwrap() {
            let opened = open(&router, "/t/acme/x", token.as_str().unwrap()).await;
            match tokens.contains(&name.as_str()) {
                true => assert_eq!(opened, Ok("acme".to_owned()), "{name}"),
                false => assert_eq!(opened, Err(ErrorKind::Unauthenticated), "{name} is of another family"),
            }
            if tokens.contains(&name.as_str()) {
                let foreign = open(&router, "/t/globex/x", token.as_str().unwrap()).await;
                assert_eq!(foreign, Err(ErrorKind::NotFound), "a token is no membership");
            }
        }
        let own = fleet.token("acme", Role::Reader).await.unwrap();
        assert_eq!(open(&router, "/t/acme/x", &own).await, Ok("acme".to_owned()), "API tokens still work");
    }
}

#[tokio::test]
async fn everything_else_is_refused() {
    let (fleet, made) = (fleet().await, made_by_pyjwt());
    let server = KeyServer::start(&made["sets"]["first"]);
    let fetched = router_for(&fleet, server.issuer(SigningAlgorithms::Rsa)).await;
    let fixed = JwtIssuer::with_public_key(ISSUER, AUDIENCE, SigningAlgorithms::Rsa, text(&made["public"], "rsa"));
    let fixed = router_for(&fleet, fixed.tenant_claim("org")).await;
    for (name, token) in made["bad"].as_object().unwrap() {
        for router in [&fetched, &fixed] {
            let opened = open(router, "/t/acme/x", token.as_str().unwrap()).await;
            assert_eq!(opened, Err(ErrorKind::Unauthenticated), "{name}");
        }
    }
}

#[tokio::test]
async fn a_tenant_claim_names_and_never_grants() {
    let (fleet, made) = (fleet().await, made_by_pyjwt());
    let server = KeyServer::start(&made["sets"]["first"]);
    let router = router_for(&fleet, server.issuer(SigningAlgorithms::Rsa)).await;
    let claim = |name| text(&made["claims"], name);
    assert_eq!(open(&router, "/tasks", claim("acme")).await, Ok("acme".to_owned()), "it names the tenant alone");
    assert_eq!(open(&router, "/t/acme/tasks", claim("acme")).await, Ok("acme".to_owned()));
    assert_eq!(open(&router, "/tasks", claim("globex")).await, Err(ErrorKind::NotFound), "no member there");
    assert_eq!(open(&router, "/t/acme/tasks", claim("globex")).await, Err(ErrorKind::TenantAmbiguous));
    assert_eq!(open(&router, "/t/globex/tasks", claim("acme")).await, Err(ErrorKind::TenantAmbiguous));
    assert_eq!(open(&router, "/t/acme/tasks", claim("invalid")).await, Err(ErrorKind::TenantNameInvalid));
    assert_eq!(open(&router, "/tasks", text(&made["good"], "rsa")).await, Err(ErrorKind::TenantUnnamed));
}

#[tokio::test]
async fn unknown_keys_cause_one_fetch_and_removed_keys_are_refused() {
    let (fleet, made) = (fleet().await, made_by_pyjwt());
    let server = KeyServer::start(&made["sets"]["first"]);
    let router = router_for(&fleet, server.issuer(SigningAlgorithms::Rsa)).await;
    let first = text(&made["good"], "rsa");
    assert_eq!(open(&router, "/t/acme/x", first).await, Ok("acme".to_owned()));
    for token in made["unknown"].as_array().unwrap() {
        let opened = open(&router, "/t/acme/x", token.as_str().unwrap()).await;
        assert_eq!(opened, Err(ErrorKind::Unauthenticated));
    }
    assert!(server.asked() <= 2, "{} fetches for 50 unknown keys", server.asked());

    // The same in short: keys are used for half a second.
    let issuer = server.issuer(SigningAlgorithms::Rsa).keys_age_max(Duration::from_millis(500));
    let router = router_for(&fleet, issuer).await;
    server.serve(&made["sets"]["both"]);
    assert_eq!(open(&router, "/t/acme/x", first).await, Ok("acme".to_owned()));
    assert_eq!(open(&router, "/t/acme/x", text(&made, "second")).await, Ok("acme".to_owned()));
    server.serve(&made["sets"]["second"]);
    let begun = Instant::now();
    while open(&router, "/t/acme/x", first).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(60), "a removed key is still accepted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(open(&router, "/t/acme/x", text(&made, "second")).await, Ok("acme".to_owned()));
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_is_no_refusal() {
    let (fleet, made) = (fleet().await, made_by_pyjwt());
    let server = KeyServer::start(&Value::Null);
    let router = router_for(&fleet, server.issuer(SigningAlgorithms::Rsa)).await;
    let token = text(&made["good"], "rsa");
    assert_eq!(open(&router, "/t/acme/x", token).await, Err(ErrorKind::KeysUnavailable));
    assert_eq!((ErrorKind::KeysUnavailable.status(), ErrorKind::KeysUnavailable.retry_after().is_some()), (503, true));

    let server = KeyServer::start(&made["sets"]["first"]);
    let issuer = server.issuer(SigningAlgorithms::Rsa).keys_age_max(Duration::from_millis(50));
    let router = router_for(&fleet, issuer).await;
    assert_eq!(open(&router, "/t/acme/x", token).await, Ok("acme".to_owned()));
    server.serve(&Value::Null);
    tokio::time::sleep(Duration::from_millis(60)).await;
    let other = text(&made["good"], "audiences");
    assert_eq!(open(&router, "/t/acme/x", other).await, Ok("acme".to_owned()), "the last keys are used");
}

#[tokio::test]
async fn a_token_of_openssl_is_accepted() {
    let (fleet, dir) = (fleet().await, tempfile::tempdir().unwrap());
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key.pem"]);
    let public = String::from_utf8(run(&["pkey", "-in", "key.pem", "-pubout"])).unwrap();
    let expires = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 600;
    let claims = format!(r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"ada","exp":{expires}}}"#);
    let signed = format!("{}.{}", base64_url(br#"{"alg":"RS256"}"#), base64_url(claims.as_bytes()));
    std::fs::write(dir.path().join("signed"), &signed).unwrap();
    let token = format!("{signed}.{}", base64_url(&run(&["dgst", "-sha256", "-sign", "key.pem", "signed"])));
    let router = router_for(&fleet, JwtIssuer::with_public_key(ISSUER, AUDIENCE, SigningAlgorithms::Rsa, public)).await;
    assert_eq!(open(&router, "/t/acme/x", &token).await, Ok("acme".to_owned()));
    let mut damaged = token.into_bytes();
    let middle = damaged.len() - 100;
    damaged[middle] = if damaged[middle] == b'A' { b'B' } else { b'A' };
    let damaged = String::from_utf8(damaged).unwrap();
    assert_eq!(open(&router, "/t/acme/x", &damaged).await, Err(ErrorKind::Unauthenticated));
}

#[test]
fn settings_that_would_let_strangers_in_are_refused() {
    let secret = |text: &str| JwtIssuer::with_secret(ISSUER, AUDIENCE, text.to_owned().into());
    let long = "a secret of more than thirty-two bytes";
    let jwks = |url: &str| JwtIssuer::with_jwks(ISSUER, AUDIENCE, SigningAlgorithms::Rsa, url);
    for (issuers, told) in [
        (vec![], "no issuer"),
        (vec![secret("short")], "less than 32 bytes"),
        (vec![secret(long), secret(long)], "two issuers"),
        (vec![secret(long), JwtIssuer::with_secret("other", AUDIENCE, long.to_owned().into())], "principal_prefix"),
        (
            vec![
                secret(long).principal_prefix("a"),
                JwtIssuer::with_secret("other", AUDIENCE, long.to_owned().into()).principal_prefix("ab"),
            ],
            "principal_prefix",
        ),
        (vec![jwks("http://id.example/keys")], "https://"),
        (vec![JwtIssuer::with_secret("", AUDIENCE, long.to_owned().into())], "needs a name"),
        (vec![JwtIssuer::with_secret(ISSUER, "", long.to_owned().into())], "audience"),
        (vec![JwtIssuer::with_public_key(ISSUER, AUDIENCE, SigningAlgorithms::Ecdsa, "no key")], "public key"),
    ] {
        let error = JwtVerifier::new(issuers).map(drop).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
}

/// Base64 for URLs, without padding.
fn base64_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |chunk: &[u8]| {
        let bits =
            chunk.iter().enumerate().fold(0_u32, |bits, (index, byte)| bits | u32::from(*byte) << (16 - 8 * index));
        (0..=chunk.len())
            .map(move |digit| char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]))
            .collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}
