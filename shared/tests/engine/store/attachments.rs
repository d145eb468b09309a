use runmill_shared::store::{
    attachments::{self, Attachment, AttachmentState},
    threads,
};

use super::{super::*, NASTY};

async fn insert(w: &World, path: &str, at: Timestamp) -> Attachment {
    let (id, bucket, mime_type) = (new_id(), "b".to_owned(), "text/plain".to_owned());
    let new = Attachment { id, bucket, path: path.to_owned(), name: NASTY.to_owned(), mime_type, size: 0 };
    let mut tx = w.tx().await;
    let thread = threads::ensure(&mut tx, new_id(), &owner(), "t", true, at).await.unwrap();
    attachments::insert(&mut tx, &owner(), thread, &new, at).await.unwrap();
    tx.commit().await.unwrap();
    new
}

#[tokio::test]
async fn a_row_is_seen_once_its_object_is_there_and_by_its_owner() {
    for w in worlds().await {
        let db = &w.app.db;
        let new = insert(&w, NASTY, START).await;
        assert!(attachments::owned(db, &owner(), "b", NASTY).await.unwrap().is_none(), "{}", w.name);
        assert!(attachments::by_path(db, "b", NASTY).await.unwrap().is_none());
        assert!(attachments::settle(db, new.id, AttachmentState::Stored, 5, "abc").await.unwrap());
        assert!(!attachments::settle(db, new.id, AttachmentState::Stored, 6, "abc").await.unwrap(), "once");
        let found = attachments::owned(db, &owner(), "b", NASTY).await.unwrap().unwrap();
        assert_eq!((found.id, found.size, found.name.as_str()), (new.id, 5, NASTY));
        assert!(attachments::by_path(db, "b", NASTY).await.unwrap().is_some());
        assert!(attachments::owned(db, &Owner::of_row("other"), "b", NASTY).await.unwrap().is_none());
        attachments::delete(db, new.id).await.unwrap();
        assert!(attachments::by_path(db, "b", NASTY).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn the_sweeper_sees_what_is_unsettled_for_too_long_and_what_is_known() {
    for w in worlds().await {
        let db = &w.app.db;
        let pending = insert(&w, "pending", START).await;
        let temporary = insert(&w, "temporary", START.after(MINUTE)).await;
        let stored = insert(&w, "stored", START).await;
        attachments::settle(db, temporary.id, AttachmentState::Temporary, 1, "").await.unwrap();
        attachments::settle(db, stored.id, AttachmentState::Stored, 1, "").await.unwrap();
        let unsettled = async |pending_before, temporary_before, batch| -> Vec<String> {
            let rows = attachments::unsettled(db, pending_before, temporary_before, batch).await.unwrap();
            rows.into_iter().map(|a| a.path).collect()
        };
        let late = START.after(MINUTE * 5);
        assert_eq!(unsettled(late, late, 10).await, ["pending", "temporary"], "{}", w.name);
        assert_eq!(unsettled(late, late, 1).await, ["pending"]);
        assert_eq!(unsettled(late, START, 10).await, ["pending"], "what is worked on stays");
        assert_eq!(unsettled(START, late, 10).await, ["temporary"], "what is still uploaded stays");
        attachments::give_up(db, stored.id).await.unwrap();
        assert_eq!(unsettled(START, START, 10).await, ["stored"], "what is no longer needed goes at once");
        let mut paths: Vec<_> = (0..1000).map(|n| format!("{NASTY}{n}")).collect();
        paths.extend(["stored".to_owned(), pending.path]);
        let mut known = attachments::known(db, "b", &paths).await.unwrap();
        known.sort();
        assert_eq!(known, ["pending", "stored"]);
        assert!(attachments::known(db, "another", &paths).await.unwrap().is_empty());
    }
}
