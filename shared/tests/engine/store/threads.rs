use runmill_shared::store::threads::{self, Advance, Head};

use super::{super::*, NASTY};

#[tokio::test]
async fn a_thread_is_made_once_and_found_by_its_owner_only() {
    for w in worlds().await {
        let mut tx = w.tx().await;
        let first = threads::ensure(&mut tx, new_id(), &owner(), NASTY, true, START).await.unwrap();
        let again = threads::ensure(&mut tx, new_id(), &owner(), NASTY, true, START).await.unwrap();
        let hidden = threads::ensure(&mut tx, new_id(), &owner(), "hidden", false, START.after(MINUTE)).await.unwrap();
        let others = threads::ensure(&mut tx, new_id(), &Owner::of_row("other"), NASTY, true, START).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(first, again, "{}", w.name);
        assert!(hidden != first && others != first);
        let found = threads::by_name(&w.app.db, &owner(), NASTY).await.unwrap().unwrap();
        assert_eq!((found.id, found.external_id.as_str()), (first, NASTY));
        assert!(threads::by_name(&w.app.db, &Owner::of_row("nobody"), NASTY).await.unwrap().is_none());
        assert_eq!(
            threads::latest(&w.app.db, &owner()).await.unwrap().unwrap().id,
            first,
            "an unlisted thread is nobody's latest"
        );
        assert!(threads::latest(&w.app.db, &Owner::of_row("nobody")).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn numbers_are_taken_once_and_the_first_candidate_is_the_head() {
    for w in worlds().await {
        let (a, b) = (new_id(), new_id());
        let mut tx = w.tx().await;
        let id = threads::ensure(&mut tx, new_id(), &owner(), "t", true, START).await.unwrap();
        let take = Advance { events: 2, messages: 3, orders: 1, candidate: None };
        let head = threads::advance(&mut tx, id, take).await.unwrap();
        assert_eq!(head, Head { last_seq: 2, first_seq: 1, last_message_seq: 3, last_order: 1, run_id: None }, "{}", w.name);
        assert_eq!(threads::advance(&mut tx, id, Advance { candidate: Some(a), ..take }).await.unwrap().run_id, Some(a));
        let head = threads::advance(&mut tx, id, Advance { candidate: Some(b), ..take }).await.unwrap();
        assert_eq!(head, Head { last_seq: 6, first_seq: 1, last_message_seq: 9, last_order: 3, run_id: Some(a) });
        tx.commit().await.unwrap();
        assert_eq!(threads::head(&w.app.db, id).await.unwrap(), Some(head));
        assert_eq!(threads::head(&w.app.db, new_id()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_thread_is_handed_on_in_order_and_only_by_its_head() {
    for w in worlds().await {
        let (a, b, c) = (w.accept("t", "a").await.id, w.accept("t", "b").await.id, w.accept("t", "c").await.id);
        let thread = w.thread_of(a).await;
        let mut tx = w.tx().await;
        assert!(threads::hand_on(&mut tx, &[(thread, b)]).await.unwrap().is_empty(), "{}: b is not the head", w.name);
        // Only what is queued and has a place is handed the thread.
        query(sql("UPDATE runs SET state = 'failed' WHERE external_id IN ('a', 'b')".into())).execute(&mut tx).await.unwrap();
        assert_eq!(threads::hand_on(&mut tx, &[(thread, a)]).await.unwrap(), [c]);
        query(sql("UPDATE runs SET state = 'failed'".into())).execute(&mut tx).await.unwrap();
        assert!(threads::hand_on(&mut tx, &[(thread, c)]).await.unwrap().is_empty());
        tx.commit().await.unwrap();
        assert_eq!(threads::head(&w.app.db, thread).await.unwrap().unwrap().run_id, None);
    }
}

#[tokio::test]
async fn many_threads_give_numbers_at_once_and_each_its_own() {
    for w in worlds().await {
        let mut take = Vec::new();
        for n in 0..20 {
            let thread = w.thread_of(w.accept(&format!("t{n}"), &format!("r{n}")).await.id).await;
            take.push((thread, Advance { events: n, messages: 20 - n, ..Advance::default() }));
        }
        let unknown = new_id();
        take.push((unknown, Advance { events: 1, ..Advance::default() }));
        let mut tx = w.tx().await;
        let heads = threads::advance_many(&mut tx, &take).await.unwrap();
        assert!(threads::advance_many(&mut tx, &[]).await.unwrap().is_empty());
        tx.commit().await.unwrap();
        assert_eq!(heads.len(), 20, "{}", w.name);
        for (thread, taken) in &take[..20] {
            let head = heads[thread];
            // Each has its run's first event and first message.
            assert_eq!((head.last_seq, head.last_message_seq, head.last_order), (1 + taken.events, 1 + taken.messages, 1));
            assert_eq!(threads::head(&w.app.db, *thread).await.unwrap(), Some(head));
        }
        assert_eq!(threads::head(&w.app.db, unknown).await.unwrap(), None, "it makes no head");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_take_from_the_same_threads_in_other_orders_wait_for_each_other() {
    for w in worlds().await {
        let mut take = Vec::new();
        for n in 0..10 {
            let thread = w.thread_of(w.accept(&format!("t{n}"), &format!("r{n}")).await.id).await;
            take.push((thread, Advance { events: 1, ..Advance::default() }));
        }
        let all = (0..12).map(|n| {
            let (w, mut take) = (&w, take.clone());
            take.rotate_left(n % 10);
            if n % 2 == 0 {
                take.reverse();
            }
            async move {
                let mut tx = w.tx().await;
                let heads = threads::advance_many(&mut tx, &take).await.unwrap();
                tx.commit().await.unwrap();
                heads.into_iter().map(|(thread, head)| (thread, head.last_seq)).collect::<Vec<_>>()
            }
        });
        let taken = tokio::time::timeout(LIMIT, futures::future::join_all(all)).await.expect("no deadlock");
        let mut taken: Vec<_> = taken.into_iter().flatten().collect();
        taken.sort_unstable();
        let mut expected: Vec<_> = take.iter().flat_map(|(thread, _)| (2..=13).map(|seq| (*thread, seq))).collect();
        expected.sort_unstable();
        assert_eq!(taken, expected, "{}: a number was given twice or not at all", w.name);
    }
}
