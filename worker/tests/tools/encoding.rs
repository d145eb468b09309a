use serde_json::json;

use crate::{
    functions::{Answer, Refusal, answers, refusals},
    support::{context, tools},
};

const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c";

pub fn known() -> Vec<Answer> {
    let hash =
        |algorithm: &str, result: &str| ("hash", json!({"text": "abc", "algorithm": algorithm}), json!({"result": result}));
    vec![
        ("base64_encode", json!({"text": "Hällo?>"}), json!({"result": "SMOkbGxvPz4="})),
        ("base64_encode", json!({"text": "Hällo?>", "url_safe": true}), json!({"result": "SMOkbGxvPz4"})),
        ("base64_decode", json!({"text": "SMOk\nbGxvPz4"}), json!({"result": "Hällo?>", "bytes": 8})),
        ("base64_decode", json!({"text": "_-8=", "as": "hex"}), json!({"result": "ffef", "bytes": 2})),
        ("url_encode", json!({"text": "a b&c/é~"}), json!({"result": "a%20b%26c%2F%C3%A9~"})),
        (
            "url_encode",
            json!({"text": "https://a.b/c d?q=é#x", "whole": true}),
            json!({"result": "https://a.b/c%20d?q=%C3%A9#x"}),
        ),
        ("url_decode", json!({"text": "a%20b+c%C3%A9"}), json!({"result": "a b+cé"})),
        ("url_decode", json!({"text": "a+b%2B", "form": true}), json!({"result": "a b+"})),
        hash("md5", "900150983cd24fb0d6963f7d28e17f72"),
        hash("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        hash("sha224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        hash("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        hash("sha384", "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"),
        hash(
            "sha512",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        ("hash", json!({"text": "abc", "as": "base64"}), json!({"result": "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="})),
        // RFC 4231, test case 2; RFC 2202, test case 2.
        (
            "hmac",
            json!({"text": "what do ya want for nothing?", "key": "Jefe"}),
            json!({"result": "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"}),
        ),
        (
            "hmac",
            json!({"text": "what do ya want for nothing?", "key": "4a656665", "key_as": "hex", "algorithm": "sha1"}),
            json!({"result": "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"}),
        ),
        (
            "hmac",
            json!({"text": "what do ya want for nothing?", "key": "SmVmZQ==", "key_as": "base64", "algorithm": "md5"}),
            json!({"result": "750c783e6ab0b503eaa86e310a5db738"}),
        ),
        (
            "hmac",
            json!({"text": "what do ya want for nothing?", "key": "Jefe", "algorithm": "sha512"}),
            json!({"result": "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"}),
        ),
        (
            "hmac",
            json!({"text": "what do ya want for nothing?", "key": "Jefe", "algorithm": "sha384"}),
            json!({"result": "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"}),
        ),
        ("uuid", json!({}), json!({})),
        (
            "jwt_decode",
            json!({"token": TOKEN}),
            json!({
                "header": {"alg": "HS256", "typ": "JWT"}, "payload": {"sub": "1234567890", "name": "John Doe", "iat": 1_516_239_022},
                "signature_verified": false, "issued_at": "2018-01-18T01:30:22Z", "expires_at": null, "expired": null,
            }),
        ),
        // {"exp":1773655199}: a second before the clock of these tests.
        (
            "jwt_decode",
            json!({"token": "Bearer e30.eyJleHAiOjE3NzM2NTUxOTl9."}),
            json!({"header": {}, "expires_at": "2026-03-16T09:59:59Z", "expired": true}),
        ),
    ]
}

#[tokio::test]
async fn known_answers() {
    answers(known()).await;
}

#[tokio::test]
async fn bad_inputs() {
    let refused: Vec<Refusal> = vec![
        ("base64_decode", json!({"text": "a$b"}), "INVALID_BASE64", "symbol"),
        ("base64_decode", json!({"text": "/+8="}), "NOT_TEXT", "hex"),
        ("url_decode", json!({"text": "%ff"}), "NOT_TEXT", "UTF-8"),
        ("hash", json!({"text": "a", "algorithm": "crc32"}), "INVALID_ARGUMENTS", "algorithm"),
        ("hash", json!({"text": "é".repeat(500_001)}), "INVALID_ARGUMENTS", "text"),
        ("hmac", json!({"text": "a", "key": "xyz", "key_as": "hex"}), "INVALID_HEX", "key"),
        ("hmac", json!({"text": "a", "key": "*", "key_as": "base64"}), "INVALID_BASE64", "key"),
        ("uuid", json!({"version": 1}), "INVALID_ARGUMENTS", "version"),
        ("uuid", json!({"count": 0}), "INVALID_ARGUMENTS", "count"),
        ("jwt_decode", json!({"token": "abc"}), "INVALID_TOKEN", "three parts"),
        ("jwt_decode", json!({"token": "a.b.c.d.e"}), "INVALID_TOKEN", "encrypted"),
        ("jwt_decode", json!({"token": "*.e30.x"}), "INVALID_TOKEN", "header is no base64"),
        ("jwt_decode", json!({"token": "e30.YWJj.x"}), "INVALID_TOKEN", "payload is no JSON"),
        ("jwt_decode", json!({"token": "W10.e30.x"}), "INVALID_TOKEN", "object"),
    ];
    refusals(refused).await;
}

#[tokio::test]
async fn uuids_are_of_their_version_and_differ() {
    let (tools, cx) = (tools(&[]), context().await);
    for version in [4, 7] {
        let made = tools.call("uuid", &cx, json!({"version": version, "count": 500})).await.unwrap();
        let made: Vec<uuid::Uuid> = serde_json::from_value(made["uuids"].clone()).unwrap();
        assert!(made.iter().all(|id| id.get_version_num() == version));
        let mut sorted = made.clone();
        sorted.sort();
        assert_eq!(sorted == made, version == 7);
        sorted.dedup();
        assert_eq!(sorted.len(), 500);
        if version == 7 {
            assert_eq!(made[0].get_timestamp().unwrap().to_unix().0, 1_773_655_200);
        }
    }
}
