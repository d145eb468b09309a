use serde_json::json;

use crate::support::each;

#[tokio::test]
async fn the_first_account_is_the_admins_and_the_health_counts_the_tools_that_are_there() {
    for platform in each(|_| {}).await {
        for (name, role) in [("ann", "admin"), ("bob", "user"), ("eve", "user")] {
            let (status, me) = platform.as_(name).get("/auth/me").await;
            assert_eq!((status, &me["nickname"], &me["role"]), (200, &json!(name), &json!(role)));
        }
        let (status, health) = platform.nobody().absolute("GET", "/health", None).await;
        let tools = runmill_worker::builtin_tools(&platform.app.config).unwrap().len();
        assert_eq!((status, &health["builtin_tools"]), (200, &json!({ "count": tools, "ready": true })));
        assert_eq!(platform.nobody().get("/auth/me").await.0, 401);
    }
}
