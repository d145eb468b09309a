use runmill_shared::store::outbox::{self, Notice, NoticeKind};

use super::{super::*, NASTY};

#[tokio::test]
async fn a_notice_is_taken_once_and_read_in_order() {
    for w in worlds().await {
        let (a, b) = (new_id(), new_id());
        let mut tx = w.tx().await;
        let first = Notice::new(a, NoticeKind::Wake, NASTY);
        outbox::send(&mut tx, &[first.clone(), Notice::new(b, NoticeKind::Cancel, "b")], START).await.unwrap();
        tx.commit().await.unwrap();
        let pending = outbox::pending(&w.app.db, 10).await.unwrap();
        let seen: Vec<_> = pending.iter().map(|n| (n.run_id, n.kind, n.reason.as_str())).collect();
        assert_eq!(seen, [(a, NoticeKind::Wake, NASTY), (b, NoticeKind::Cancel, "b")], "{}", w.name);
        assert_eq!(outbox::pending(&w.app.db, 1).await.unwrap().len(), 1);
        let mut tx = w.tx().await;
        assert!(outbox::take(&mut tx, first.id).await.unwrap());
        drop(tx);
        // The pool rolls back in the background, and what is locked is passed over: until then it looks as if it were gone.
        let taken = async {
            loop {
                let mut tx = w.tx().await;
                if outbox::take(&mut tx, first.id).await.unwrap() {
                    return tx.commit().await.unwrap();
                }
            }
        };
        tokio::time::timeout(LIMIT, taken).await.expect("what was rolled back is there again");
        let mut tx = w.tx().await;
        assert!(!outbox::take(&mut tx, first.id).await.unwrap());
    }
}

#[tokio::test]
async fn only_children_that_have_not_ended_are_told() {
    for w in worlds().await {
        let parent = w.started("t", "parent").await;
        for child in ["a", "b", "c"] {
            w.accept(child, child).await;
        }
        w.execute(
            "UPDATE runs SET parent_run_id = (SELECT id FROM runs WHERE external_id = 'parent') WHERE external_id <> 'parent'",
        )
        .await;
        w.execute("UPDATE runs SET state = 'failed' WHERE external_id = 'b'").await;
        let mut tx = w.tx().await;
        let told = outbox::children(&mut tx, &[new_id(), parent.id]).await.unwrap();
        assert_eq!(told.len(), 2, "{}", w.name);
        assert!(outbox::children(&mut tx, &told).await.unwrap().is_empty());
    }
}
