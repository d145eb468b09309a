use runmill_shared::{
    domain::page::PageRequest,
    services::runs::execution::Doubt,
    store::feedback::{self, Feedback, Share},
};

use super::{super::*, NASTY};

const DAY: Duration = Duration::from_secs(86_400);

async fn rate(
    w: &World,
    of: &Owner,
    run: &Claimed,
    agent: &str,
    message: Option<&str>,
    is_good: bool,
    comment: &str,
) -> Feedback {
    let new = Feedback {
        id: new_id(),
        run_id: run.id,
        agent_id: Some(agent.into()),
        message_id: message.map(str::to_owned),
        is_good,
        comment: comment.into(),
        created_at: w.app.clock.now(),
    };
    let mut tx = w.tx().await;
    let kept = feedback::rate(&mut tx, of, &new).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(Feedback { id: kept.id, ..new }, kept, "{}", w.name);
    kept
}

#[tokio::test]
async fn feedback_is_kept_once_for_each_answer_and_counted() {
    for w in worlds().await {
        let (run, other) = (w.started("t", "a").await, Owner::of_row("other"));
        let first = rate(&w, &owner(), &run, "x", None, false, "").await;
        assert_eq!(rate(&w, &owner(), &run, "x", None, true, NASTY).await.id, first.id, "the same answer");
        w.later(DAY);
        assert_ne!(rate(&w, &owner(), &run, "x", Some("m-a"), false, "50% wrong").await.id, first.id);
        rate(&w, &owner(), &run, "y", Some("gone"), false, "").await;
        rate(&w, &other, &run, "y", None, true, "theirs").await;

        let share = |of: &str, good, bad| Share { of: Some(of.into()), good, bad };
        let since = START;
        let agents = feedback::by_agent(&w.app.db, &owner(), since, 10).await.unwrap();
        assert_eq!(agents, [share("x", 1, 1), share("y", 0, 1)], "{}", w.name);
        assert_eq!(feedback::by_agent(&w.app.db, &owner(), since, 1).await.unwrap().len(), 1);
        let days = feedback::by_day(&w.app.db, &owner(), since).await.unwrap();
        assert_eq!(days, [share("2023-11-14", 1, 0), share("2023-11-15", 0, 2)]);
        assert_eq!(feedback::by_day(&w.app.db, &owner(), START.after(DAY)).await.unwrap().len(), 1);
        let said: Vec<_> =
            feedback::comments(&w.app.db, &owner(), since, 9).await.unwrap().into_iter().map(|f| f.comment).collect();
        assert_eq!(said, ["50% wrong", NASTY]);
    }
}

#[tokio::test]
async fn bad_answers_come_with_what_was_asked() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let answer = NewMessage { id: "answer".into(), role: MessageRole::Assistant, body: MessageBody::text("no idea") };
        let writes = Writes { messages: vec![answer], ..Writes::default() };
        execution::flush(&w.app, vec![Unit { run: &run, writes }], &mut Doubt::default()).await.unwrap();
        rate(&w, &owner(), &run, "x", None, false, "as a whole").await;
        w.later(MINUTE);
        rate(&w, &owner(), &run, "x", Some("m-a"), false, "50% wrong").await;
        let page = |search: Option<&str>| PageRequest {
            number: 1,
            size: 10,
            search: search.map(str::to_owned),
            status: None,
            sort: None,
        };
        let found = feedback::negatives(&w.app.db, &owner(), &page(None)).await.unwrap();
        let texts: Vec<_> =
            found.items.iter().map(|n| [&n.question, &n.answer].map(|b| b.as_ref().map(MessageBody::plain))).collect();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(texts, [[text("hello"), text("hello")], [text("hello"), text("no idea")]], "{}: newest first", w.name);
        assert_eq!(found.total, 2);
        assert_eq!(feedback::negatives(&w.app.db, &owner(), &page(Some("50%"))).await.unwrap().total, 1);
        assert_eq!(feedback::negatives(&w.app.db, &Owner::of_row("other"), &page(None)).await.unwrap().total, 0);
        assert!(feedback::has_message(&w.app.db, run.id, "answer").await.unwrap());
        assert!(!feedback::has_message(&w.app.db, run.id, "other").await.unwrap());
    }
}
