use std::time::Duration;

use runmill_shared::{
    config::{AuthMode, Secret},
    domain::{
        caller::{Caller, Role},
        new_id,
    },
    services::tokens::Tokens,
    store::db::{Sql, query},
};
use runmill_testkit::database::{TestDatabase, databases};

use crate::support::{SECRET, TestServer, read, required};

#[tokio::test]
async fn an_account_from_registration_to_sign_in() {
    for database in databases().await {
        let config = required(&database);
        let server = TestServer::start(database, config).await;
        let (status, first) = read(server.register("Ada").await).await;
        assert_eq!((status, &first["role"], &first["email"]), (201, &"admin".into(), &"ada@example.org".into()), "{first}");
        assert!(first.get("password").is_none() && first.get("password_hash").is_none());
        let (status, second) = read(server.register("Bob").await).await;
        assert_eq!((status, &second["role"]), (201, &"user".into()));
        for name in ["ada", "ADA@example.org"] {
            let (status, token) = read(server.login(name, "correct horse").await).await;
            assert_eq!((status, &token["token_type"], &token["expires_in"]), (200, &"bearer".into(), &43_200.into()));
            let me = server.get("/api/v1/auth/me").bearer_auth(token["access_token"].as_str().unwrap());
            assert_eq!(read(me.send().await.unwrap()).await, (200, first.clone()));
        }
        let unknown = read(server.login("nobody", "correct horse").await).await;
        assert_eq!(read(server.login("ada", "wrong horse").await).await, unknown, "the same words for both");
        assert_eq!(unknown.0, 401);
    }
}

#[tokio::test]
async fn an_api_key_works_until_it_is_revoked() {
    for database in databases().await {
        let config = required(&database);
        let server = TestServer::start(database, config).await;
        let token = server.signed_in("ada").await;
        let create = server.post("/api/v1/auth/api-keys").bearer_auth(&token).json(&serde_json::json!({ "name": "ci" }));
        let (status, created) = read(create.send().await.unwrap()).await;
        assert_eq!(status, 201, "{created}");
        let (id, key) = (created["id"].as_str().unwrap(), created["key"].as_str().unwrap());
        let list = || server.get("/api/v1/auth/api-keys").bearer_auth(key);
        let (status, page) = read(list().send().await.unwrap()).await;
        assert_eq!((status, &page["total"], &page["items"][0]["id"]), (200, &1.into(), &id.into()), "{page}");
        assert!(page["items"][0].get("key").is_none(), "the key is shown once");

        let other = server.signed_in("bob").await;
        let revoke = |token: &str| server.client.delete(server.url(&format!("/api/v1/auth/api-keys/{id}"))).bearer_auth(token);
        assert_eq!(revoke(&other).send().await.unwrap().status(), 404, "somebody else's");
        assert_eq!(revoke(&token).send().await.unwrap().status(), 204);
        assert_eq!(revoke(&token).send().await.unwrap().status(), 404);
        assert_eq!(list().send().await.unwrap().status(), 401);
    }
}

#[tokio::test]
async fn tokens_expire_and_secrets_rotate() {
    let database = TestDatabase::sqlite().await;
    let mut old = required(&database);
    old.auth.jwt_secret = Secret::new("the secret of last month, 32 bytes+");
    let mut config = required(&database);
    config.auth.previous_jwt_secrets = vec![old.auth.jwt_secret.clone()];
    let server = TestServer::start(database, config).await;
    let (_, user) = read(server.register("ada").await).await;
    let user = user["id"].as_str().unwrap().parse().unwrap();
    let me = |token: &str| server.get("/api/v1/auth/me").bearer_auth(token).send();

    let of_old = Tokens::open(&old).unwrap().issue_user(user, Role::User, &server.app.clock).unwrap();
    assert_eq!(me(&of_old.token).await.unwrap().status(), 200);
    old.auth.jwt_secret = Secret::new("a secret that was never ours, 32 bytes+");
    let foreign = Tokens::open(&old).unwrap().issue_user(user, Role::Admin, &server.app.clock).unwrap();
    assert_eq!(me(&foreign.token).await.unwrap().status(), 401);

    server.app.clock.advance(Duration::from_secs(of_old.expires_in));
    let (status, body) = read(me(&of_old.token).await.unwrap()).await;
    assert_eq!((status, &body["message"]), (401, &"the token has expired".into()));
}

