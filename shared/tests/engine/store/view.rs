use runmill_shared::store::runs::view::{self, Filter};

use super::{super::*, NASTY};

#[tokio::test]
async fn runs_are_listed_newest_first_by_thread_state_and_place() {
    for w in worlds().await {
        let mut ids = Vec::new();
        for n in 0..6 {
            ids.push(w.accept(&format!("t{}", n % 2), &format!("r{n}")).await.id);
        }
        let run = w.claim(ids[0]).await;
        w.finish(&run).await;
        let list = async |filter: Filter| -> Vec<Uuid> {
            view::list(&w.app.db, &owner(), filter).await.unwrap().into_iter().map(|r| r.id).collect()
        };
        let all = Filter { limit: 10, ..Filter::default() };
        let newest: Vec<_> = ids.iter().rev().copied().collect();
        assert_eq!(list(all.clone()).await, newest, "{}", w.name);
        assert_eq!(list(Filter { limit: 2, before: Some(ids[3]), ..all.clone() }).await, [ids[2], ids[1]]);
        assert_eq!(list(Filter { thread: Some("t0".into()), ..all.clone() }).await, [ids[4], ids[2], ids[0]]);
        assert_eq!(list(Filter { state: Some(RunState::Succeeded), ..all.clone() }).await, [ids[0]]);
        assert!(list(Filter { thread: Some(NASTY.into()), ..all.clone() }).await.is_empty());
        assert!(view::list(&w.app.db, &Owner::of_row("other"), all).await.unwrap().is_empty());
        assert!(view::by_id(&w.app.db, &Owner::of_row("other"), ids[0]).await.unwrap().is_none());
        assert_eq!(view::any_by_id(&w.app.db, ids[0]).await.unwrap().unwrap().state, RunState::Succeeded);
    }
}

#[tokio::test]
async fn an_earlier_request_is_found_by_its_name_or_its_key() {
    for w in worlds().await {
        let id = w.accept("t", NASTY).await.id;
        let found = view::by_external_id(&w.app.db, &owner(), NASTY).await.unwrap().unwrap();
        assert_eq!((found.id, found.thread.as_str(), found.created_at), (id, "t", START), "{}", w.name);
        assert!(view::by_external_id(&w.app.db, &Owner::of_row("other"), NASTY).await.unwrap().is_none());
        let mut tx = w.tx().await;
        assert!(view::keep_key(&mut tx, &owner(), NASTY, "h", id, START, START.before(MINUTE)).await.unwrap());
        assert!(!view::keep_key(&mut tx, &owner(), NASTY, "i", id, START, START.before(MINUTE)).await.unwrap(), "it is taken");
        tx.commit().await.unwrap();
        let owned = owner();
        let before = START.before(MINUTE);
        assert_eq!(view::by_key(&w.app.db, &owned, NASTY, before).await.unwrap().unwrap().input_hash, "h");
        assert!(view::by_key(&w.app.db, &owned, NASTY, START).await.unwrap().is_none(), "it is too old");
        let mut tx = w.tx().await;
        let later = START.after(MINUTE);
        assert!(view::keep_key(&mut tx, &owned, NASTY, "i", id, later, START).await.unwrap(), "an old one is replaced");
        let input = view::input(&mut tx, &owned, id).await.unwrap().unwrap();
        assert_eq!((input.input.as_str(), input.input_hash), ("{}", format!("hash of {NASTY}")));
    }
}

#[tokio::test]
async fn the_outcomes_of_a_thousand_runs_come_in_one_statement() {
    for w in worlds().await {
        let done = w.started("t", "a").await;
        w.finish(&done).await;
        let queued = w.accept("t", "b").await.id;
        let mut ids: Vec<_> = (0..1000).map(|_| new_id()).collect();
        ids.extend([done.id, queued]);
        let mut found = view::outcomes(&w.app.db, &ids).await.unwrap();
        found.sort_by_key(|o| o.id);
        let states: Vec<_> = found.iter().map(|o| (o.id, o.state, o.result.clone())).collect();
        let expected = [(done.id, RunState::Succeeded, Some(json!("done"))), (queued, RunState::Queued, None)];
        assert_eq!(states, expected, "{}", w.name);
    }
}
