//! Talking to agents: whole answers and streams, resumed and left; sessions, refusals, branches, and several agents at once.
use std::time::Duration;

use runmill_shared::config::Config;
use runmill_testkit::{
    app::quick_recovery,
    http_client::{Sse, content, soon},
    model_server::{Gate, ModelServer, Reply, Request},
};
use serde_json::{Value, json};

use crate::support::{TestPlatform, databases, each};

/// Its workers are missed soon.
pub fn quick(config: &mut Config) {
    quick_recovery(config);
    config.worker.drain = Duration::from_millis(100);
}

/// An agent of bob's whose instructions are its name; answers its id.
pub async fn agent(platform: &TestPlatform, name: &str) -> String {
    let body =
        json!({ "name": name, "system_prompt": name, "description": format!("is {name}"), "include_tools": ["calculator"] });
    platform.as_("bob").create("/agents", body).await["id"].as_str().unwrap().to_owned()
}

/// Everybody says who they are.
pub fn who_speaks(request: &Request) -> Reply {
    Reply::text(&format!("{} speaks", request.last("system")))
}

/// The frames of a stream up to its end: id, event and data.
pub async fn frames(stream: &mut Sse) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    while let Some(frame) = next(stream).await {
        all.push(frame);
    }
    all
}

async fn next(stream: &mut Sse) -> Option<(String, String, Value)> {
    loop {
        let frame = stream.frame().await?;
        let line = |name: &str| frame.lines().find_map(|l| l.strip_prefix(name)).map(str::to_owned);
        if let (Some(id), Some(event), Some(data)) = (line("id: "), line("event: "), line("data: ")) {
            return Some((id, event, serde_json::from_str(&data).unwrap()));
        }
    }
}

/// The text of the tokens among frames.
pub fn text(frames: &[(String, String, Value)]) -> String {
    frames.iter().filter(|(_, event, _)| event == "token").map(|(.., data)| data["content"].as_str().unwrap()).collect()
}

