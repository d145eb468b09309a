//! Addresses that users name.
use runmill_shared::domain::model::{Provider, Target};
use runmill_testkit::{
    http_server::{HttpServer, Response},
    model_server::ModelServer,
};
use runmill_worker::models::{self, ModelErrorKind as K};

use crate::{DEADLINE, ask, config, model_of, run, target};

fn guarded(base_url: &str) -> Target {
    Target { guarded: true, ..target(Provider::Openai, base_url) }
}

#[tokio::test]
async fn a_private_address_is_refused_before_anything_is_sent() {
    let server = ModelServer::start().await.unwrap();
    let refused = models::model(&config(DEADLINE), &guarded(&server.base_url())).err().unwrap();
    assert_eq!(refused.code, "BLOCKED_ADDRESS");
    assert_eq!(server.counts().received, 0);
}

#[tokio::test]
async fn a_name_that_resolves_to_one_is_refused_where_it_is_resolved() {
    // A name of this machine whose address is loopback, whatever else it is called.
    let name = std::fs::read_to_string("/etc/hosts").unwrap();
    let lines = name.lines().filter(|line| line.starts_with("127.") || line.starts_with("::1"));
    let own =
        lines.flat_map(|line| line.split_whitespace().skip(1)).find(|name| *name != "localhost" && !name.ends_with(".localhost"));
    let Some(own) = own else { return };
    let model = model_of(&config(DEADLINE), &guarded(&format!("http://{own}:9/v1")));
    let error = run(&*model, &ask("hi")).await.1.unwrap_err();
    assert_eq!((error.kind, error.kind.code(), error.retryable()), (K::Blocked, "BLOCKED_ADDRESS", false));
}

#[tokio::test]
async fn the_operator_can_list_one_and_redirects_are_not_followed() {
    let server = ModelServer::start().await.unwrap();
    let host = server.base_url().replace("http://", "").replace("/v1", "");
    let to = server.base_url();
    let elsewhere = HttpServer::start(move |_| Response::new(307, "").with("location", format!("{to}/chat/completions")));
    let mut config = config(DEADLINE);
    config.security.allow_private_hosts = vec![host, elsewhere.url.replace("http://", "")];
    let answer = run(&*model_of(&config, &guarded(&server.base_url())), &ask("hi")).await.1.unwrap();
    assert_eq!(answer.message_text, "ok");
    let error = run(&*model_of(&config, &guarded(&elsewhere.url)), &ask("hi")).await.1.unwrap_err();
    assert_eq!(error.kind, K::InvalidRequest);
    assert_eq!((server.counts().received, elsewhere.requests().len()), (1, 1));
}
