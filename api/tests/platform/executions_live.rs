//! The socket of an execution: what it is now, and each change until its end.
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use runmill_shared::config::AuthMode;
use runmill_testkit::{
    http_client::soon,
    model_server::{Gate, Reply},
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    agent_chat::agent,
    support::{Socket, TestPlatform, each},
};

/// The next execution that it tells, or the code that it was closed with.
async fn next(socket: &mut Socket) -> Result<Value, u16> {
    let told = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(frame["type"], "execution");
                    return Ok(frame["execution"].clone());
                }
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |f| f.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    };
    soon("a frame", told).await
}

/// All that it tells until one is as wanted, that one last.
async fn until(socket: &mut Socket, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let told = next(socket).await.unwrap();
        if wanted(&told) {
            return told;
        }
    }
}

async fn start(platform: &TestPlatform, text: &str) -> String {
    let ada = agent(platform, "Ada").await;
    let (status, started) = platform.as_("bob").post("/executions", json!({ "agent_id": ada, "input": text })).await;
    assert_eq!((status, &started["status"]), (202, &json!("queued")), "{started}");
    started["execution_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_what_is_and_each_change_and_closes_with_the_end() {
    for platform in each(|_| {}).await {
        let gate = Gate::new();
        platform.model.script(Reply::text("one two three").hold_after(2, &gate));
        let id = start(&platform, "hi").await;
        let (path, bob) = (format!("/ws/executions/{id}"), platform.as_("bob"));
        let mut socket = platform.socket(&path, Some(platform.token("bob"))).await.unwrap();
        let running = until(&mut socket, |e| e["steps"][0]["status"] == "running").await;
        assert_eq!((&running["status"], &running["id"]), (&json!("running"), &json!(id)), "{}", platform.name());
        assert_eq!(running, bob.get(&format!("/executions/{id}")).await.1, "as GET shows it");
        // Held in the middle of its answer: what is new is the mark, and a second socket shows it at once.
        assert_eq!(bob.act(&format!("/executions/{id}/pause")).await.1["paused"], true);
        let mut second = platform.socket(&path, Some(platform.token("bob"))).await.unwrap();
        assert_eq!(next(&mut second).await.unwrap()["paused"], true);
        assert_eq!(bob.act(&format!("/executions/{id}/resume")).await.1["paused"], false);
        gate.open();
        for socket in [&mut socket, &mut second] {
            let last = until(socket, |e| e["status"] == "completed").await;
            assert_eq!(last["output"]["content"], "one two three");
            assert_eq!(next(socket).await, Err(1000), "{}", platform.name());
        }
        // One that has ended is told once.
        let mut late = platform.socket(&path, Some(platform.token("bob"))).await.unwrap();
        assert_eq!(next(&mut late).await.unwrap()["status"], "completed");
        assert_eq!(next(&mut late).await, Err(1000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deltas_are_no_frames() {
    for platform in each(|_| {}).await {
        let gate = Gate::new();
        let long = (0..500).map(|n| format!("w{n} ")).collect::<String>();
        platform.model.script(Reply::text(&long).hold_after(1, &gate));
        let id = start(&platform, "hi").await;
        let mut socket = platform.socket(&format!("/ws/executions/{id}"), Some(platform.token("bob"))).await.unwrap();
        until(&mut socket, |e| e["steps"][0]["status"] == "running").await;
        gate.open();
        let mut frames = 0;
        while next(&mut socket).await.is_ok() {
            frames += 1;
        }
        assert!((1..=5).contains(&frames), "{}: {frames} frames", platform.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_says_so_and_another_goes_on_from_what_is() {
    for mut platform in each(|_| {}).await {
        let gate = Gate::new();
        platform.model.script(Reply::text("one two three").hold_after(2, &gate));
        let id = start(&platform, "hi").await;
        let path = format!("/ws/executions/{id}");
        let mut socket = platform.socket(&path, Some(platform.token("bob"))).await.unwrap();
        until(&mut socket, |e| e["status"] == "running").await;
        platform.restart_api().await;
        let code = loop {
            if let Err(code) = next(&mut socket).await {
                break code;
            }
        };
        assert_eq!(code, 1001, "{}", platform.name());
        let mut again = platform.socket(&path, Some(platform.token("bob"))).await.unwrap();
        assert_eq!(next(&mut again).await.unwrap()["status"], "running");
        gate.open();
        until(&mut again, |e| e["status"] == "completed").await;
        assert_eq!(next(&mut again).await, Err(1000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_refused_before_it_is_opened_and_a_client_that_answers_no_pings_is_left() {
    for platform in each(|c| c.events.ping = Duration::from_millis(100)).await {
        let gate = Gate::new();
        platform.model.script(Reply::text("one two").hold_after(1, &gate));
        let id = start(&platform, "hi").await;
        let path = format!("/ws/executions/{id}");
        for (path, token, status) in [
            (path.as_str(), None, 401),
            (&path, Some("x"), 401),
            (&path, Some(platform.token("eve")), 404),
            ("/ws/executions/01900000-0000-7000-8000-000000000001", Some(platform.token("bob")), 404),
            ("/ws/executions/none", Some(platform.token("bob")), 404),
        ] {
            assert_eq!(platform.socket(path, token).await.err(), Some(status), "{}: {path}", platform.name());
        }
        // A plain request is no socket.
        let (status, refused) = platform.as_("bob").get(&path).await;
        assert!((400..500).contains(&status), "{status}: {refused}");
        // One that answers pings stays; what it says is nobody's business.
        let mut socket = platform.socket(&path, Some(platform.token("bob"))).await.unwrap();
        socket.send(Message::text("hello?")).await.unwrap();
        // Pings are answered by who reads on, which is not done with this one.
        let mut silent = platform.socket(&path, Some(platform.token("bob"))).await.unwrap();
        let mut pings = 0;
        let answered = async {
            while pings < 6 {
                match socket.next().await {
                    Some(Ok(Message::Ping(_))) => pings += 1,
                    Some(Ok(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        soon("six pings", answered).await;
        let left = async { while let Some(Ok(_)) = silent.next().await {} };
        soon("the end of the one that was silent", left).await;
        gate.open();
        until(&mut socket, |e| e["status"] == "completed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_signs_in_a_page_of_another_origin_has_to_bring_a_token() {
    for platform in each(|c| c.auth.mode = AuthMode::Open).await {
        let gate = Gate::new();
        platform.model.script(Reply::text("one two").hold_after(1, &gate));
        let nobody = platform.nobody();
        let ada = nobody.create("/agents", json!({ "name": "Ada" })).await["id"].clone();
        let (status, started) = nobody.post("/executions", json!({ "agent_id": ada, "input": "hi" })).await;
        assert_eq!(status, 202, "{}: {started}", platform.name());
        let path = format!("/ws/executions/{}", started["execution_id"].as_str().unwrap());
        for foreign in ["https://example.org", "null", "http://127.0.0.1:1"] {
            assert_eq!(platform.socket_of(&path, None, Some(foreign)).await.err(), Some(401), "{foreign}");
        }
        let own = format!("http://{}", platform.address());
        for origin in [None, Some(own.as_str())] {
            let mut socket = platform.socket_of(&path, None, origin).await.unwrap();
            assert_eq!(next(&mut socket).await.unwrap()["agent_id"], ada, "{origin:?}");
        }
        // A token is no page's own: it says whose the request is, and this one is not bob's.
        assert_eq!(platform.socket_of(&path, Some(platform.token("bob")), Some("https://example.org")).await.err(), Some(404));
        gate.open();
    }
}
