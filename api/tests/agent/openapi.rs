use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{each, read, required};

/// The committed documents are those of the code. `UPDATE_OPENAPI=1` writes them.
#[test]
fn the_documents_have_not_drifted() {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests and not of the product")]
    let update = std::env::var("UPDATE_OPENAPI").is_ok();
    for name in ["agent", "platform"] {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../openapi").join(format!("{name}.json"));
        let document = runmill_api::openapi(name).unwrap();
        if update {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &document).unwrap();
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(kept == document, "openapi/{name}.json is not what the code says: run this test with UPDATE_OPENAPI=1");
    }
    assert_eq!(runmill_api::openapi("other"), None);
}

#[test]
fn every_operation_has_a_name_a_summary_and_its_errors() {
    for name in ["agent", "platform"] {
        let document: Value = serde_json::from_str(&runmill_api::openapi(name).unwrap()).unwrap();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{method} {path}");
                assert!(path == "/health" || operation["responses"]["404"].is_object(), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn the_document_and_its_page_are_served_without_sign_in() {
    for api in each(required).await {
        let (status, served) = read(api.get("/openapi.json")).await;
        let document: Value = serde_json::from_str(&runmill_api::openapi("agent").unwrap()).unwrap();
        assert_eq!((status, &served), (200, &document));
        assert_eq!(served["servers"], json!([{ "url": "/api/v1/agent" }]));
        let (status, page) = read(api.get("/docs")).await;
        assert!(status == 200 && page.as_str().unwrap().contains("swagger-ui"));
    }
}
