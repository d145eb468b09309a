use runmill_shared::store::{
    events::{self, Append},
    threads::{self, Advance},
};

use super::{super::*, NASTY};

fn rows(thread_id: Uuid, run_id: Uuid, seqs: std::ops::RangeInclusive<i64>, at: i64) -> Vec<Append<'static>> {
    let data = serde_json::to_string(&json!({ "delta": NASTY, "nul": "\0" })).unwrap();
    let row = |seq| Append { thread_id, seq, run_id, fence: 1, kind: "text.delta", data: data.clone(), created_at: at + seq };
    seqs.map(row).collect()
}

#[tokio::test]
async fn a_thousand_rows_go_in_as_one_statement_and_come_back_in_pages() {
    for w in worlds().await {
        let id = w.accept("t", "a").await.id;
        let thread = w.thread_of(id).await;
        let mut tx = w.tx().await;
        threads::advance(&mut tx, thread, Advance { events: 1000, ..Advance::default() }).await.unwrap();
        let mut shuffled = rows(thread, id, 2..=1001, START.0);
        shuffled.reverse();
        events::append(&mut tx, &shuffled).await.unwrap();
        events::append(&mut tx, &[]).await.unwrap();
        tx.commit().await.unwrap();
        let page = events::page(&w.app.db, thread, 400, 300).await.unwrap();
        assert_eq!(page.iter().map(|e| e.seq).collect::<Vec<_>>(), (401..=700).collect::<Vec<_>>(), "{}", w.name);
        let (event, expected) = (&page[0], json!({ "delta": NASTY, "nul": "\0" }));
        assert_eq!((&event.data, event.run.as_str(), event.run_id, event.at.0), (&expected, "a", id, START.0 + 401));
        assert!(events::page(&w.app.db, thread, 1001, 10).await.unwrap().is_empty());
        let mut tx = w.tx().await;
        assert!(events::append(&mut tx, &rows(thread, id, 5..=5, 0)).await.is_err(), "a number is given once");
        drop(tx);
        w.check().await;
    }
}

#[tokio::test]
async fn a_log_knows_its_extent_and_where_a_reader_begins() {
    for w in worlds().await {
        let a = w.started("t", "a").await;
        let b = w.accept("t", "b").await.id;
        let other = w.thread_of(w.accept("u", "c").await.id).await;
        let extent = events::extent(&w.app.db, a.thread_id).await.unwrap();
        assert_eq!((extent.first_seq, extent.last_seq, extent.active), (1, 2, true), "{}", w.name);
        assert_eq!(events::natural_start(&w.app.db, a.thread_id).await.unwrap(), 1);
        w.finish(&a).await;
        assert_eq!(events::natural_start(&w.app.db, a.thread_id).await.unwrap(), 2, "the first event of the oldest live run");
        let b = w.claim(b).await;
        w.finish(&b).await;
        assert!(!events::extent(&w.app.db, a.thread_id).await.unwrap().active);
        assert_eq!(events::natural_start(&w.app.db, a.thread_id).await.unwrap(), 2, "else of the latest");
        let mut last = events::last_seqs(&w.app.db, &[a.thread_id, other, new_id()]).await.unwrap();
        last.sort_by_key(|l| l.last_seq);
        assert_eq!(last.iter().map(|l| (l.thread_id, l.last_seq)).collect::<Vec<_>>(), [(other, 1), (a.thread_id, 4)]);
        assert!(events::extent(&w.app.db, new_id()).await.is_err());
    }
}

#[tokio::test]
async fn retention_takes_the_oldest_in_batches_and_says_where_the_log_begins() {
    for w in worlds().await {
        let id = w.accept("t", "a").await.id;
        let thread = w.thread_of(id).await;
        let mut tx = w.tx().await;
        threads::advance(&mut tx, thread, Advance { events: 100, ..Advance::default() }).await.unwrap();
        events::append(&mut tx, &rows(thread, id, 2..=101, START.0)).await.unwrap();
        tx.commit().await.unwrap();
        let forget = |before: i64| events::forget(&w.app.db, Timestamp(START.0 + before), 30);
        assert_eq!(forget(0).await.unwrap(), 0, "{}", w.name);
        assert_eq!(forget(61).await.unwrap(), 1);
        assert_eq!(events::extent(&w.app.db, thread).await.unwrap().first_seq, 31, "a batch at a time");
        while forget(61).await.unwrap() > 0 {}
        let extent = events::extent(&w.app.db, thread).await.unwrap();
        assert_eq!((extent.first_seq, extent.last_seq), (61, 101));
        assert_eq!(w.log(thread).await.first().unwrap().seq, 61);
        w.check().await;
    }
}
