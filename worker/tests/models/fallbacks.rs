//! Which model answers when the first does not, and what it costs.
use std::sync::Arc;

use runmill_shared::{
    App,
    domain::model::{Prices, Provider, Target},
};
use runmill_testkit::{
    database::TestDatabase,
    model_server::{Gate, ModelServer, Reply},
};
use runmill_worker::models::{self, ChatModel, ModelErrorKind as K};
use serde_json::json;

use crate::{ask, run, target, texts};

struct Two {
    first: ModelServer,
    second: ModelServer,
    model: Arc<dyn ChatModel>,
    _database: TestDatabase,
}

async fn two() -> Two {
    let (first, second) = (ModelServer::start().await.unwrap(), ModelServer::start().await.unwrap());
    let database = TestDatabase::sqlite().await;
    let app = App::open(database.config()).await.unwrap();
    let named = |name: &str, server: &ModelServer| Target { name: name.into(), ..target(Provider::Openai, &server.base_url()) };
    let prices = Prices { input: 1_000_000, cached_input: 0, output: 2_000_000 };
    let targets = [
        Target { prices: Some(prices), temperature: Some(0.1), ..named("first", &first) },
        Target { prices: Some(prices), max_tokens: Some(7), ..named("second", &second) },
    ];
    let model = models::connect(&app, &targets).unwrap();
    Two { first, second, model, _database: database }
}

#[tokio::test]
async fn the_first_answers_at_its_price_and_with_its_settings() {
    let two = two().await;
    two.first.script(Reply::text("hello").usage(100, 10));
    let answer = run(&*two.model, &ask("hi")).await.1.unwrap();
    assert_eq!((answer.answered_by.as_str(), two.model.name()), ("openai:first", "openai:first"));
    assert_eq!(answer.usage.cost_micros, 120);
    assert_eq!(two.first.requests()[0].body["temperature"], 0.1);
    assert_eq!(two.second.counts().received, 0);
}

#[tokio::test]
async fn another_answers_what_the_first_may_not_be_able_to() {
    let days = [
        Reply::status(429).retry_after(9),
        Reply::status(503),
        Reply::status(401),
        Reply::status(404),
        Reply::reset(),
        Reply::tool_calls([]),
    ];
    for day in days {
        let shown = format!("{day:?}");
        let two = two().await;
        two.first.script(day);
        two.second.script(Reply::text("one two").usage(10, 5));
        let (events, end) = run(&*two.model, &ask("hi")).await;
        let answer = end.unwrap();
        assert_eq!((texts(&events).concat().as_str(), answer.answered_by.as_str()), ("one two", "openai:second"), "{shown}");
        assert_eq!(answer.usage.cost_micros, 20, "{shown}");
        let sent = &two.second.requests()[0].body;
        assert_eq!((&sent["model"], &sent["max_tokens"]), (&json!("second"), &json!(7)), "{shown}");
    }
}

#[tokio::test]
async fn a_long_conversation_and_a_refused_one_are_not_taken_elsewhere() {
    let filtered = Reply::refusal(json!({"error": {"code": "content_filter", "message": "no"}}));
    for (day, kind) in [(Reply::context_overflow(), K::ContextOverflow), (filtered, K::ContentFilter)] {
        let two = two().await;
        two.first.script(day);
        assert_eq!(run(&*two.model, &ask("hi")).await.1.unwrap_err().kind, kind);
        assert_eq!(two.second.counts().received, 0);
    }
}

#[tokio::test]
async fn what_has_begun_to_answer_is_not_replaced() {
    let two = two().await;
    two.first.script(Reply::truncated_after(2, "one two three"));
    let (events, end) = run(&*two.model, &ask("hi")).await;
    assert_eq!((texts(&events), end.unwrap_err().kind), (vec!["one ", "two "], K::Truncated));
    assert_eq!(two.second.counts().received, 0);
}

#[tokio::test]
async fn when_nobody_answers_it_is_said_what_may_pass() {
    let two = two().await;
    two.first.script(Reply::status(401));
    two.second.script(Reply::status(429).retry_after(3));
    let error = run(&*two.model, &ask("hi")).await.1.unwrap_err();
    assert_eq!((error.kind, error.retry_after.map(|d| d.as_secs())), (K::RateLimited, Some(3)));
    two.first.script(Reply::status(401));
    two.second.script(Reply::status(404));
    assert_eq!(run(&*two.model, &ask("hi")).await.1.unwrap_err().kind, K::Auth, "else the first one's reason");
}

#[tokio::test]
async fn a_target_that_cannot_be_asked_is_left_out() {
    let server = ModelServer::start().await.unwrap();
    let database = TestDatabase::sqlite().await;
    let app = App::open(database.config()).await.unwrap();
    let blocked = Target { guarded: true, ..target(Provider::Openai, &server.base_url()) };
    assert_eq!(models::connect(&app, std::slice::from_ref(&blocked)).err().unwrap().code, "BLOCKED_ADDRESS");
    let open = Target { name: "open".into(), ..target(Provider::Openai, &server.base_url()) };
    let model = models::connect(&app, &[blocked, open]).unwrap();
    assert_eq!(run(&*model, &ask("hi")).await.1.unwrap().answered_by, "openai:open");
}

#[tokio::test]
async fn the_place_of_one_that_failed_is_free_for_the_next() {
    let (first, gate) = (ModelServer::start().await.unwrap(), Gate::new());
    let database = TestDatabase::sqlite().await;
    let mut config = database.config();
    config.models.openai_base_url = first.base_url();
    config.models.parallel.insert("openai".into(), 1);
    let app = App::open(config).await.unwrap();
    let own = |name: &str| Target { name: name.into(), base_url: None, ..target(Provider::Openai, "") };
    let model = models::connect(&app, &[own("a"), own("b")]).unwrap();
    first.script(Reply::status(503)).script(Reply::text("late").hold_until(&gate));
    let (outcome, ()) = tokio::join!(async { run(&*model, &ask("hi")).await.1.unwrap() }, async {
        first.until(|counts| counts.received == 2).await.unwrap();
        gate.open();
    });
    assert_eq!(outcome.answered_by, "openai:b");
}
