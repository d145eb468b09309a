use futures::future::join_all;
use runmill_shared::{
    services::agents,
    store::db::{Sql, query},
};
use runmill_testkit::model_server::{Gate, Reply};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{TestPlatform, each};

fn full() -> Value {
    json!({
        "name": "Helper", "description": "Helps.", "system_prompt": "You help.",
        "model_config": { "provider": "openai", "model_name": "deepseek-v4-pro", "temperature": 0.8 },
        "iteration_limit": 15, "include_tools": ["now", "calculator"], "approval_tools": ["calculator"],
        "workflow_config": {
            "nodes": [{ "id": "start", "type": "start", "label": "Start" }, { "id": "agent", "type": "agent" }, { "id": "end", "type": "end" }],
            "edges": [{ "source": "start", "target": "agent" }, { "source": "agent", "target": "end" }], "zoom": 1.5,
        },
        "output_schema": { "type": "object", "properties": { "answer": { "type": "string" } } },
        "budget": { "max_tokens": 1000, "max_cost_micros": 50_000, "max_seconds": 60 },
        "memory": { "recall": true, "extract": false },
    })
}

async fn made(platform: &TestPlatform, name: &str, body: Value) -> Value {
    platform.as_(name).create("/agents", body).await
}

fn path(agent: &Value, rest: &str) -> String {
    format!("/agents/{}{rest}", agent["id"].as_str().unwrap())
}

fn fields(refused: &(u16, Value)) -> Vec<&str> {
    assert_eq!((refused.0, &refused.1["error"]), (422, &json!("VALIDATION_ERROR")), "{}", refused.1);
    refused.1["details"].as_array().unwrap().iter().map(|d| d["field"].as_str().unwrap()).collect()
}

fn code(refused: &(u16, Value)) -> (u16, &str) {
    (refused.0, refused.1["error"].as_str().unwrap_or_default())
}

