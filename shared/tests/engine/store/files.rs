use runmill_shared::store::{
    attachments::{self, Attachment, AttachmentState},
    files, threads,
};

use super::{super::*, NASTY};

async fn thread(w: &World, name: &str) -> Uuid {
    let mut tx = w.tx().await;
    let id = threads::ensure(&mut tx, new_id(), &owner(), name, true, START).await.unwrap();
    tx.commit().await.unwrap();
    id
}

/// A row that says that it is there.
async fn stored(w: &World, thread_id: Uuid, name: &str, size: i64, at: Timestamp) -> Attachment {
    let (id, bucket, mime_type) = (new_id(), "b".to_owned(), "text/plain".to_owned());
    let new = Attachment { id, bucket, path: id.to_string(), name: name.to_owned(), mime_type, size };
    let mut tx = w.tx().await;
    assert!(files::insert(&mut tx, &owner(), thread_id, &new, at).await.unwrap());
    assert!(!files::insert(&mut tx, &owner(), thread_id, &new, at).await.unwrap(), "{}: twice", w.name);
    assert!(files::settle(&mut tx, new.id, "abc").await.unwrap());
    assert!(!files::settle(&mut tx, new.id, "abc").await.unwrap(), "{}: settled twice", w.name);
    tx.commit().await.unwrap();
    new
}

#[tokio::test]
async fn the_newest_of_a_name_counts() {
    for w in worlds().await {
        let (db, owner) = (&w.app.db, owner());
        let (here, there) = (thread(&w, "here").await, thread(&w, "there").await);
        let newest = stored(&w, here, NASTY, 2, START.after(MINUTE)).await;
        stored(&w, here, NASTY, 1, START).await;
        stored(&w, here, "a", 3, START).await;
        stored(&w, there, "b", 4, START).await;
        let all = files::list(db, &owner, here, 10).await.unwrap();
        let mut sizes: Vec<_> = all.iter().map(|f| f.size).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [2, 3], "{}", w.name);
        assert_eq!(files::list(db, &owner, here, 1).await.unwrap().len(), 1);
        assert_eq!(files::named(db, &owner, here, NASTY).await.unwrap().map(|f| f.id), Some(newest.id));
        assert!(files::named(db, &owner, here, "b").await.unwrap().is_none());
        let other = Owner::of_row("other");
        assert!(files::list(db, &other, here, 10).await.unwrap().is_empty());
        assert!(files::named(db, &other, here, "a").await.unwrap().is_none());
        assert!(!files::was_stored(db, &other, newest.id).await.unwrap());
    }
}

#[tokio::test]
async fn what_is_discarded_is_gone_for_all_but_the_sweeper() {
    for w in worlds().await {
        let (db, owner) = (&w.app.db, owner());
        let here = thread(&w, "here").await;
        let (old, new) = (stored(&w, here, "a", 5, START).await, stored(&w, here, "a", 7, START).await);
        stored(&w, here, "b", 11, START).await;
        let mut tx = w.tx().await;
        let usage = files::others(&mut tx, &owner, here, "a").await.unwrap();
        assert_eq!((usage.files, usage.bytes), (1, 11), "{}", w.name);
        let usage = files::others(&mut tx, &owner, here, "c").await.unwrap();
        assert_eq!((usage.files, usage.bytes), (3, 23));
        assert!(files::discard(&mut tx, &Owner::of_row("other"), here, "a", new.id).await.unwrap().is_empty());
        let gone = files::discard(&mut tx, &owner, here, "a", new.id).await.unwrap();
        assert_eq!(gone.iter().map(|f| f.id).collect::<Vec<_>>(), [old.id]);
        tx.commit().await.unwrap();
        assert!(attachments::owned(db, &owner, "b", &old.path).await.unwrap().is_none(), "{}", w.name);
        assert!(attachments::by_path(db, "b", &old.path).await.unwrap().is_none());
        assert!(attachments::owned_among(db, &owner, &[("b", &old.path)]).await.unwrap().is_empty());
        assert!(attachments::owned(db, &owner, "b", &new.path).await.unwrap().is_some());
        assert!(files::was_stored(db, &owner, old.id).await.unwrap(), "it has been");
        let swept = attachments::unsettled(db, Timestamp(0), Timestamp(0), 10).await.unwrap();
        assert_eq!(swept.iter().map(|f| f.id).collect::<Vec<_>>(), [old.id], "at once");
        assert!(!attachments::settle(db, old.id, AttachmentState::Stored, 5, "").await.unwrap(), "it does not come back");
    }
}
