use serde_json::json;

use crate::support::each;

#[tokio::test]
async fn a_secret_is_stored_replaced_listed_and_deleted_and_never_shown() {
    for platform in each(|_| {}).await {
        let (ann, bob) = (platform.as_("ann"), platform.as_("bob"));
        let (status, made) = ann.put("/secrets/API_KEY", json!({ "value": "sk-very-secret" })).await;
        assert_eq!((status, &made["name"]), (201, &json!("API_KEY")), "{}", platform.name());
        assert_eq!(ann.put("/secrets/API_KEY", json!({ "value": "sk-other-secret" })).await.0, 200);
        ann.put("/secrets/another", json!({ "value": "sk-more-secret" })).await;
        let (_, all) = ann.get("/secrets").await;
        assert_eq!(
            (&all["total"], &all["items"][0]["name"], &all["items"][1]["name"]),
            (&json!(2), &json!("API_KEY"), &json!("another"))
        );
        assert!(!all.to_string().contains("secret") && !made.to_string().contains("secret"), "{all}");
        assert_eq!(ann.get("/secrets?search=ano").await.1["total"], 1);
        assert_eq!(bob.get("/secrets").await.1["total"], 0);
        assert_eq!(bob.delete("/secrets/API_KEY").await.0, 404);
        assert_eq!(ann.delete("/secrets/API_KEY").await.0, 204);
        assert_eq!(ann.delete("/secrets/API_KEY").await.0, 404);
        assert_eq!(platform.nobody().get("/secrets").await.0, 401);
    }
}

#[tokio::test]
async fn bad_names_and_values_are_named_together() {
    for platform in each(|_| {}).await {
        let (status, refused) = platform.as_("ann").put("/secrets/a%20b", json!({ "value": "a\nb" })).await;
        let fields: Vec<_> = refused["details"].as_array().unwrap().iter().map(|d| d["field"].as_str().unwrap()).collect();
        assert_eq!((status, fields), (422, vec!["name", "value"]));
        for (body, expected) in [
            (json!({}), 422),
            (json!({ "value": 5 }), 422),
            (json!({ "value": "" }), 422),
            (json!({ "value": "x".repeat(8193) }), 422),
        ] {
            assert_eq!(platform.as_("ann").put("/secrets/a", body.clone()).await.0, expected, "{body}");
        }
    }
}
