use runmill_testkit::model_server::{Gate, Reply};
use serde_json::{Value, json};

use crate::support::{TestPlatform, each};

async fn branch(platform: &TestPlatform, session: &str, message: &str) -> Value {
    platform.as_("bob").create("/agent-chat/branches", json!({ "session_id": session, "message_id": message })).await
}

fn session(branch: &Value) -> &str {
    branch["session_id"].as_str().unwrap()
}

/// What the model was told last, of user and agent. (What one side says twice in a row may come as parts of one message.)
fn told(platform: &TestPlatform) -> Vec<String> {
    let requests = platform.model.requests();
    let said = requests.last().unwrap().messages().iter().filter(|m| m["role"] != "system");
    let texts = said.flat_map(|m| match &m["content"] {
        Value::Array(parts) => parts.iter().map(|part| part["text"].as_str().unwrap().to_owned()).collect(),
        text => vec![text.as_str().unwrap().to_owned()],
    });
    texts.collect()
}

async fn answered(platform: &TestPlatform, session: &str, message: &str, answer: &str) {
    platform.model.script(Reply::text(answer));
    platform.converse("bob", session, message, Value::Null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_goes_on_from_a_message_and_neither_side_sees_the_other() {
    for platform in each(|_| {}).await {
        answered(&platform, "s", "m1", "one").await;
        answered(&platform, "s", "m2", "two").await;
        let first_answer = platform.history("bob", "s").await[1].clone();
        let fork = branch(&platform, "s", &first_answer).await;
        assert_eq!((&fork["parent_session_id"], &fork["message_id"]), (&json!("s"), &json!(first_answer)));
        assert_eq!(platform.history("bob", session(&fork)).await, ["m1".to_owned(), first_answer.clone()], "{}", platform.name());
        answered(&platform, session(&fork), "b1", "other").await;
        assert_eq!(told(&platform), ["text of m1", "one", "text of b1"], "{}", platform.name());
        answered(&platform, "s", "m3", "three").await;
        assert_eq!(told(&platform), ["text of m1", "one", "text of m2", "two", "text of m3"]);

        // A branch of the branch: one line of ancestors.
        let ids = platform.history("bob", session(&fork)).await;
        assert_eq!((ids.len(), ids[2].as_str()), (4, "b1"));
        let deeper = branch(&platform, session(&fork), &ids[3]).await;
        answered(&platform, session(&fork), "b2", "later").await;
        answered(&platform, session(&deeper), "c1", "deep").await;
        assert_eq!(told(&platform), ["text of m1", "one", "text of b1", "other", "text of c1"]);
        // And one that goes out from what the branch has inherited.
        let back = branch(&platform, session(&deeper), "m1").await;
        assert_eq!(platform.history("bob", session(&back)).await, ["m1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_everything_again_adds_only_what_is_new() {
    for platform in each(|_| {}).await {
        answered(&platform, "s", "m1", "one").await;
        answered(&platform, "s", "m2", "two").await;
        let parent = platform.history("bob", "s").await;
        let fork = branch(&platform, "s", &parent[1]).await;
        let message = |id: &str, role: &str| json!({ "id": id, "role": role, "content": format!("{id} again") });
        // With an answer among them the accept has to look, without one it is a single statement.
        for (n, with_answer) in [true, false].into_iter().enumerate() {
            let mut all = vec![message("m1", "user")];
            if with_answer {
                all.push(message(&parent[1], "assistant"));
            }
            all.push(message(&format!("b{n}"), "user"));
            let run = json!({ "threadId": session(&fork), "runId": format!("r{n}"), "messages": all });
            let (status, accepted) = platform.as_("bob").post("/agent/runs", run).await;
            assert_eq!(status, 200, "{accepted}");
            platform.ended("bob", accepted["taskId"].as_str().unwrap().parse().unwrap()).await;
        }
        assert_eq!(told(&platform), ["text of m1", "one", "b0 again", "ok", "b1 again"], "{}", platform.name());
        assert_eq!(platform.history("bob", session(&fork)).await.len(), 6);
        // What the parent said after the fork is none of the branch's: the same id may be used there.
        let run = json!({ "threadId": session(&fork), "runId": "r9", "messages": [message("m2", "user")] });
        let (_, accepted) = platform.as_("bob").post("/agent/runs", run).await;
        platform.ended("bob", accepted["taskId"].as_str().unwrap().parse().unwrap()).await;
        assert_eq!(told(&platform).last().unwrap(), "m2 again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_follows_the_order_of_the_conversation() {
    for platform in each(|_| {}).await {
        let gate = Gate::new();
        platform.model.script(Reply::text("one").hold_until(&gate));
        let first = platform.say("bob", "s", "m1", Value::Null).await;
        platform.model.until(|counts| counts.open == 1).await.unwrap();
        // It is stored before the answer to the first, and comes after it.
        let second = platform.say("bob", "s", "m2", Value::Null).await;
        let body = json!({ "session_id": "s", "message_id": "m2" });
        let (status, refused) = platform.as_("bob").post("/agent-chat/branches", body).await;
        assert_eq!((status, &refused["error"]), (409, &json!("SESSION_BUSY")), "what comes before it is not there yet");
        let early = branch(&platform, "s", "m1").await;
        gate.open();
        platform.ended("bob", first).await;
        platform.ended("bob", second).await;
        assert_eq!(platform.history("bob", session(&early)).await, ["m1"], "what came after the fork is not its own");
        let late = branch(&platform, "s", "m2").await;
        answered(&platform, session(&late), "b1", "x").await;
        assert_eq!(told(&platform), ["text of m1", "one", "text of m2", "text of b1"], "{}", platform.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_are_listed_read_and_deleted_by_their_owner() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        answered(&platform, "s", "m1", "one").await;
        let body = json!({ "session_id": "s", "message_id": "m1", "name": "Another way" });
        let named = bob.create("/agent-chat/branches", body).await;
        let fork = branch(&platform, "s", "m1").await;
        let at = format!("/agent-chat/branches/{}", fork["id"].as_str().unwrap());
        assert_eq!((&named["name"], &fork["name"]), (&json!("Another way"), &json!("m1")));
        assert_eq!(bob.get(&at).await, (200, fork.clone()));
        let child = branch(&platform, session(&fork), "m1").await;
        let (_, list) = bob.get("/agent-chat/branches").await;
        assert_eq!((&list["total"], &list["items"][0]), (&json!(3), &child));
        let (_, list) = bob.get("/agent-chat/branches?session_id=s&sort=name").await;
        assert_eq!((&list["total"], &list["items"][0]["name"]), (&json!(2), &json!("Another way")));
        assert_eq!(platform.as_("eve").get("/agent-chat/branches").await.1["total"], 0);

        // The child inherits from `s` itself: nothing holds the branch in between.
        let gate = Gate::new();
        platform.model.script(Reply::text("late").hold_until(&gate));
        let running = platform.say("bob", session(&fork), "b1", Value::Null).await;
        platform.model.until(|counts| counts.open == 1).await.unwrap();
        assert_eq!(bob.delete(&at).await.1["error"], "BRANCH_BUSY");
        gate.open();
        platform.ended("bob", running).await;
        let below = branch(&platform, session(&fork), "b1").await;
        assert_eq!(bob.delete(&at).await.1["error"], "BRANCH_HAS_BRANCHES");
        let below = format!("/agent-chat/branches/{}", below["id"].as_str().unwrap());
        assert_eq!(bob.delete(&below).await.0, 204);
        assert_eq!(bob.delete(&at).await, (204, Value::Null));
        assert_eq!(bob.delete(&at).await.1["error"], "BRANCH_NOT_FOUND");
        let gone = bob.request(reqwest::Method::GET, "/agent/history").query(&[("threadId", session(&fork))]);
        assert_eq!(gone.send().await.unwrap().status(), 404, "its session is gone with it");
        assert_eq!(platform.history("bob", "s").await.len(), 2, "and the parent stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_cannot_be_forked() {
    for platform in each(|_| {}).await {
        answered(&platform, "s", "m1", "one").await;
        let refused = async |name: &str, body: Value| {
            let (status, refused) = platform.as_(name).post("/agent-chat/branches", body).await;
            (status, refused["error"].as_str().unwrap().to_owned())
        };
        let of = |session: &str, message: &str| json!({ "session_id": session, "message_id": message });
        assert_eq!(refused("bob", of("other", "m1")).await, (404, "SESSION_NOT_FOUND".into()), "{}", platform.name());
        assert_eq!(refused("bob", of("s", "m9")).await, (404, "MESSAGE_NOT_FOUND".into()));
        assert_eq!(refused("eve", of("s", "m1")).await, (404, "SESSION_NOT_FOUND".into()));
        assert_eq!(refused("bob", json!({ "session_id": "s" })).await, (422, "VALIDATION_ERROR".into()));
        let fork = branch(&platform, "s", "m1").await;
        answered(&platform, "s", "m2", "two").await;
        assert_eq!(refused("bob", of(session(&fork), "m2")).await.0, 404, "the parent's, after the fork");
    }
}
