"""Makes keys and tokens with PyJWT, as an identity provider does, and prints them as JSON."""
import base64, hashlib, hmac, json, time
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://id.example/", "tasks"
SECRET = "a secret of more than thirty-two bytes"
NOW = int(time.time())


def claims(**changed):
    made = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": NOW + 600, "iat": NOW}
    made.update(changed)
    return {name: value for name, value in made.items() if value is not None}


def encode(key, algorithm, kid=None, headers=None, **changed):
    headers = dict(headers or {}, **({"kid": kid} if kid else {}))
    return jwt.encode(claims(**changed), key, algorithm=algorithm, headers=headers)


def public(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def jwk(algorithm, key, kid, alg):
    return dict(json.loads(algorithm.to_jwk(key.public_key())), kid=kid, alg=alg, use="sig")


def by_hand(header, secret):
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
    text = part(header) + "." + part(claims())
    mac = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest() if secret else b""
    return text + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


first, second = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
curve, edwards = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
first_jwk, second_jwk = jwk(RSAAlgorithm, first, "first", "RS256"), jwk(RSAAlgorithm, second, "second", "RS256")

print(json.dumps({
    "secret": SECRET,
    "public": {"rsa": public(first), "ecdsa": public(curve), "ed25519": public(edwards)},
    "sets": {
        "first": {"keys": [first_jwk]},
        "both": {"keys": [first_jwk, second_jwk]},
        "second": {"keys": [second_jwk]},
        "ecdsa": {"keys": [first_jwk, jwk(ECAlgorithm, curve, "curve", "ES256")]},
        "ed25519": {"keys": [jwk(OKPAlgorithm, edwards, "edwards", "EdDSA")]},
    },
    "good": {
        "rsa": encode(first, "RS256", "first"),
        "rsa_pss": encode(first, "PS256"),
        "audiences": encode(first, "RS256", "first", aud=["other", AUDIENCE]),
        "ecdsa": encode(curve, "ES256", "curve"),
        "ed25519": encode(edwards, "EdDSA", "edwards"),
        "secret": encode(SECRET, "HS256"),
    },
    "second": encode(second, "RS256", "second"),
    "unknown": [encode(first, "RS256", f"unknown-{number}") for number in range(50)],
    "bad": {
        "other key": encode(second, "RS256", "first"),
        "expired": encode(first, "RS256", "first", exp=NOW - 60),
        "without exp": encode(first, "RS256", "first", exp=None),
        "without sub": encode(first, "RS256", "first", sub=None),
        "empty sub": encode(first, "RS256", "first", sub=""),
        "without aud": encode(first, "RS256", "first", aud=None),
        "wrong audience": encode(first, "RS256", "first", aud="other"),
        "without iss": encode(first, "RS256", "first", iss=None),
        "wrong issuer": encode(first, "RS256", "first", iss="https://evil.example/"),
        "not yet": encode(first, "RS256", "first", nbf=NOW + 600),
        "alg none": by_hand({"alg": "none", "typ": "JWT"}, ""),
        "public key as secret": by_hand({"alg": "HS256", "typ": "JWT", "kid": "first"}, public(first)),
        "the secret of another issuer": encode(SECRET, "HS256", "first"),
        "another family": encode(curve, "ES256", "first"),
        "demands an extension": encode(first, "RS256", "first", headers={"crit": ["exp"], "exp": 1}),
        "not a token": "a.b.c",
        "empty parts": "..",
        "too long": encode(first, "RS256", "first", more="x" * 9000),
        "claim of another type": encode(first, "RS256", "first", org=["acme"]),
    },
    "claims": {
        "acme": encode(first, "RS256", "first", org="acme"),
        "globex": encode(first, "RS256", "first", org="globex"),
        "invalid": encode(first, "RS256", "first", org="../acme"),
    },
}))
