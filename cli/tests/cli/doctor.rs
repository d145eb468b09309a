use std::fs;

use runmill_testkit::{
    database::TestDatabase,
    http_server::{HttpServer, Response},
    s3_server::S3Server,
    services::RedisServer,
    whisper_model::{Script, write_scripted_model},
};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use super::{
    dev::address,
    process::{Done, Running, done, runmill},
};

const KEY: &str = "sk-a-key-that-is-never-shown";

/// What was found under a name; several findings may share it.
fn found(done: &Done, name: &str) -> Vec<(bool, String)> {
    let all: Vec<Value> = serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("{e}: {} {}", done.out, done.err));
    let named = all.iter().filter(|f| f["name"] == name);
    named
        .map(|f| (f["ok"] == true, format!("{} {}", f["detail"].as_str().unwrap(), f["mend"].as_str().unwrap_or_default())))
        .collect()
}

fn doctor(dir: &TempDir, settings: &[(&str, &str)]) -> Done {
    let mut command = runmill(dir, &["doctor", "--json"]);
    command.envs(settings.iter().copied());
    done(command)
}

#[test]
fn a_fresh_machine_is_well() {
    let dir = tempdir().unwrap();
    let well = done(runmill(&dir, &["doctor"]));
    assert_eq!(well.code, 0, "{}{}", well.out, well.err);
    assert!(well.out.contains("offline:scripted-demo"), "{}", well.out);
    assert!(well.out.lines().all(|line| line.starts_with('✓')), "{}", well.out);
}

#[test]
fn every_server_is_asked() {
    let dir = tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let redis = runtime.block_on(RedisServer::start()).unwrap();
    let s3 = S3Server::start();
    let model = HttpServer::start(|request| match request.header("authorization") {
        Some(key) if key == format!("Bearer {KEY}") => Response::json(200, &json!({ "data": [{ "id": "small-model" }] })),
        _ => Response::json(401, &json!({ "error": "no" })),
    });
    let url = format!("{}/v1", model.url);
    let settings = [
        ("RUNMILL_REDIS_URL", redis.url()),
        ("RUNMILL_S3_ENDPOINT", s3.endpoint.clone()),
        ("RUNMILL_S3_BUCKET", s3.bucket.clone()),
        ("AWS_ACCESS_KEY_ID", s3.access_key.clone()),
        ("AWS_SECRET_ACCESS_KEY", s3.secret_key.clone()),
        ("OPENAI_BASE_URL", url),
        ("OPENAI_API_KEY", KEY.to_owned()),
        ("RUNMILL_MODEL", "openai:small-model".to_owned()),
    ];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let well = doctor(&dir, &settings);
    assert_eq!(well.code, 0, "{}", well.out);
    assert!(found(&well, "redis")[0].1.contains("Redis 7"));
    assert!(found(&well, "attachments")[0].1.contains("the bucket attachments"));
    assert!(!found(&well, "model")[0].1.contains("not in its list"), "{}", well.out);
    assert_eq!(model.requests()[0].path, "/v1/models");

    // The same with everything a little wrong.
    runtime.block_on(redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])).unwrap();
    let wrong = [("AWS_SECRET_ACCESS_KEY", "of-somebody-else"), ("OPENAI_API_KEY", "sk-wrong")];
    let ill = doctor(&dir, &[settings, wrong.to_vec()].concat());
    assert_eq!(ill.code, 1);
    for (name, mend) in [("attachments", "AWS_"), ("model", "OPENAI_API_KEY"), ("redis", "noeviction")] {
        assert!(found(&ill, name).iter().any(|(ok, text)| !ok && text.contains(mend)), "{name}: {}", ill.out);
    }
    for output in [&well, &ill] {
        assert!(!output.out.contains("sk-") && !output.err.contains("sk-"), "a key was shown");
    }
}

#[test]
fn what_is_away_is_named_with_what_to_do() {
    let dir = tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("data/model.bin"), b"lmgg, but not much more").unwrap();
    let ill = doctor(
        &dir,
        &[
            ("RUNMILL_DATABASE_URL", "postgres://runmill:secret-word@127.0.0.1:1/runmill"),
            ("RUNMILL_REDIS_URL", "redis://127.0.0.1:1"),
            ("RUNMILL_MODEL", "openai:any"),
            ("OPENAI_BASE_URL", "http://127.0.0.1:1/v1"),
            ("RUNMILL_WHISPER_MODEL", "data/model.bin"),
            ("RUNMILL_OPS_ADDR", &taken.local_addr().unwrap().to_string()),
        ],
    );
    assert_eq!(ill.code, 1);
    for (name, mend) in [
        ("database", "RUNMILL_DATABASE_URL"),
        ("redis", "RUNMILL_REDIS_URL"),
        ("model", "OPENAI_BASE_URL"),
        ("transcription", "runmill models pull"),
        ("ops", "RUNMILL_OPS_ADDR"),
    ] {
        let all = found(&ill, name);
        assert!(all.iter().any(|(ok, text)| !ok && text.contains(mend)), "{name}: {all:?}");
    }
    assert!(found(&ill, "database")[0].1.contains("refused"), "{}", ill.out);
    assert!(found(&ill, "platform")[0].0);
    assert!(!ill.out.contains("secret-word"));
}

/// With a Postgres server, where `make test` has started one.
#[test]
fn postgres_its_schema_and_its_clock_are_asked() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(database) = runtime.block_on(TestDatabase::postgres_from_env()) else { return };
    let dir = tempdir().unwrap();
    let config = database.config();
    let well = doctor(&dir, &[("RUNMILL_DATABASE_URL", config.database.url.expose())]);
    assert_eq!(well.code, 0, "{}", well.out);
    assert!(found(&well, "database")[0].1.contains("Postgres 1"), "{}", well.out);
    assert!(found(&well, "schema")[0].1.contains("up to date") && found(&well, "clock")[0].0, "{}", well.out);
}

#[test]
fn bad_settings_are_a_finding_too() {
    let dir = tempdir().unwrap();
    let ill = doctor(&dir, &[("RUNMILL_AUTH", "required")]);
    assert_eq!(ill.code, 1);
    assert!(found(&ill, "settings")[0].1.contains("RUNMILL_JWT_SECRET"), "{}", ill.out);
}

#[test]
fn addresses_of_a_running_runmill_and_its_whole_model_are_well() {
    let dir = tempdir().unwrap();
    let model = dir.path().join("model.bin");
    write_scripted_model(&model, &Script { language: "en", segments: vec![(0.0, 2.0, "hello")] }).unwrap();
    let mut server = Running::start(&mut runmill(&dir, &[]));
    let banner = server.until("/events");
    let (platform, ops) = (address(&banner, "API"), address(&banner, "Operators"));
    let settings = [
        ("RUNMILL_PLATFORM_ADDR", platform.as_str()),
        ("RUNMILL_OPS_ADDR", &ops),
        ("RUNMILL_WHISPER_MODEL", model.to_str().unwrap()),
    ];
    let well = doctor(&dir, &settings);
    assert_eq!(well.code, 0, "{}", well.out);
    for name in ["platform", "ops"] {
        assert!(found(&well, name)[0].1.contains("running there"), "{}", well.out);
    }
    assert!(found(&well, "transcription")[0].1.contains("whole model"), "{}", well.out);
    assert!(found(&well, "schema")[0].1.contains("up to date"), "{}", well.out);
    server.signal("-TERM");
    assert_eq!(server.wait().code, 0);
}
