//! OpenAPI documents of plugins, as JSON or YAML: the tools that they become.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runmill_fuzz::{app, runtime};
use runmill_shared::domain::{plugin::Openapi, tool::schema};
use runmill_worker::plugins::openapi;
use serde_json::Value;

fuzz_target!(|document: &[u8]| {
    let Ok(document) = std::str::from_utf8(document) else { return };
    let source = Openapi {
        document: Some(Value::from(document)),
        url: None,
        base_url: Some("https://api.example.com".to_owned()),
        include: None,
        auth: None,
    };
    let Ok(tools) = runtime().block_on(openapi::tools(app(), &source)) else { return };
    assert!(tools.len() <= app().config.plugins.max_tools);
    for tool in tools {
        assert!(tool.description.len() <= 1024, "{}", tool.name);
        assert!(schema::compile_arguments(&tool.input_schema).is_ok(), "{}: {}", tool.name, tool.input_schema);
        assert!(tool.input_schema.to_string().len() <= 65_536, "{}", tool.name);
        // As a call reads what was stored of it.
        serde_json::from_value::<openapi::Operation>(tool.config).unwrap();
    }
});
