//! Branches, as services make and delete them.
use futures::future::join_all;
use runmill_shared::{
    domain::{caller::Role, page::PageRequest},
    services::branches::{self, Wanted},
};

use super::*;

fn wanted<'a>(session: &'a str, message_id: &'a str) -> Wanted<'a> {
    Wanted { session, message_id, name: None }
}

fn page() -> PageRequest {
    PageRequest { number: 1, size: 20, search: None, status: None, sort: None }
}

#[tokio::test]
async fn a_branch_is_its_owners_and_has_a_session_of_its_own() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        w.finish(&run).await;
        let (me, other) = (Caller::local(), Caller::user(new_id(), Role::Admin));
        let branch = branches::create(&w.app, &me, wanted("t", "m-a")).await.unwrap();
        assert_eq!((branch.parent_session.as_str(), branch.name.as_str(), branch.created_at), ("t", "m-a", START), "{}", w.name);
        assert_eq!(branches::get(&w.app, &me, branch.id).await.unwrap(), branch);
        assert_eq!(branches::list(&w.app, &me, Some("t"), &page()).await.unwrap().items, std::slice::from_ref(&branch));
        assert_eq!(branches::list(&w.app, &me, Some(&branch.session), &page()).await.unwrap().total, 0);

        assert_eq!(branches::create(&w.app, &other, wanted("t", "m-a")).await.unwrap_err().code, "SESSION_NOT_FOUND");
        assert_eq!(branches::get(&w.app, &other, branch.id).await.unwrap_err().code, "BRANCH_NOT_FOUND");
        assert_eq!(branches::delete(&w.app, &other, branch.id).await.unwrap_err().code, "BRANCH_NOT_FOUND");
        assert_eq!(branches::list(&w.app, &other, None, &page()).await.unwrap().total, 0);
        assert_eq!(branches::create(&w.app, &me, wanted("t", "m-z")).await.unwrap_err().code, "MESSAGE_NOT_FOUND");
        let nameless = Wanted { name: Some(" "), ..wanted("t", "m-a") };
        assert_eq!(branches::create(&w.app, &me, nameless).await.unwrap_err().fields[0].field, "name");
        let reader = Caller::reader("local", "t");
        assert!(branches::create(&w.app, &reader, wanted("t", "m-a")).await.is_err(), "a stream token reads events only");
    }
}

#[tokio::test]
async fn a_branch_that_others_need_stays() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        w.finish(&run).await;
        let me = Caller::local();
        let branch = branches::create(&w.app, &me, wanted("t", "m-a")).await.unwrap();
        let own = w.started(&branch.session, "own").await;
        let refused = branches::delete(&w.app, &me, branch.id).await.unwrap_err();
        assert_eq!(refused.code, "BRANCH_BUSY", "{}", w.name);
        step(&w.app, &own).await;
        w.finish(&own).await;
        let below = branches::create(&w.app, &me, wanted(&branch.session, "m-own")).await.unwrap();
        assert_eq!(branches::delete(&w.app, &me, branch.id).await.unwrap_err().code, "BRANCH_HAS_BRANCHES");
        branches::delete(&w.app, &me, below.id).await.unwrap();
        let outcomes = join_all((0..4).map(|_| branches::delete(&w.app, &me, branch.id))).await;
        assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1, "{}: {outcomes:?}", w.name);
        assert!(outcomes.iter().flat_map(|o| o.as_ref().err()).all(|e| e.code == "BRANCH_NOT_FOUND"), "{outcomes:?}");
        assert_eq!((w.count("branches").await, w.count("threads").await, w.count("thread_ancestors").await), (0, 1, 0));
        assert_eq!((w.count("messages").await, w.count("run_steps").await), (1, 0), "what is the parent's is still there");
        w.check().await;
    }
}
