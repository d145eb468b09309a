//! `notify_user`: told once for each call, as its owner sees it.
use runmill_shared::{
    domain::{notification::NotificationKind, page::PageRequest},
    store::notifications,
};
use runmill_testkit::database::databases;
use serde_json::json;

use crate::support::{call, in_thread};

#[tokio::test]
async fn a_call_tells_its_owner_once_however_often_it_is_made() {
    for database in databases().await {
        let mut cx = in_thread(&database, |config| config.tools.calls_per_minute = 3).await;
        let said = json!({ "title": "Ready\nnow", "message": "The report is there." });
        for _ in 0..2 {
            assert_eq!(call(&cx, "notify_user", said.clone()).await, Ok(json!({ "notified": true })));
        }
        cx.step_key = "another".to_owned();
        call(&cx, "notify_user", said.clone()).await.unwrap();
        let page = PageRequest { number: 1, size: 20, search: None, status: None, sort: None };
        let told = notifications::list(&cx.app.db, &cx.scope.owner, &page, None, None).await.unwrap();
        assert_eq!(told.total, 2);
        let first = &told.items[0];
        assert_eq!((first.kind, first.title.as_str()), (NotificationKind::Message, "Ready now"));
        assert_eq!(first.subject, json!({ "type": "execution", "id": cx.scope.run_id }));
        let limited = call(&cx, "notify_user", said).await.unwrap_err();
        assert_eq!(limited.code, "RATE_LIMITED");
        for bad in [
            json!({ "title": "x" }),
            json!({ "title": "", "message": "x" }),
            json!({ "title": "x", "message": "y", "to": "eve" }),
        ] {
            assert_eq!(call(&cx, "notify_user", bad).await.unwrap_err().code, "INVALID_ARGUMENTS");
        }
    }
}