#[tokio::test]
async fn the_token_of_a_deleted_user_is_refused() {
    const DELETE: Sql = Sql::both("DELETE FROM users WHERE nickname_key = 'ada'");
    let server = TestServer::sqlite().await;
    let token = server.signed_in("ada").await;
    let whoami = || server.get("/probe/whoami").bearer_auth(&token).send();
    assert_eq!(whoami().await.unwrap().status(), 200);
    let mut tx = server.app.db.begin().await.unwrap();
    assert_eq!(query(DELETE).execute(&mut tx).await.unwrap(), 1);
    tx.commit().await.unwrap();
    server.app.clock.advance(Duration::from_secs(30));
    assert_eq!(
        read(whoami().await.unwrap()).await,
        (401, serde_json::json!({ "detail": "the account does not exist any more" }))
    );
    let never = server.app.tokens.issue_user(new_id(), Role::Admin, &server.app.clock).unwrap();
    assert_eq!(server.get("/probe/whoami").bearer_auth(&never.token).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn the_eleventh_try_in_a_minute_waits_even_with_the_right_password() {
    let server = TestServer::sqlite().await;
    assert_eq!(server.register("ada").await.status(), 201);
    for _ in 0..10 {
        assert_eq!(server.login("ada", "wrong").await.status(), 401);
    }
    server.app.clock.advance(Duration::from_millis(20_500));
    let limited = server.login("ada", "correct horse").await;
    assert_eq!((limited.status().as_u16(), limited.headers()["retry-after"].to_str().unwrap()), (429, "40"));
    assert_eq!(read(limited).await.1["error"], "RATE_LIMITED");
    server.app.clock.advance(Duration::from_millis(39_500));
    assert_eq!(server.login("ada", "correct horse").await.status(), 200);
}

#[tokio::test]
async fn a_user_has_so_many_requests_a_minute_and_others_have_theirs() {
    let database = TestDatabase::sqlite().await;
    let mut config = required(&database);
    config.http.requests_per_minute = 3;
    let server = TestServer::start(database, config).await;
    let (ada, bob) = (server.signed_in("ada").await, server.signed_in("bob").await);
    let status = async |token: &str| server.get("/probe/whoami").bearer_auth(token).send().await.unwrap().status().as_u16();
    for expected in [200, 200, 200, 429] {
        assert_eq!(status(&ada).await, expected);
    }
    assert_eq!(status(&bob).await, 200);
}

#[tokio::test]
async fn an_open_start_takes_everybody_for_local_but_no_bad_token() {
    let database = TestDatabase::sqlite().await;
    let config = database.config();
    assert_eq!(config.auth.mode, AuthMode::Open);
    let server = TestServer::start(database, config).await;
    let whoami = || server.get("/probe/whoami");
    assert_eq!(whoami().send().await.unwrap().text().await.unwrap(), "local");
    assert_eq!(whoami().bearer_auth("nonsense").send().await.unwrap().status(), 401);
    assert_eq!(whoami().basic_auth("a", Some("b")).send().await.unwrap().status(), 401);
    let token = server.signed_in("ada").await;
    assert_ne!(whoami().bearer_auth(&token).send().await.unwrap().text().await.unwrap(), "local");
    let (status, me) = read(server.get("/api/v1/auth/me").send().await.unwrap()).await;
    assert_eq!((status, &me["nickname"]), (200, &"local".into()));
}

#[tokio::test]
async fn a_stream_token_opens_the_stream_of_its_thread_and_nothing_else() {
    let server = TestServer::sqlite().await;
    let user = new_id();
    let owner = Caller::user(user, Role::User);
    let stream = server.app.tokens.issue_stream(&owner, "t1", &server.app.clock).unwrap().token;
    let read_with = |thread: &str, query: &str| server.get(&format!("/probe/read?thread={thread}{query}")).send();
    let with = format!("&access_token={stream}");
    let opened = read_with("t1", &with).await.unwrap();
    assert_eq!((opened.status().as_u16(), opened.text().await.unwrap()), (200, user.to_string()));
    assert_eq!(read_with("t2", &with).await.unwrap().status(), 403);
    assert_eq!(read_with("t1", "").await.unwrap().status(), 401);
    for path in ["/probe/whoami", "/api/v1/auth/me"] {
        assert_eq!(server.get(&format!("{path}?access_token={stream}")).send().await.unwrap().status(), 401);
        assert_eq!(server.get(path).bearer_auth(&stream).send().await.unwrap().status(), 401);
    }
    let token = server.signed_in("ada").await;
    assert_eq!(read_with("t1", &format!("&access_token={token}")).await.unwrap().status(), 401, "a user's token in a URL");
    let lifetime = server.app.config.auth.stream_token_lifetime;
    server.app.clock.advance(lifetime);
    assert_eq!(read_with("t1", &with).await.unwrap().status(), 401);
    assert_eq!(server.app.config.auth.jwt_secret.expose(), SECRET);
}