fn names(list: &(u16, Value)) -> Vec<&str> {
    assert_eq!(list.0, 200, "{}", list.1);
    list.1["items"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_what_was_sent_and_a_draft() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let agent = made(&platform, "bob", full()).await;
        for (field, value) in full().as_object().unwrap() {
            let mut sent = value.clone();
            if field == "model_config" {
                sent["fallbacks"] = json!([]);
            }
            assert_eq!(agent[field], sent, "{field}");
        }
        let (_, me) = bob.get("/auth/me").await;
        assert_eq!(agent["owner"], me["id"]);
        assert_eq!((&agent["status"], &agent["version"], &agent["is_main"]), (&json!("draft"), &json!(1), &json!(false)));
        assert_eq!(bob.get(&path(&agent, "")).await, (200, agent.clone()));
        let plain = made(&platform, "bob", json!({ "name": " Plain " })).await;
        let defaults = (&plain["name"], &plain["iteration_limit"], &plain["include_tools"], &plain["memory"]["recall"]);
        assert_eq!(defaults, (&json!("Plain"), &json!(15), &json!([]), &json!(false)));
        assert_eq!(names(&bob.get("/agents").await), ["Plain", "Helper"]);
        assert!(names(&platform.as_("ann").get("/agents").await).is_empty());
        assert_eq!(code(&platform.as_("ann").get(&path(&agent, "")).await), (404, "AGENT_NOT_FOUND"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_field_is_named() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let shape = json!({ "name": "", "iteration_limit": 101, "include_tools": "now", "model_config": { "temperature": 3, "max_tokens": "x" } });
        let mut named = bob.post("/agents", shape).await;
        named.1["details"].as_array_mut().unwrap().sort_by_key(|d| d["field"].to_string());
        assert_eq!(
            fields(&named),
            ["include_tools", "iteration_limit", "model_config.max_tokens", "model_config.temperature", "name"]
        );
        let rules = json!({ "name": "x", "include_tools": ["now", "nothing"], "approval_tools": ["wait"],
            "model_config": { "provider": "nobody" }, "output_schema": { "type": "wrong" },
            "workflow_config": { "nodes": [{ "id": "a", "type": "agent" }], "edges": [{ "source": "a", "target": "b" }] } });
        let named = [
            "model_config.provider",
            "model_config.model_name",
            "approval_tools.0",
            "workflow_config.edges.0.target",
            "output_schema",
            "include_tools.1",
        ];
        assert_eq!(fields(&bob.post("/agents", rules.clone()).await), named);
        let imported = json!({ "format": "runmill.agent", "format_version": 1, "agent": rules });
        assert_eq!(fields(&bob.post("/agents/import", imported).await), named.map(|field| format!("agent.{field}")));
        let foreign = json!({ "format": "other", "format_version": 2, "agent": { "name": "x", "iteration_limit": 0 } });
        let mut named = bob.post("/agents/import", foreign).await;
        named.1["details"].as_array_mut().unwrap().sort_by_key(|d| d["field"].to_string());
        assert_eq!(fields(&named), ["agent.iteration_limit", "format", "format_version"]);
        let unknown = json!({ "name": "x", "model_config": { "model_config_id": Uuid::nil() } });
        assert_eq!(code(&bob.post("/agents", unknown).await), (404, "MODEL_CONFIG_NOT_FOUND"));
        let empty = bob.absolute("POST", "/api/v1/agents", None).await;
        assert_eq!(code(&empty), (400, "MALFORMED"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_changes_what_it_names_and_adds_a_version() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let agent = made(&platform, "bob", full()).await;
        let at = path(&agent, "");
        let patch = json!({ "system_prompt": "You help better.", "model_config": { "temperature": 0.1 }, "output_schema": null, "version": 1 });
        let (status, second) = bob.put(&at, patch.clone()).await;
        assert_eq!((status, &second["version"]), (200, &json!(2)), "{second}");
        assert_eq!(second["model_config"]["model_name"], "deepseek-v4-pro", "what is left out stays");
        assert_eq!((&second["model_config"]["temperature"], second.get("output_schema")), (&json!(0.1), None));
        for same in ["name", "description", "include_tools", "workflow_config", "budget", "memory", "status", "created_at"] {
            assert_eq!(second[same], agent[same], "{same}");
        }
        assert_eq!(code(&bob.put(&at, patch).await), (409, "VERSION_CONFLICT"));
        assert_eq!(fields(&bob.put(&at, json!({ "iteration_limit": 0, "name": "" })).await).len(), 2);
        assert_eq!(bob.get(&at).await, (200, second), "what was refused has changed nothing");
        let version = async |v| agents::of_run(&platform.app, agent["id"].as_str(), v).await.unwrap().definition.system_prompt;
        assert_eq!((version(1).await, version(2).await), ("You help.".into(), "You help better.".into()));

        let puts = join_all((0..8).map(|n| {
            let (bob, at) = (platform.as_("bob"), at.clone());
            async move { bob.put(&at, json!({ "description": format!("{n}"), "version": 2 })).await.0 }
        }));
        let mut outcomes = puts.await;
        outcomes.sort_unstable();
        assert_eq!(
            outcomes,
            [[200].as_slice(), &[409; 7]].concat(),
            "{}: one of those who read the same version wins",
            platform.name()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_others_read_and_run_and_do_not_change() {
    for platform in each(|_| {}).await {
        let (bob, eve) = (platform.as_("bob"), platform.as_("eve"));
        let agent = made(&platform, "bob", json!({ "name": "Shared", "system_prompt": "Shared." })).await;
        assert_eq!(code(&bob.act(&path(&agent, "/stop")).await), (409, "AGENT_STATE"));
        let (status, deployed) = bob.act(&path(&agent, "/deploy")).await;
        assert_eq!((status, &deployed["status"]), (200, &json!("published")));
        let again = bob.act(&path(&agent, "/deploy")).await;
        assert!(
            code(&again) == (409, "AGENT_STATE") && again.1["message"].as_str().unwrap().contains("is published"),
            "{again:?}"
        );

        assert_eq!(eve.get(&path(&agent, "")).await, (200, deployed.clone()));
        assert_eq!(names(&eve.get("/agents").await), ["Shared"]);
        assert_eq!(eve.put(&path(&agent, ""), json!({ "name": "Mine" })).await.0, 403);
        assert_eq!(eve.delete(&path(&agent, "")).await.0, 403);
        for action in ["/deploy", "/stop", "/create-main-agent"] {
            assert_eq!(eve.act(&path(&agent, action)).await.0, 403, "{action}");
        }
        platform.converse("eve", "s", "m1", json!({ "agentId": agent["id"] })).await;

        let gate = Gate::new();
        platform.model.script(Reply::text("late").hold_until(&gate));
        let running = platform.say("eve", "s", "m2", json!({ "agentId": agent["id"] })).await;
        platform.model.until(|counts| counts.open == 1).await.unwrap();
        assert_eq!(bob.act(&path(&agent, "/stop")).await.1["status"], "stopped");
        let said = json!({ "id": "m3", "role": "user", "content": "hi" });
        let run = json!({ "threadId": "s", "runId": "r3", "messages": [said], "forwardedProps": { "agentId": agent["id"] } });
        assert_eq!(eve.post("/agent/runs", run).await.0, 409, "it is stopped");
        gate.open();
        assert_eq!(platform.ended("eve", running).await["status"], "succeeded", "what was under way goes on");
        assert!(names(&eve.get("/agents").await).is_empty());
        assert_eq!(bob.act(&path(&agent, "/deploy")).await.0, 200);
        assert_eq!(platform.as_("ann").delete(&path(&agent, "")).await.0, 204, "an administrator may");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_deleted_once_its_runs_have_ended() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let agent = made(&platform, "bob", full()).await;
        let gate = Gate::new();
        platform.model.script(Reply::text("late").hold_until(&gate));
        let running = platform.say("bob", "s", "m", json!({ "agentId": agent["id"] })).await;
        platform.model.until(|counts| counts.open == 1).await.unwrap();
        assert_eq!(code(&bob.delete(&path(&agent, "")).await), (409, "AGENT_BUSY"));
        gate.open();
        platform.ended("bob", running).await;
        assert_eq!(bob.delete(&path(&agent, "")).await, (204, Value::Null));
        assert_eq!(code(&bob.delete(&path(&agent, "")).await), (404, "AGENT_NOT_FOUND"));
        assert!(agents::of_run(&platform.app, agent["id"].as_str(), 1).await.is_err(), "its versions are gone too");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn export_and_import_are_each_others_way_back() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let agent = made(&platform, "bob", full()).await;
        let (status, exported) = bob.get(&path(&agent, "/export")).await;
        assert_eq!(status, 200);
        let imported = bob.create("/agents/import", exported.clone()).await;
        assert_ne!(imported["id"], agent["id"]);
        let request = |agent: &Value| bob.request(reqwest::Method::GET, &path(agent, "/export"));
        let (first, second) = (request(&agent).send().await.unwrap(), request(&imported).send().await.unwrap());
        assert_eq!(first.bytes().await.unwrap(), second.bytes().await.unwrap(), "{}: byte for byte", platform.name());
        bob.act(&path(&agent, "/deploy")).await;
        let theirs =
            platform.as_("eve").create("/agents/import", platform.as_("eve").get(&path(&agent, "/export")).await.1).await;
        assert_eq!(
            (&theirs["status"], &theirs["version"], &theirs["workflow_config"]),
            (&json!("draft"), &json!(1), &agent["workflow_config"])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_a_draft_of_its_own() {
    for platform in each(|_| {}).await {
        let (bob, eve) = (platform.as_("bob"), platform.as_("eve"));
        let agent = made(&platform, "bob", full()).await;
        assert_eq!(bob.act(&path(&agent, "/create-main-agent")).await.1["is_main"], true);
        assert_eq!(bob.act(&path(&agent, "/deploy")).await.0, 200);
        for (user, session) in [("bob", &bob), ("eve", &eve)] {
            let (status, copy) = session.act(&path(&agent, "/duplicate")).await;
            assert_eq!((status, &copy["name"]), (201, &json!("Helper (copy)")), "{copy}");
            assert_eq!(
                (&copy["status"], &copy["is_main"], &copy["version"]),
                (&json!("draft"), &json!(false), &json!(1)),
                "{user}"
            );
            for same in ["system_prompt", "model_config", "workflow_config", "include_tools", "budget"] {
                assert_eq!(copy[same], agent[same], "{same}");
            }
            assert_eq!(session.put(&path(&copy, ""), json!({ "name": "Changed" })).await.0, 200);
        }
        assert_eq!(bob.get(&path(&agent, "")).await.1["name"], "Helper", "the copies are their own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_is_the_main_one_and_answers_whoever_names_none() {
    for platform in each(|_| {}).await {
        let mut all = Vec::new();
        for n in 0..6 {
            all.push(
                made(&platform, "bob", json!({ "name": format!("{n}"), "system_prompt": format!("I am number {n}.") })).await,
            );
        }
        let promoted = join_all(all.iter().map(|agent| {
            let (bob, at) = (platform.as_("bob"), path(agent, "/create-main-agent"));
            async move { bob.act(&at).await.0 }
        }));
        assert_eq!(promoted.await, [200; 6], "{}", platform.name());
        let (_, list) = platform.as_("bob").get("/agents").await;
        let main: Vec<_> = list["items"].as_array().unwrap().iter().filter(|a| a["is_main"] == true).collect();
        assert_eq!(main.len(), 1, "{}", platform.name());
        platform.converse("bob", "s", "m1", Value::Null).await;
        let system = platform.model.requests().last().unwrap().last("system");
        assert!(system.contains(main[0]["system_prompt"].as_str().unwrap()), "{system}");
        platform.converse("eve", "s", "m1", Value::Null).await;
        let system = platform.model.requests().last().unwrap().last("system");
        assert!(!system.contains("I am number"), "eve has none: the first of the settings answers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_searched_filtered_sorted_and_cut() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        for (name, description) in [("beta", "50% off"), ("Alpha", "a helper"), ("gamma", "BETA too")] {
            made(&platform, "bob", json!({ "name": name, "description": description })).await;
        }
        let list = async |query: &str| bob.get(&format!("/agents?{query}")).await;
        assert_eq!(names(&list("sort=name").await), ["Alpha", "beta", "gamma"], "{}", platform.name());
        assert_eq!(names(&list("sort=-name").await), ["gamma", "beta", "Alpha"]);
        assert_eq!(names(&list("sort=created_at").await), ["beta", "Alpha", "gamma"]);
        assert_eq!(names(&list("search=beta&sort=name").await), ["beta", "gamma"]);
        assert_eq!(names(&list("search=50%25").await), ["beta"]);
        assert_eq!(names(&list("search=_").await), Vec::<&str>::new());
        assert_eq!(names(&list("status=published").await), Vec::<&str>::new());
        let (_, page) = list("sort=name&page=2&page_size=2").await;
        assert_eq!((&page["total"], &page["page"], &page["page_size"]), (&json!(3), &json!(2), &json!(2)));
        assert_eq!(page["items"].as_array().unwrap().len(), 1);
        assert_eq!(fields(&list("page=0&page_size=1000").await), ["page", "page_size"]);
        assert_eq!(fields(&list("status=gone&sort=colour").await), ["status", "sort"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preview_is_each_users_own_conversation() {
    for platform in each(|_| {}).await {
        let agent = made(&platform, "bob", json!({ "name": "Tried out" })).await;
        let at = path(&agent, "/preview-chat-history");
        let bob = platform.as_("bob");
        assert_eq!(bob.get(&at).await.1["total"], 0);
        let session = agents::preview_thread(agent["id"].as_str().unwrap().parse().unwrap());
        platform.model.script(Reply::text("At your service."));
        platform.converse("bob", &session, "m1", json!({ "agentId": agent["id"] })).await;
        let (status, history) = bob.get(&at).await;
        assert_eq!((status, &history["total"]), (200, &json!(2)), "{history}");
        let said = |n: usize| (history["items"][n]["role"].clone(), history["items"][n]["content"].clone());
        assert_eq!(said(0), (json!("user"), json!("text of m1")));
        assert_eq!(said(1), (json!("assistant"), json!("At your service.")));
        assert_eq!(bob.act(&path(&agent, "/deploy")).await.0, 200);
        assert_eq!(platform.as_("eve").get(&at).await.1["total"], 0, "hers is another one");
        assert_eq!(platform.as_("eve").get(&format!("/agents/{}/preview-chat-history", Uuid::nil())).await.0, 404);
    }
}

/// What a custom tool and a plugin bring can be named by who has them, and by nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn tools_of_ones_own_can_be_included() {
    for platform in each(|_| {}).await {
        let owner = platform.as_("bob").get("/auth/me").await.1["id"].as_str().unwrap().to_owned();
        let mut tx = platform.app.db.begin().await.unwrap();
        let insert = "INSERT INTO tools (id, owner, plugin_id, name, description, type, category, input_schema, config, version, created_at, updated_at)
             VALUES ($1, $2, $3, $4, '', 'http', 'custom', '{}', '{}', 1, 0, 0)";
        let plugin = Uuid::from_u128(7);
        let new_plugin = "INSERT INTO plugins (id, owner, name, description, source, is_public, version, created_at, updated_at)
             VALUES ($1, 'somebody', 'p', '', '{}', TRUE, 1, 0, 0)";
        query(Sql::both(new_plugin)).bind(plugin).execute(&mut tx).await.unwrap();
        let install = "INSERT INTO plugin_installs (plugin_id, owner, enabled, created_at) VALUES ($1, $2, TRUE, 0)";
        query(Sql::both(install)).bind(plugin).bind(&owner).execute(&mut tx).await.unwrap();
        for (id, owner, plugin, name) in
            [(1, owner.as_str(), None, "weather"), (2, "somebody", Some(plugin), "p_search"), (3, "somebody", None, "secret")]
        {
            query(Sql::both(insert))
                .bind(Uuid::from_u128(id))
                .bind(owner)
                .bind(plugin)
                .bind(name)
                .execute(&mut tx)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        let include = |names: &[&str]| json!({ "name": "x", "include_tools": names });
        made(&platform, "bob", include(&["weather", "p_search", "now"])).await;
        assert_eq!(fields(&platform.as_("bob").post("/agents", include(&["secret", "weather"])).await), ["include_tools.0"]);
        assert_eq!(fields(&platform.as_("eve").post("/agents", include(&["p_search", "weather"])).await).len(), 2);
        let shared = made(&platform, "bob", include(&["weather", "now"])).await;
        assert_eq!(platform.as_("bob").act(&path(&shared, "/deploy")).await.0, 200);
        let (_, copy) = platform.as_("eve").act(&path(&shared, "/duplicate")).await;
        assert_eq!(copy["include_tools"], json!(["now"]), "what only its owner has stays with them");
    }
}
