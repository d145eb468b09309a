//! Other servers: Redis, the object store, the model's endpoint.
use std::error::Error as _;

use reqwest::StatusCode;
use runmill_shared::{blobs::Blobs, config::Config, queue::Queue, services::models};
use serde_json::Value;

use super::Finding;
use crate::failure::explain;

const OLDEST_REDIS: u32 = 7;

pub async fn redis(config: &Config) -> Vec<Finding> {
    if config.redis.url.is_empty() {
        return vec![Finding::good("redis", "not used: queue and live events stay in the process")];
    }
    let asked = async { Queue::connect(&config.redis).await?.info().await };
    match asked.await {
        Ok(info) => redis_server(&info.unwrap_or_default()),
        Err(error) => {
            let mend = "see whether Redis runs, and whether host and password in RUNMILL_REDIS_URL are right";
            vec![Finding::bad("redis", explain(&error), mend)]
        }
    }
}

fn redis_server(info: &str) -> Vec<Finding> {
    let value = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap_or("unknown").trim();
    let (version, policy) = (value("redis_version"), value("maxmemory_policy"));
    let major = version.split('.').next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    let mut found = vec![if major >= OLDEST_REDIS {
        Finding::good("redis", format!("Redis {version}"))
    } else {
        Finding::bad(
            "redis",
            format!("Redis {version}"),
            format!("install Redis {OLDEST_REDIS} or newer: the queue needs BZMPOP"),
        )
    }];
    if policy != "noeviction" {
        let detail = format!("maxmemory-policy is {policy}: a full Redis throws the queue away without a word");
        found.push(Finding::bad(
            "redis",
            detail,
            "run: redis-cli config set maxmemory-policy noeviction (and set it in redis.conf)",
        ));
    }
    found
}

pub async fn blobs(config: &Config) -> Vec<Finding> {
    let place = match config.blobs.bucket.as_str() {
        "" => config.data_dir.join("blobs").display().to_string(),
        bucket => format!("the bucket {bucket}"),
    };
    // The signing key is for URLs, which are not asked for here.
    let checked = async { Blobs::open(config, &[0; 32]).await?.check().await };
    vec![match checked.await {
        Ok(()) => Finding::good("attachments", format!("{place}: written, read and deleted")),
        Err(error) if config.blobs.bucket.is_empty() => {
            Finding::bad("attachments", format!("{place}: {}", explain(&error)), "give this user the directory")
        }
        Err(error) => {
            let mend = "see whether the bucket is there, and whether RUNMILL_S3_ENDPOINT and the AWS_ keys are right";
            Finding::bad("attachments", format!("{place}: {}", explain(&error)), mend)
        }
    }]
}

/// Asks for the list of models, which costs nothing. The key goes nowhere else, and into no message.
pub async fn model(config: &Config) -> Vec<Finding> {
    let spec = config.default_model();
    let target = models::of_settings(config, &spec);
    if let Err(error) = target.and_then(|target| runmill_worker::models::model(config, &target)) {
        return vec![Finding::bad("model", explain(&error), "set RUNMILL_MODEL to provider:name, and the key of that provider")];
    }
    let Some(name) = spec.strip_prefix("openai:") else {
        let detail = format!("{spec}: scripted answers; OPENAI_API_KEY and OPENAI_BASE_URL name a real one");
        return vec![Finding::good("model", if spec.starts_with("offline:") { detail } else { spec })];
    };
    let base = config.models.openai_base_url.trim_end_matches('/');
    let mut request = reqwest::Client::new().get(format!("{base}/models"));
    if !config.models.openai_api_key.is_empty() {
        request = request.bearer_auth(config.models.openai_api_key.expose());
    }
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => {
            let reason = error.source().map_or_else(|| error.to_string(), |cause| innermost(cause).to_string());
            let detail = format!("{spec}: {base} does not answer: {reason}");
            return vec![Finding::bad("model", detail, "see whether OPENAI_BASE_URL is right and can be reached from here")];
        }
    };
    let status = answer.status();
    let listed: Value = answer.json().await.unwrap_or_default();
    vec![verdict(&spec, name, base, status, &listed)]
}

fn innermost<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}

fn verdict(spec: &str, name: &str, base: &str, status: StatusCode, listed: &Value) -> Finding {
    let said = format!("{spec}: {base} answered {status}");
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Finding::bad("model", said, "the key is missing or wrong: set OPENAI_API_KEY")
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Finding::good("model", format!("{spec}: {base} answers, and has no list of models"))
        }
        _ if !status.is_success() => Finding::bad("model", said, "see what that server says; OPENAI_BASE_URL names it"),
        _ => {
            let known = listed["data"].as_array().is_some_and(|all| all.iter().any(|model| model["id"] == name));
            let known = if known { "" } else { ", though it is not in its list of models" };
            Finding::good("model", format!("{spec} at {base}{known}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_redis_and_one_that_evicts_are_named() {
        let lines = |info: &str| redis_server(info).iter().map(|f| (f.ok, f.detail.clone())).collect::<Vec<_>>();
        let good = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!(lines(good), [(true, "Redis 7.0.15".to_owned())]);
        let bad = lines("redis_version:6.2.1\r\nmaxmemory_policy:allkeys-lru\r\n");
        assert_eq!((bad[0].0, bad[1].0), (false, false));
        assert!(bad[1].1.contains("allkeys-lru"));
    }
}
