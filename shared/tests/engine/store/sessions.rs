use runmill_shared::store::{db::Dedicated, sessions};

use super::super::*;

async fn held_by(w: &World, session: Uuid, name: &str) -> Claimed {
    let id = w.accept(name, name).await.id;
    w.try_claim(id, session).await.unwrap()
}

#[tokio::test]
async fn a_session_is_live_until_it_expires_and_goes_when_nothing_names_it() {
    for w in worlds().await {
        let (mine, other, db) = (new_id(), new_id(), &w.app.db);
        for id in [mine, other] {
            sessions::open(db, id, "worker", START, START.after(MINUTE)).await.unwrap();
        }
        assert!(sessions::open(db, mine, "worker", START, START).await.is_err());
        assert_eq!(w.live_sessions(START).await, 2, "{}", w.name);
        let run = held_by(&w, other, "a").await;
        let own = held_by(&w, mine, "b").await;
        assert!(sessions::dead_owners(db, START.after(MINUTE), mine).await.unwrap().is_empty(), "good up to its last moment");
        let later = START.after(MINUTE * 2);
        assert_eq!(sessions::dead_owners(db, later, mine).await.unwrap(), [other]);
        assert_eq!(w.live_sessions(later).await, 0);
        assert!(sessions::close(db, later, new_id()).await.unwrap().is_empty(), "runs name them");
        for run in [&run, &own] {
            w.finish(run).await;
        }
        assert!(sessions::dead_owners(db, later, new_id()).await.unwrap().is_empty(), "no run names them");
        assert!(sessions::close(db, START, mine).await.unwrap().is_empty(), "it was renewed meanwhile");
        assert_eq!(sessions::close(db, later, mine).await.unwrap(), [other], "one's own is for others to close");
        assert!(sessions::close(db, later, mine).await.unwrap().is_empty());
        let last = held_by(&w, mine, "c").await;
        sessions::expire(db, mine).await.unwrap();
        assert_eq!(sessions::dead_owners(db, START, new_id()).await.unwrap(), [mine]);
        w.finish(&last).await;
        assert_eq!(sessions::close(db, START, new_id()).await.unwrap(), [mine]);
    }
}

#[tokio::test]
async fn a_start_that_is_alone_ends_all_other_sessions() {
    for w in worlds().await {
        let (mine, db) = (new_id(), &w.app.db);
        for id in [mine, new_id(), new_id()] {
            sessions::open(db, id, "worker", START, START.after(MINUTE)).await.unwrap();
            held_by(&w, id, &id.to_string()).await;
        }
        sessions::expire_others(db, mine).await.unwrap();
        assert_eq!(sessions::dead_owners(db, START, new_id()).await.unwrap().len(), 2, "{}", w.name);
        assert_eq!(w.live_sessions(START).await, 1);
    }
}

#[tokio::test]
async fn a_run_whose_session_is_gone_is_found_by_the_run() {
    for w in worlds().await {
        let (gone, mine) = (w.session().await, new_id());
        for n in ["a", "b"] {
            held_by(&w, gone, n).await;
        }
        w.execute("DELETE FROM worker_sessions").await;
        assert_eq!(sessions::dead_owners(&w.app.db, START, mine).await.unwrap(), [gone], "{}", w.name);
        assert!(sessions::dead_owners(&w.app.db, START, gone).await.unwrap().is_empty(), "never oneself");
    }
}

#[tokio::test]
async fn a_lease_is_renewed_by_the_databases_clock_and_only_while_it_is_good() {
    for w in worlds().await.into_iter().filter(|w| w.app.db.is_postgres()) {
        let now = w.app.db.now().await.unwrap().unwrap();
        let (live, dead) = (new_id(), new_id());
        sessions::open(&w.app.db, live, "w", now, now.after(MINUTE)).await.unwrap();
        sessions::open(&w.app.db, dead, "w", now, now.before(MINUTE)).await.unwrap();
        let mut connection = Dedicated::open(&w.app.config).await.unwrap();
        let mut renew = async |id: Uuid| sessions::renew(&mut connection, id, MINUTE * 2).await.unwrap();
        assert!(renew(live).await.is_some_and(|at| at >= now));
        assert_eq!(renew(dead).await, None);
        assert_eq!(w.live_sessions(now.after(MINUTE)).await, 1);
    }
}
