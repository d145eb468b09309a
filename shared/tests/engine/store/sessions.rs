use runmill_shared::store::sessions;

use super::super::*;

#[tokio::test]
async fn a_session_is_live_until_it_expires_and_goes_when_nothing_names_it() {
    for w in worlds().await {
        let (mine, other, db) = (new_id(), new_id(), &w.app.db);
        for id in [mine, other] {
            sessions::open(db, id, "worker", START, START.after(MINUTE)).await.unwrap();
        }
        assert!(sessions::open(db, mine, "worker", START, START).await.is_err());
        assert_eq!(sessions::live(db, START).await.unwrap(), 2, "{}", w.name);
        assert!(sessions::expired(db, START.after(MINUTE), mine).await.unwrap().is_empty(), "good up to its last moment");
        let later = START.after(MINUTE * 2);
        assert_eq!(sessions::expired(db, later, mine).await.unwrap(), [other]);
        assert_eq!(sessions::live(db, later).await.unwrap(), 0);
        let id = w.accept("t", "a").await.id;
        let run = execution::claim(&w.app, id, other).await.unwrap().unwrap();
        assert!(!sessions::close(db, other, later).await.unwrap(), "a run names it");
        w.finish(&run).await;
        assert!(!sessions::close(db, other, START).await.unwrap(), "it was renewed meanwhile");
        assert!(sessions::close(db, other, later).await.unwrap());
        assert!(!sessions::close(db, other, later).await.unwrap());
        sessions::expire(db, mine).await.unwrap();
        assert_eq!(sessions::expired(db, START, new_id()).await.unwrap(), [mine]);
    }
}

#[tokio::test]
async fn a_start_that_is_alone_ends_all_other_sessions() {
    for w in worlds().await {
        let (mine, db) = (new_id(), &w.app.db);
        for id in [mine, new_id(), new_id()] {
            sessions::open(db, id, "worker", START, START.after(MINUTE)).await.unwrap();
        }
        sessions::expire_others(db, mine).await.unwrap();
        assert_eq!(sessions::expired(db, START, mine).await.unwrap().len(), 2, "{}", w.name);
        assert_eq!(sessions::live(db, START).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_run_whose_session_is_gone_is_found_by_the_run() {
    for w in worlds().await {
        let (gone, mine) = (new_id(), new_id());
        for n in ["a", "b"] {
            let id = w.accept(n, n).await.id;
            execution::claim(&w.app, id, gone).await.unwrap().unwrap();
        }
        assert_eq!(sessions::expired(&w.app.db, START, mine).await.unwrap(), [gone], "{}", w.name);
        assert!(sessions::expired(&w.app.db, START, gone).await.unwrap().is_empty(), "never oneself");
    }
}

#[tokio::test]
async fn a_lease_is_renewed_by_the_databases_clock_and_only_while_it_is_good() {
    for w in worlds().await.into_iter().filter(|w| w.app.db.is_postgres()) {
        let now = w.app.db.now().await.unwrap().unwrap();
        let (live, dead) = (new_id(), new_id());
        sessions::open(&w.app.db, live, "w", now, now.after(MINUTE)).await.unwrap();
        sessions::open(&w.app.db, dead, "w", now, now.before(MINUTE)).await.unwrap();
        let mut connection = runmill_shared::store::db::Db::dedicated_postgres(&w.app.config).await.unwrap();
        let mut renew = async |id: Uuid| -> Option<i64> {
            let statement = sqlx::query_scalar(sessions::RENEW).bind(id).bind(120_000_000_i64);
            statement.fetch_optional(&mut connection).await.unwrap()
        };
        assert!(renew(live).await.is_some_and(|at| at >= now.0));
        assert_eq!(renew(dead).await, None);
        assert_eq!(sessions::live(&w.app.db, now.after(MINUTE)).await.unwrap(), 1);
    }
}
