//! Accounts on both databases.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]
use std::time::Duration;

use futures::future::join_all;
use runmill_shared::{
    App, ErrorKind,
    clock::{Clock, Timestamp},
    domain::{
        caller::{Caller, Role, Scope},
        new_id,
    },
    services::accounts::{self, Registration},
    store::{
        accounts as store,
        db::{Sql, query},
    },
};
use runmill_testkit::database::{TestDatabase, databases};

const MINUTE: Duration = Duration::from_secs(60);

async fn app(database: &TestDatabase) -> App {
    let mut app = App::open(database.config()).await.unwrap();
    app.clock = Clock::manual(Timestamp(1_800_000_000_000_000));
    app
}

fn registration(name: &str) -> Registration {
    Registration { email: format!("{name}@Example.org"), password: "correct horse".into(), nickname: name.into() }
}

#[tokio::test]
async fn every_statement_can_be_prepared() {
    for database in databases().await {
        for sql in store::STATEMENTS {
            database.db().prepare(*sql).await.unwrap_or_else(|e| panic!("{} {e}: {sql:?}", database.name()));
        }
    }
}

#[tokio::test]
async fn of_registrations_at_once_exactly_one_is_the_admin_and_no_name_is_given_twice() {
    for database in databases().await {
        let app = app(&database).await;
        let all = join_all((0..12).map(|n| accounts::register(&app, registration(&format!("user{}", n / 2))))).await;
        let (ok, failed): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
        let admins = ok.iter().filter(|u| u.as_ref().unwrap().role == Role::Admin).count();
        assert_eq!((ok.len(), admins), (6, 1), "{}", database.name());
        for error in failed {
            assert_eq!(error.unwrap_err().code, "EMAIL_TAKEN", "{}", database.name());
        }
    }
}

#[tokio::test]
async fn what_is_taken_is_named_and_bad_fields_are_all_named() {
    for database in databases().await {
        let app = app(&database).await;
        let first = accounts::register(&app, registration("Ada")).await.unwrap();
        assert_eq!((first.email.as_str(), first.nickname.as_str(), first.role), ("ada@example.org", "Ada", Role::Admin));
        let same_email = Registration { nickname: "other".into(), email: "ADA@example.ORG".into(), ..registration("x") };
        assert_eq!(accounts::register(&app, same_email).await.unwrap_err().code, "EMAIL_TAKEN");
        let same_nickname = Registration { nickname: " aDA ".into(), ..registration("y") };
        assert_eq!(accounts::register(&app, same_nickname).await.unwrap_err().code, "NICKNAME_TAKEN");
        let bad = Registration { email: "no".into(), password: "short".into(), nickname: "a@b".into() };
        let bad = accounts::register(&app, bad).await.unwrap_err();
        assert_eq!(bad.kind, ErrorKind::Invalid);
        assert_eq!(bad.fields.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(), ["email", "password", "nickname"]);
        assert_eq!(accounts::register(&app, registration("Bob")).await.unwrap().role, Role::User);
    }
}

#[tokio::test]
async fn tries_are_counted_by_account_and_address() {
    for database in databases().await {
        let app = app(&database).await;
        accounts::register(&app, registration("ada")).await.unwrap();
        let (here, there) = (Some([127, 0, 0, 1].into()), Some([127, 0, 0, 2].into()));
        let login = |name: &'static str, password: &str, from| accounts::login(&app, name, password.to_owned(), from);
        for n in 0..10 {
            // The same account by either name.
            let name = if n % 2 == 0 { "ADA" } else { "ada@example.org" };
            assert_eq!(login(name, "wrong", here).await.unwrap_err().kind, ErrorKind::Unauthenticated);
        }
        let refused = login("ada", "correct horse", here).await.unwrap_err();
        assert_eq!((refused.kind, refused.retry_after), (ErrorKind::Limited, Some(MINUTE)), "{}", database.name());
        login("ada", "correct horse", there).await.unwrap();
        assert_eq!(login("nobody", "wrong", here).await.unwrap_err().message, "wrong username or password");
        app.clock.advance(MINUTE);
        login("ada", "correct horse", here).await.unwrap();
    }
}

#[tokio::test]
async fn a_keys_use_is_noted_at_most_once_a_minute() {
    for database in databases().await {
        let app = app(&database).await;
        let user = accounts::register(&app, registration("ada")).await.unwrap();
        let caller = Caller::user(user.id, user.role);
        let (secret, kept) = accounts::create_key(&app, &caller, " ci ").await.unwrap();
        assert_eq!((kept.name.as_str(), kept.last_used_at), ("ci", None));
        assert!(secret.starts_with("rm_") && secret.len() == 46, "{secret}");

        let first = app.clock.now();
        assert_eq!(used(&app, &caller, &secret, first).await, first);
        app.clock.advance(MINUTE - Duration::from_micros(1));
        assert_eq!(used(&app, &caller, &secret, first).await, first);
        app.clock.advance(Duration::from_micros(1));
        let second = app.clock.now();
        assert_eq!(used(&app, &caller, &secret, second).await, second);

        let stranger = Caller::user(new_id(), Role::Admin);
        assert_eq!(accounts::revoke_key(&app, &stranger, kept.id).await.unwrap_err().kind, ErrorKind::NotFound);
        accounts::revoke_key(&app, &caller, kept.id).await.unwrap();
        assert_eq!(accounts::revoke_key(&app, &caller, kept.id).await.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(accounts::caller_of_key(&app, &secret).await.unwrap_err().kind, ErrorKind::Unauthenticated);
        assert!(accounts::keys(&app, &caller).await.unwrap().is_empty());
    }
}

/// Uses the key, waits until its use is noted as `expected`, and answers what is noted.
async fn used(app: &App, owner: &Caller, secret: &str, expected: Timestamp) -> Timestamp {
    let caller = accounts::caller_of_key(app, secret).await.unwrap();
    assert_eq!(caller.can(Scope::Read).unwrap(), owner.can(Scope::Read).unwrap());
    let noted = async {
        loop {
            match accounts::keys(app, owner).await.unwrap()[0].last_used_at {
                Some(at) if at == expected => return at,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), noted).await.expect("the use was never noted")
}

#[tokio::test]
async fn the_keys_of_a_deleted_user_open_nothing() {
    const DELETE: Sql = Sql::both("DELETE FROM users WHERE id = $1");
    for database in databases().await {
        let app = app(&database).await;
        let user = accounts::register(&app, registration("ada")).await.unwrap();
        let caller = Caller::user(user.id, user.role);
        let (secret, _) = accounts::create_key(&app, &caller, "ci").await.unwrap();
        let mut tx = app.db.begin().await.unwrap();
        assert_eq!(query(DELETE).bind(user.id).execute(&mut tx).await.unwrap(), 1);
        tx.commit().await.unwrap();
        assert_eq!(accounts::caller_of_key(&app, &secret).await.unwrap_err().kind, ErrorKind::Unauthenticated);
        assert_eq!(accounts::me(&app, &caller).await.unwrap_err().kind, ErrorKind::Unauthenticated);
        assert_eq!(accounts::create_key(&app, &caller, "ci").await.unwrap_err().kind, ErrorKind::Unauthenticated);
    }
}

#[tokio::test]
async fn the_local_user_has_a_profile_and_no_keys() {
    let database = TestDatabase::sqlite().await;
    let app = app(&database).await;
    let local = Caller::local();
    assert_eq!(accounts::me(&app, &local).await.unwrap().nickname, "local");
    assert_eq!(accounts::create_key(&app, &local, "ci").await.unwrap_err().code, "NO_ACCOUNT");
}
