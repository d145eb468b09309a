use runmill_shared::{
    domain::message::{MessagePart, PartKind, Source},
    store::{
        messages::{self, Added},
        threads::{self, Advance},
    },
};

use super::{super::*, NASTY};

async fn store(w: &World, run: &Claimed, new: &[NewMessage], at: Timestamp) {
    let mut tx = w.tx().await;
    let take = Advance { messages: i64::try_from(new.len()).unwrap(), ..Advance::default() };
    let head = threads::advance(&mut tx, run.thread_id, take).await.unwrap();
    let added = Added { thread_id: run.thread_id, run_id: run.id, messages: new, last_seq: head.last_message_seq };
    messages::insert(&mut tx, &[added], at).await.unwrap();
    tx.commit().await.unwrap();
}

async fn ids(w: &World, run: &Claimed) -> Vec<String> {
    messages::context(&w.app.db, run.thread_id, run.id).await.unwrap().into_iter().map(|m| m.id).collect()
}

#[tokio::test]
async fn a_message_is_stored_once_whole_and_in_order() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let mut full = message(NASTY, &format!("{NASTY}\0"));
        let source = Source::Attachment { bucket: "b".into(), path: NASTY.into() };
        full.body.parts.push(MessagePart::Media { kind: PartKind::Image, mime_type: None, source });
        full.body.ui_schema = Some(json!({ "a": [NASTY, null] }));
        let many: Vec<_> = (0..1000).map(|n| message(&format!("{n}"), NASTY)).collect();
        store(&w, &run, &[full.clone(), message("x", "first"), message("x", "second"), message("m-a", "again")], START).await;
        store(&w, &run, &many, START).await;
        let all = messages::context(&w.app.db, run.thread_id, run.id).await.unwrap();
        assert_eq!(all.len(), 1003, "{}", w.name);
        assert_eq!((all[1].id.as_str(), &all[1].body, all[1].seq), (NASTY, &full.body, 2));
        assert_eq!(all[2].body.plain(), "first", "of two with one id the first is kept");
        assert_eq!(all[0].body.plain(), "hello", "what is stored already stays as it is");
        assert!(all.windows(2).all(|pair| pair[0].seq < pair[1].seq));
        assert_eq!(all[1002].seq, 1005);
        let mut tx = w.tx().await;
        let dropped = messages::drop_of_run(&mut tx, run.id).await.unwrap();
        assert_eq!(dropped.len(), 1003);
        assert!(messages::drop_of_run(&mut tx, run.id).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_run_sees_its_own_messages_and_those_before_it() {
    for w in worlds().await {
        let a = w.started("t", "a").await;
        let b = w.accept("t", "b").await.id;
        let late = Work { run_at: Some(START.after(MINUTE)), ..work("t", "late") };
        accept(&w.app, &owner(), &late).await.unwrap();
        store(&w, &a, &[message("answer-a", "hi")], START).await;
        assert_eq!(ids(&w, &a).await, ["m-a", "answer-a"], "{}", w.name);
        w.finish(&a).await;
        let b = w.claim(b).await;
        assert_eq!(ids(&w, &b).await, ["m-a", "answer-a", "m-b"], "the order of the runs, not of the storing");
    }
}

#[tokio::test]
async fn messages_are_found_by_their_time() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        store(&w, &run, &[message("1", "")], START.after(MINUTE)).await;
        store(&w, &run, &[message("2", "")], START.after(MINUTE * 2)).await;
        let db = &w.app.db;
        let newest = |before| messages::newest(db, run.thread_id, before);
        assert_eq!(newest(START.after(MINUTE * 9)).await.unwrap(), Some(START.after(MINUTE * 2)), "{}", w.name);
        assert_eq!(newest(START.after(MINUTE * 2)).await.unwrap(), Some(START.after(MINUTE)));
        assert_eq!(newest(START).await.unwrap(), None);
        let between = messages::between(db, run.thread_id, START, START.after(MINUTE * 2)).await.unwrap();
        assert_eq!(between.into_iter().map(|m| m.id).collect::<Vec<_>>(), ["m-a", "1"]);
    }
}
