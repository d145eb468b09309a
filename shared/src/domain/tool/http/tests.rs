use super::*;

fn tool(config: Value) -> HttpTool {
    HttpTool::parse(&config, &json!({ "type": "object" })).unwrap()
}

fn bad(config: Value) -> Vec<String> {
    let schema = json!({ "type": "object", "properties": { "a": {} }, "additionalProperties": false });
    let mut fields: Vec<_> = HttpTool::parse(&config, &schema).unwrap_err().into_iter().map(|f| f.field).collect();
    fields.sort();
    fields
}

#[test]
fn every_bad_field_is_named() {
    let shape = json!({ "method": "FETCH", "headers": { "a": 1 }, "auth": { "type": "basic", "secret": "a b" }, "timeout_ms": 0, "more": 1 });
    let expected = [
        "config",
        "config.auth.secret",
        "config.auth.username",
        "config.headers.a",
        "config.method",
        "config.timeout_ms",
        "config.url",
    ];
    assert_eq!(bad(shape), expected);
    let contents = json!({
        "url": "ftp://x/{{ b }}", "headers": { "Host": "x", "b d": "{{ a", "Authorization": "x" }, "query": { "q": "{{ c }}" },
        "body": { "deep": ["{% x %}"] }, "auth": { "type": "bearer", "secret": "KEY" },
    });
    let expected = [
        "config.body",
        "config.body.deep.0",
        "config.headers.Authorization",
        "config.headers.Host",
        "config.headers.b d",
        "config.headers.b d",
        "config.query.q",
        "config.url",
        "config.url",
        "config.url",
    ];
    assert_eq!(bad(contents), expected);
    for url in ["http://", "http://user:pass@x/", "x.test/a", "http://[::1/"] {
        assert_eq!(bad(json!({ "url": url })), ["config.url"], "{url}");
    }
}

#[test]
fn a_secret_goes_to_a_host_that_no_argument_names() {
    let auth = json!({ "type": "bearer", "secret": "KEY" });
    for url in ["{{ a }}", "https://{{ a }}/x", "https://api.{{ a }}.test/x", "https://x.test:{{ a }}/"] {
        assert_eq!(bad(json!({ "url": url, "auth": auth })), ["config.url"], "{url}");
        assert!(HttpTool::parse(&json!({ "url": url }), &json!({})).is_ok(), "{url}");
    }
    for url in ["https://x.test/{{ a }}", "https://x.test?q={{ a }}", "https://x.test"] {
        assert!(HttpTool::parse(&json!({ "url": url, "auth": auth }), &json!({})).is_ok(), "{url}");
    }
}

#[test]
fn a_call_becomes_a_request() {
    let made = tool(json!({
        "method": "POST", "url": "https://x.test/v1/{{ user.id }}/notes?sort=a", "headers": { "X-Trace": "t-{{ n }}", "X-Optional": "{{ nothing }}" },
        "query": { "q": "{{ q }}", "limit": 5, "left_out": "{{ nothing }}" },
        "body": { "text": "{{ q }}", "n": "{{ n }}", "tags": ["{{ q }}!", "{{ nothing }}"], "fixed": true, "left_out": "{{ nothing }}" },
    }));
    let request = made.request(&json!({ "user": { "id": "a/b" }, "n": 3, "q": "x & \"y\"" })).unwrap();
    assert_eq!(request.url.as_str(), "https://x.test/v1/a%2Fb/notes?sort=a&limit=5&q=x+%26+%22y%22");
    let headers = [("x-trace", "t-3"), ("content-type", JSON)].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(request.headers, headers);
    let body: Value = serde_json::from_str(&request.body.unwrap()).unwrap();
    assert_eq!(body, json!({ "text": "x & \"y\"", "n": 3, "tags": ["x & \"y\"!", null], "fixed": true }));
}

#[test]
fn a_body_of_text_is_written_as_its_type_wants_it() {
    let body = |content_type: Value, body: &str| {
        let made = tool(json!({ "method": "POST", "url": "http://x.test", "headers": content_type, "body": body }));
        made.request(&json!({ "q": "a\"b&c" })).unwrap()
    };
    let json_body = body(json!({}), "{\"q\": \"{{q}}\", \"r\": {{q}}}");
    assert_eq!(json_body.body.as_deref(), Some("{\"q\": \"a\\\"b&c\", \"r\": \"a\\\"b&c\"}"));
    assert_eq!(json_body.headers, [("content-type".to_owned(), JSON.to_owned())]);
    assert_eq!(body(json!({ "Content-Type": FORM }), "q={{q}}").body.as_deref(), Some("q=a%22b%26c"));
    assert_eq!(body(json!({ "content-type": "text/plain" }), "{{q}}").body.as_deref(), Some("a\"b&c"));
}

#[test]
fn arguments_do_not_lead_elsewhere() {
    let made = tool(json!({ "url": "https://x.test/users/{{ id }}/public", "headers": { "x": "{{ id }}" } }));
    for id in ["..", ".", "%2e%2e"] {
        let outcome = made.request(&json!({ "id": id }));
        assert!(
            outcome.is_err() || outcome.as_ref().is_ok_and(|r| r.url.path() == "/users/%252e%252e/public"),
            "{id}: {outcome:?}"
        );
    }
    assert!(made.request(&json!({ "id": "a\r\nx: y" })).is_err());
    assert_eq!(
        made.request(&json!({ "id": "../admin?x#y" })).unwrap().url.as_str(),
        "https://x.test/users/..%2Fadmin%3Fx%23y/public"
    );
    let host = tool(json!({ "url": "https://{{ host }}/x" }));
    assert_eq!(host.request(&json!({ "host": "a.test" })).unwrap().url.as_str(), "https://a.test/x");
    assert!(host.request(&json!({ "host": "a.test/evil?" })).is_err());
    assert!(
        host.request(&json!({ "host": "user@evil.test" })).is_err_and(|e| e.contains("url")) || {
            let url = host.request(&json!({ "host": "user@evil.test" })).unwrap().url;
            url.username().is_empty()
        }
    );
}

#[test]
fn a_path_finds_its_place_in_the_answer() {
    let answer = json!({ "data": { "items": [{ "a/b": 1 }, { "n": 2 }] } });
    let result = |path: &str| tool(json!({ "url": "http://x.test", "response_path": path })).result(answer.clone());
    assert_eq!(result("/data/items/0/a~1b"), Some(json!(1)));
    for path in ["data.items.1.n", "$.data.items[1].n"] {
        assert_eq!(result(path), Some(json!(2)), "{path}");
    }
    assert_eq!(result("data.nothing"), None);
    assert_eq!(result("$"), Some(answer.clone()));
    assert_eq!(tool(json!({ "url": "http://x.test" })).result(answer.clone()), Some(answer));
}
