use runmill_testkit::model_server::Reply;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::each;

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_rated_counted_and_found_again() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let agent = bob.create("/agents", json!({ "name": "Rated" })).await;
        platform.model.script(Reply::text("four")).script(Reply::text("five"));
        let good = platform.converse("bob", "s", "m1", json!({ "agentId": agent["id"] })).await;
        let bad = platform.converse("bob", "s", "m2", json!({ "agentId": agent["id"] })).await;
        let answer = platform.history("bob", "s").await[3].clone();
        let rate = |execution: Uuid, rating: i64, more: Value| {
            let mut body = json!({ "execution_id": execution, "rating": rating });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            bob.post("/feedback", body)
        };
        let (status, first) = rate(good, -1, json!({})).await;
        assert_eq!((status, &first["agent_id"], &first["message_id"]), (201, &agent["id"], &Value::Null), "{first}");
        let (status, again) = rate(good, 1, json!({ "comment": "right after all" })).await;
        assert_eq!((status, &again["id"], &again["rating"]), (200, &first["id"], &json!(1)), "in place of the first");
        let (status, _) = rate(bad, -1, json!({ "message_id": answer, "comment": "Wrong: 50%" })).await;
        assert_eq!(status, 201);

        let (status, analysis) = bob.get("/feedback/analysis").await;
        assert_eq!(status, 200);
        let counts = (&analysis["total"], &analysis["positive"], &analysis["negative"], &analysis["positive_share"]);
        assert_eq!(counts, (&json!(2), &json!(1), &json!(1), &json!(0.5)), "{}: {analysis}", platform.name());
        assert_eq!((&analysis["by_agent"][0]["agent_id"], &analysis["by_agent"][0]["total"]), (&agent["id"], &json!(2)));
        let days: i64 = analysis["by_day"].as_array().unwrap().iter().map(|day| day["total"].as_i64().unwrap()).sum();
        assert_eq!(days, 2);
        assert_eq!(analysis["by_day"][0]["day"].as_str().unwrap(), &again["created_at"].as_str().unwrap()[..10]);
        assert_eq!(analysis["recent_comments"][0]["comment"], "Wrong: 50%");

        let (_, negatives) = bob.get("/feedback/negatives").await;
        assert_eq!(negatives["total"], 1, "{negatives}");
        let row = &negatives["items"][0];
        assert_eq!((&row["question"], &row["answer"], &row["rating"]), (&json!("text of m2"), &json!("five"), &json!(-1)));
        assert_eq!(bob.get("/feedback/negatives?search=50%25").await.1["total"], 1);
        assert_eq!(bob.get("/feedback/negatives?search=nothing").await.1["total"], 0);
        let (_, others) = platform.as_("ann").get("/feedback/analysis").await;
        assert_eq!((&others["total"], &others["positive_share"]), (&json!(0), &Value::Null));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rated_is_refused() {
    for platform in each(|_| {}).await {
        let run = platform.converse("bob", "s", "m1", Value::Null).await;
        let other = platform.converse("bob", "other", "m1", Value::Null).await;
        let others_answer = platform.history("bob", "other").await[1].clone();
        let refused = async |name: &str, body: Value| {
            let (status, refused) = platform.as_(name).post("/feedback", body).await;
            (status, refused["error"].as_str().unwrap().to_owned())
        };
        let of = |run: Uuid| json!({ "execution_id": run, "rating": 1 });
        assert_eq!(refused("eve", of(run)).await, (404, "RUN_NOT_FOUND".into()), "{}", platform.name());
        assert_eq!(refused("bob", of(Uuid::nil())).await.0, 404);
        let elsewhere = json!({ "execution_id": run, "rating": 1, "message_id": others_answer });
        assert_eq!(refused("bob", elsewhere).await, (404, "MESSAGE_NOT_FOUND".into()));
        assert_eq!(refused("bob", json!({ "execution_id": other, "rating": 5 })).await, (422, "VALIDATION_ERROR".into()));
        let (_, refused) = platform.as_("bob").post("/feedback", json!({ "execution_id": "x", "comment": 1 })).await;
        assert_eq!(refused["details"].as_array().unwrap().len(), 3, "{refused}");
        for (days, status) in [("0", 422), ("367", 422), ("x", 400), ("7", 200)] {
            assert_eq!(platform.as_("bob").get(&format!("/feedback/analysis?days={days}")).await.0, status, "{days}");
        }
    }
}