fn kinds(frames: &[(String, String, Value)]) -> Vec<&str> {
    let mut kinds: Vec<_> = frames.iter().map(|(_, event, _)| event.as_str()).collect();
    kinds.dedup();
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_answers_and_its_session_goes_on() {
    for platform in each(|_| {}).await {
        let (agent, bob) = (agent(&platform, "Ada").await, platform.as_("bob"));
        let call = || Reply::tool_calls([("calculator", json!({ "expression": "6*7" }))]);
        platform.model.script(call()).script(Reply::text("it is 42").usage(11, 3));
        let path = format!("/agent-chat/{agent}");
        let (status, first) = bob.post(&path, json!({ "message": "what is it?" })).await;
        assert_eq!(status, 200, "{}: {first}", platform.name());
        assert_eq!(first["content"], "it is 42");
        let called = &first["tool_calls"][0];
        assert_eq!((&called["name"], &called["arguments"]), (&json!("calculator"), &json!({ "expression": "6*7" })), "{first}");
        assert!(called["result"].to_string().contains("42") && called.get("error").is_none(), "{first}");
        assert_eq!(first["token_usage"]["input_tokens"], 18, "{first}");
        assert!(first.get("participants").is_none());

        platform.model.script(call()).script(Reply::text("still 42"));
        let body = json!({ "message": "and now?", "session_id": first["session_id"], "streamlined": true });
        let (status, second) = bob.post(&path, body).await;
        assert_eq!((status, &second["content"], &second["tool_calls"]), (200, &json!("still 42"), &json!([])), "{second}");
        assert_eq!(second["session_id"], first["session_id"]);
        assert_ne!(second["execution_id"], first["execution_id"]);
        let seen = platform.model.requests()[2].body["messages"].to_string();
        assert!(seen.contains("what is it?") && seen.contains("it is 42"), "{seen}");
        // A session that its client names is made.
        let (status, own) = bob.post(&path, json!({ "message": "hi", "session_id": "my own" })).await;
        assert_eq!((status, &own["session_id"]), (200, &json!("my own")));
        assert_eq!(platform.history("bob", "my own").await.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_what_happens() {
    for platform in each(|_| {}).await {
        let (agent, bob) = (agent(&platform, "Ada").await, platform.as_("bob"));
        let path = format!("/agent-chat/{agent}/stream");
        let calls = || {
            let good = ("calculator", json!({ "expression": "1+1" }));
            Reply::tool_calls([good, ("calculator", json!({ "expression": "1/0" }))])
        };
        platform.model.script(calls()).script(Reply::text("two words"));
        let told = frames(&mut bob.stream(&path, json!({ "message": "go", "session_id": "s" })).await).await;
        assert_eq!(kinds(&told), ["tool_call", "tool_result", "token", "done"], "{}: {told:?}", platform.name());
        assert_eq!(text(&told), "two words");
        let of = |kind: &str| told.iter().filter(|(_, k, _)| k == kind).map(|(.., data)| data).collect::<Vec<_>>();
        assert_eq!(of("tool_call")[0]["arguments"], json!({ "expression": "1+1" }));
        for call in of("tool_call") {
            let result = of("tool_result").into_iter().find(|r| r["id"] == call["id"]).unwrap();
            assert!(result.get("result").is_some() != result.get("error").is_some(), "{result}");
        }
        let done = of("done")[0];
        assert_eq!((&done["session_id"], &done["token_usage"]["input_tokens"]), (&json!("s"), &json!(14)), "{done}");
        let run = done["execution_id"].as_str().unwrap();
        assert!(told.iter().all(|(id, ..)| id.starts_with(&format!("{run}:"))), "{told:?}");
        let mut ids: Vec<_> = told.iter().map(|(id, ..)| id).collect();
        ids.dedup();
        assert_eq!(ids.len(), told.len(), "each frame has an id of its own");

        platform.model.script(calls()).script(Reply::text("three words more"));
        let body = json!({ "message": "go", "session_id": "s", "streamlined": true });
        let told = frames(&mut bob.stream(&path, body).await).await;
        assert_eq!(kinds(&told), ["token", "done"]);

        platform.model.script(Reply::status(401));
        let told = frames(&mut bob.stream(&path, json!({ "message": "go" })).await).await;
        assert_eq!(kinds(&told), ["error"]);
        assert_eq!(told[0].2["error"], "MODEL_AUTH", "{told:?}");
        assert!(told[0].2["message"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_where_it_was_left_though_its_worker_was_replaced() {
    let both = [(true, each(quick).await), (false, each(quick).await)];
    for (is_crash, mut platform) in both.into_iter().flat_map(|(how, all)| all.into_iter().map(move |p| (how, p))) {
        let (agent, gate) = (agent(&platform, "Ada").await, Gate::new());
        let path = format!("/agent-chat/{agent}/stream");
        let body = json!({ "message": "go", "session_id": "s" });
        platform.model.script(Reply::text("one two three").hold_after(2, &gate)).script(Reply::text("whole again"));
        let mut stream = platform.as_("bob").stream(&path, body.clone()).await;
        let mut told = Vec::new();
        while !text(&told).contains("two") {
            told.push(next(&mut stream).await.unwrap());
        }
        drop(stream);
        let seen = told.last().unwrap().0.clone();
        match is_crash {
            true => platform.kill_worker().await,
            false => platform.stop_worker().await,
        }
        platform.start_worker().await;
        let again = |who: &str, id: &str| {
            let request = platform.as_(who).request(reqwest::Method::POST, &path).json(&body);
            request.header("Last-Event-ID", id.to_owned())
        };
        let rest = frames(&mut Sse::open(again("bob", &seen)).await).await;
        assert_eq!(kinds(&rest), ["discard", "token", "done"], "{}: {rest:?}", platform.name());
        assert_eq!(rest[0].2["content"], text(&told), "what was said does not count");
        assert_eq!(text(&rest), "whole again");
        assert_eq!(rest.last().unwrap().2["execution_id"].as_str(), seen.split(':').next());
        assert_eq!(platform.model.counts().received, 2, "no second run");
        assert_eq!(platform.history("bob", "s").await.len(), 2);

        // Every place that was seen leads to the same rest.
        let all = frames(&mut Sse::open(again("bob", &told[0].0)).await).await;
        assert_eq!(all[all.len() - rest.len()..], rest);
        let answer = soon("the answer", again("bob", &rest.last().unwrap().0).send()).await.unwrap();
        assert_eq!(content(answer).await, (204, Value::Null), "nothing is left");
        let (status, refused) = content(soon("the answer", again("eve", &seen).send()).await.unwrap()).await;
        assert_eq!((status, &refused["error"]), (404, &json!("RUN_NOT_FOUND")), "{refused}");
        for bad in ["7", "x:7", &format!("{}:100000", seen.split(':').next().unwrap())] {
            let (status, refused) = content(soon("the answer", again("bob", bad).send()).await.unwrap()).await;
            assert_eq!(status, 400, "{bad}: {refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_does_not_stop_the_run() {
    for platform in each(|_| {}).await {
        let (agent, gate) = (agent(&platform, "Ada").await, Gate::new());
        for (i, kind) in ["", "/stream"].into_iter().enumerate() {
            platform.model.script(Reply::text("all the same").hold_after(1, &gate));
            let bob = platform.as_("bob");
            let request = bob.request(reqwest::Method::POST, &format!("/agent-chat/{agent}{kind}"));
            let request = request.json(&json!({ "message": "go", "session_id": format!("s{i}") }));
            let waiting = async {
                let answer = request.send().await.unwrap();
                answer.bytes().await.unwrap()
            };
            tokio::select! {
                _ = waiting => panic!("it has answered"),
                asked = platform.model.until(|c| c.received == i + 1) => drop(asked.unwrap()),
            }
            gate.open();
            let (status, runs) = bob.get(&format!("/agent/runs?threadId=s{i}")).await;
            assert_eq!(status, 200, "{runs}");
            let run = platform.ended("bob", runs["runs"][0]["taskId"].as_str().unwrap().parse().unwrap()).await;
            assert_eq!((&run["status"], &run["result"]["content"]), (&json!("succeeded"), &json!("all the same")), "{run}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_one_session_are_serial() {
    for platform in each(|_| {}).await {
        let (agent, gate) = (agent(&platform, "Ada").await, Gate::new());
        let path = format!("/agent-chat/{agent}");
        platform.model.script(Reply::text("first").hold_until(&gate)).script(Reply::text("second"));
        let bob = platform.as_("bob");
        let first = bob.post(&path, json!({ "message": "a", "session_id": "s" }));
        let second = async {
            platform.model.until(|c| c.received == 1).await.unwrap();
            let second = bob.post(&path, json!({ "message": "b", "session_id": "s" }));
            let opened = async {
                // It is accepted while the first one is being answered, and waits.
                loop {
                    let (_, runs) = bob.get("/agent/runs?threadId=s&status=queued").await;
                    if runs["runs"].as_array().is_some_and(|runs| runs.len() == 1) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                assert_eq!(platform.model.counts().received, 1);
                gate.open();
            };
            tokio::join!(second, opened).0
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!((&first.1["content"], &second.1["content"]), (&json!("first"), &json!("second")), "{}", platform.name());
        let seen = platform.model.requests()[1].body["messages"].to_string();
        assert!(seen.contains("first"), "{seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_says_why() {
    for platform in each(|c| c.runs.max_attempts = 1).await {
        let (agent, bob) = (agent(&platform, "Ada").await, platform.as_("bob"));
        let path = format!("/agent-chat/{agent}");
        for (reply, status, code) in [(401, 503, "MODEL_AUTH"), (429, 429, "MODEL_RATE_LIMITED")] {
            platform.model.script(Reply::status(reply));
            let (answered, body) = bob.post(&path, json!({ "message": "hi", "session_id": "s" })).await;
            assert_eq!((answered, &body["error"]), (status, &json!(code)), "{}: {body}", platform.name());
            let (_, run) = bob.get(&format!("/executions/{}", body["execution_id"].as_str().unwrap())).await;
            assert_eq!(
                (&run["status"], &run["error"]["code"], &run["session_id"]),
                (&json!("failed"), &json!(code), &json!("s"))
            );
        }
        // Another's draft is not there; a stopped agent does not answer.
        for kind in ["", "/stream"] {
            let path = format!("/agent-chat/{agent}{kind}");
            let (status, body) = platform.as_("eve").post(&path, json!({ "message": "hi" })).await;
            assert_eq!((status, &body["error"]), (404, &json!("AGENT_NOT_FOUND")));
            for bad in [json!({}), json!({ "message": "" }), json!({ "message": 5 }), json!({ "message": "x", "session_id": "" })]
            {
                let (status, body) = bob.post(&path, bad.clone()).await;
                let field = if bad["session_id"].is_string() { "session_id" } else { "message" };
                assert_eq!((status, &body["details"][0]["field"]), (422, &json!(field)), "{bad}: {body}");
            }
        }
        assert_eq!(bob.act(&format!("/agents/{agent}/deploy")).await.0, 200);
        assert_eq!(platform.as_("eve").post(&path, json!({ "message": "hi" })).await.0, 200, "published: others may run it");
        assert_eq!(bob.act(&format!("/agents/{agent}/stop")).await.0, 200);
        let (status, body) = bob.post(&path, json!({ "message": "hi" })).await;
        assert_eq!((status, &body["error"]), (409, &json!("AGENT_STOPPED")));
        assert_eq!(bob.post("/agent-chat/nobody", json!({ "message": "hi" })).await.0, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_is_told_where_the_answer_will_be() {
    for platform in each(|c| c.chat.wait = Duration::from_millis(200)).await {
        let (agent, bob, gate) = (agent(&platform, "Ada").await, platform.as_("bob"), Gate::new());
        platform.model.script(Reply::text("at last").hold_until(&gate));
        let (status, pending) = bob.post(&format!("/agent-chat/{agent}"), json!({ "message": "hi", "session_id": "s" })).await;
        assert_eq!((status, &pending["session_id"]), (202, &json!("s")), "{}: {pending}", platform.name());
        gate.open();
        let execution = pending["execution_id"].as_str().unwrap();
        platform.ended("bob", execution.parse().unwrap()).await;
        let (_, run) = bob.get(&format!("/executions/{execution}")).await;
        assert_eq!((&run["status"], &run["output"]["content"]), (&json!("completed"), &json!("at last")), "{run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bare_is_the_model_alone() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let (status, body) = bob.post("/agent-chat/bare", json!({ "message": "hi", "session_id": "s" })).await;
        assert_eq!((status, &body["content"]), (200, &json!("ok")), "{}: {body}", platform.name());
        let told =
            frames(&mut bob.stream("/agent-chat/bare/stream", json!({ "message": "again", "session_id": "s" })).await).await;
        assert_eq!((text(&told).as_str(), kinds(&told)), ("ok", vec!["token", "done"]));
        for request in platform.model.requests() {
            assert!(request.body.get("tools").is_none_or(|t| t.as_array().is_some_and(Vec::is_empty)), "{}", request.body);
            assert_eq!(request.last("system"), "");
        }
        assert!(platform.model.requests()[1].body["messages"].to_string().contains("hi"), "one session");
        let (_, run) = bob.get(&format!("/executions/{}", body["execution_id"].as_str().unwrap())).await;
        assert_eq!(run["agent_id"], "bare");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_agents_answer_as_one() {
    for database in databases().await {
        let platform = TestPlatform::with_model(database, ModelServer::with(who_speaks).await.unwrap(), |_| {}).await;
        let (ada, eve) = (agent(&platform, "Ada").await, agent(&platform, "Eva").await);
        let bob = platform.as_("bob");
        for (mode, size, content) in [("route", 1, "Ada speaks"), ("sequential", 2, "Eva speaks"), ("debate", 5, "Ada speaks")] {
            let body = json!({ "message": "go", "agent_ids": [ada, eve], "mode": mode, "session_id": "s" });
            let (status, answer) = bob.post("/agent-chat/orchestrate", body).await;
            assert_eq!((status, &answer["content"]), (200, &json!(content)), "{} {mode}: {answer}", platform.name());
            let participants = answer["participants"].as_array().unwrap();
            assert_eq!(participants.len(), size, "{mode}: {answer}");
            assert_eq!(answer["session_id"], "s");
            let (status, child) = bob.get(&format!("/executions/{}", participants[0]["execution_id"].as_str().unwrap())).await;
            assert_eq!((status, &child["status"], &child["parent_id"]), (200, &json!("completed"), &answer["execution_id"]));
            assert!(child.get("session_id").is_none(), "a participant's thread is no conversation: {child}");
        }
        let nodes = json!([{ "id": "a", "type": "agent", "agent_id": ada }, { "id": "b", "type": "agent", "agent_id": eve },
            { "id": "c", "type": "agent", "agent_id": eve }]);
        let edges = json!([{ "source": "a", "target": "b", "condition": "output.startsWith('Ada')" },
            { "source": "a", "target": "c", "condition": "output == ''" }]);
        let (status, answer) =
            bob.post("/agent-chat/orchestrate/graph", json!({ "message": "go", "nodes": nodes, "edges": edges })).await;
        assert_eq!((status, &answer["content"]), (200, &json!("Eva speaks")), "{answer}");
        assert_eq!(answer["participants"].as_array().unwrap().len(), 2, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_cannot_work_is_refused_and_every_bad_field_named() {
    for platform in each(|_| {}).await {
        let (ada, bob) = (agent(&platform, "Ada").await, platform.as_("bob"));
        let node = |id: &str, kind: &str| json!({ "id": id, "type": kind, "agent_id": ada });
        let graph = |nodes: Value, edges: Value| ("/graph", json!({ "message": "go", "nodes": nodes, "edges": edges }));
        let edge =
            |source: &str, target: &str, condition: Value| json!({ "source": source, "target": target, "condition": condition });
        let ab = || json!([node("a", "agent"), node("b", "agent")]);
        let orchestrate = |mode: &str, agents: Value, rounds: Value| {
            ("", json!({ "message": "go", "mode": mode, "agent_ids": agents, "rounds": rounds }))
        };
        let cases = [
            (orchestrate("vote", json!([ada]), Value::Null), vec!["mode"]),
            (orchestrate("route", json!([]), Value::Null), vec!["agent_ids"]),
            (orchestrate("route", json!(vec![&ada; 17]), Value::Null), vec!["agent_ids"]),
            (orchestrate("debate", json!([ada]), json!(11)), vec!["agent_ids", "rounds"]),
            (orchestrate("route", json!([ada]), json!(2)), vec!["rounds"]),
            (graph(json!([]), json!([])), vec!["nodes"]),
            (graph(json!([node("a", "start")]), json!([])), vec!["nodes.0.type"]),
            (graph(json!([node("a", "agent"), node("a", "agent")]), json!([])), vec!["nodes.1.id"]),
            (graph(ab(), json!([edge("a", "z", Value::Null)])), vec!["edges.0.target"]),
            (graph(ab(), json!([edge("a", "b", Value::Null), edge("b", "a", Value::Null)])), vec!["edges"]),
            (graph(ab(), json!([edge("a", "b", json!("output =="))])), vec!["edges.0.condition"]),
            (graph(ab(), json!([edge("a", "b", json!("secrets.key == 'x'"))])), vec!["edges.0.condition"]),
        ];
        for ((path, body), fields) in cases {
            let (status, refused) = bob.post(&format!("/agent-chat/orchestrate{path}"), body.clone()).await;
            let all = refused["details"].as_array().cloned().unwrap_or_default();
            let named = |field: &str| all.iter().any(|d| d["field"].as_str().is_some_and(|f| f.starts_with(field)));
            assert!(status == 422 && fields.iter().all(|f| named(f)), "{body}: {status} {refused}");
        }
        let unknown =
            json!({ "message": "go", "mode": "sequential", "agent_ids": [ada, "01900000-0000-7000-8000-000000000001"] });
        let (status, refused) = bob.post("/agent-chat/orchestrate", unknown).await;
        assert_eq!((status, &refused["error"]), (404, &json!("AGENT_NOT_FOUND")));
        let anothers = json!({ "message": "go", "mode": "sequential", "agent_ids": [ada] });
        assert_eq!(platform.as_("eve").post("/agent-chat/orchestrate", anothers).await.0, 404);
        assert_eq!(platform.model.counts().received, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_is_gone_on_from() {
    for platform in each(|_| {}).await {
        let (agent, bob) = (agent(&platform, "Ada").await, platform.as_("bob"));
        let path = format!("/agent-chat/{agent}");
        platform.model.script(Reply::text("one")).script(Reply::text("two")).script(Reply::text("other"));
        for message in ["first", "second"] {
            assert_eq!(bob.post(&path, json!({ "message": message, "session_id": "s" })).await.0, 200);
        }
        let messages = platform.history("bob", "s").await;
        let branch = bob.create("/agent-chat/branches", json!({ "session_id": "s", "message_id": messages[1] })).await;
        let resume = format!("/agent-chat/branches/{}/resume", branch["id"].as_str().unwrap());
        let (status, answer) = bob.post(&resume, json!({ "message": "instead" })).await;
        assert_eq!((status, &answer["content"]), (200, &json!("other")), "{}: {answer}", platform.name());
        assert_eq!(answer["session_id"], branch["session_id"]);
        let asked = platform.model.requests().pop().unwrap();
        let seen = asked.body["messages"].to_string();
        assert!(seen.contains("first") && seen.contains("one") && !seen.contains("second"), "{seen}");
        assert_eq!(asked.last("system"), "Ada", "the agent of the session answers");
        assert_eq!(bob.post(&resume, json!({})).await.0, 422);
        assert_eq!(platform.as_("eve").post(&resume, json!({ "message": "x" })).await.0, 404);
    }
}
