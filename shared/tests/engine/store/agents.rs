use std::collections::HashSet;

use runmill_shared::{
    domain::{
        agent::{Budget, Definition, NewAgent, Status},
        page::PageRequest,
    },
    store::agents,
};

use super::{super::*, NASTY};

fn new(name: &str) -> NewAgent {
    let definition = Definition {
        system_prompt: NASTY.into(),
        workflow_config: Some(json!({ "nodes": [], NASTY: 1.5 })),
        budget: Budget { max_tokens: Some(u64::MAX), ..Budget::default() },
        ..Definition::default()
    };
    NewAgent { name: name.into(), description: NASTY.into(), definition }
}

async fn stored(w: &World, owner: &Owner, new: &NewAgent) -> Uuid {
    let id = new_id();
    let mut tx = w.tx().await;
    agents::insert(&mut tx, id, owner, new, w.app.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    id
}

fn page() -> PageRequest {
    PageRequest { number: 1, size: 20, search: None, status: None, sort: None }
}

#[tokio::test]
async fn an_agent_is_kept_whole_with_all_its_versions() {
    for w in worlds().await {
        let first = new("first");
        let id = stored(&w, &owner(), &first).await;
        let found = agents::current(&w.app.db, id, owner().as_str()).await.unwrap().unwrap();
        assert_eq!(
            (&found.name, &found.description, &found.definition),
            (&first.name, &first.description, &first.definition),
            "{}",
            w.name
        );
        assert_eq!((found.status, found.version, found.is_main, found.created_at), (Status::Draft, 1, false, START));

        w.later(MINUTE);
        let second = NewAgent { name: "second".into(), definition: Definition::default(), ..first.clone() };
        let mut tx = w.tx().await;
        let now = w.app.clock.now();
        assert!(!agents::update(&mut tx, id, &Owner::of_row("other"), 1, &second, now).await.unwrap());
        assert!(!agents::update(&mut tx, id, &owner(), 2, &second, now).await.unwrap(), "another version is in force");
        assert!(agents::update(&mut tx, id, &owner(), 1, &second, now).await.unwrap());
        tx.commit().await.unwrap();
        let found = agents::current(&w.app.db, id, owner().as_str()).await.unwrap().unwrap();
        assert_eq!((found.version, found.updated_at, found.created_at), (2, now, START));
        let version = async |n| agents::version(&w.app.db, id, n).await.unwrap().map(|a| a.definition);
        assert_eq!((version(1).await, version(2).await), (Some(first.definition), Some(Definition::default())));
        assert_eq!(version(3).await, None);

        let mut tx = w.tx().await;
        assert!(!agents::delete(&mut tx, id, Status::Published).await.unwrap(), "it is a draft");
        assert!(agents::delete(&mut tx, id, Status::Draft).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(w.count("agent_versions").await, 0);
    }
}

#[tokio::test]
async fn drafts_are_their_owners_and_status_moves_by_compare_and_set() {
    for w in worlds().await {
        let (id, other) = (stored(&w, &owner(), &new("a")).await, Owner::of_row("other"));
        let seen = async || agents::current(&w.app.db, id, "other").await.unwrap().map(|a| a.status);
        let listed = async |who: &Owner| agents::list(&w.app.db, who, &page()).await.unwrap().total;
        let step = async |who: &Owner, from, to| {
            let mut tx = w.tx().await;
            let moved = agents::change_status(&mut tx, id, who, from, to, w.app.clock.now()).await.unwrap();
            tx.commit().await.unwrap();
            moved
        };
        assert_eq!((seen().await, listed(&other).await, listed(&owner()).await), (None, 0, 1), "{}", w.name);
        assert!(!step(&other, Status::Draft, Status::Published).await);
        assert!(step(&owner(), Status::Draft, Status::Published).await);
        assert!(!step(&owner(), Status::Draft, Status::Published).await);
        assert_eq!((seen().await, listed(&other).await), (Some(Status::Published), 1));
        assert!(step(&owner(), Status::Published, Status::Stopped).await);
        assert_eq!((seen().await, listed(&other).await), (Some(Status::Stopped), 0), "it can be read, and is not offered");
    }
}

#[tokio::test]
async fn an_owner_has_one_main_agent() {
    for w in worlds().await {
        let (a, b, other) =
            (stored(&w, &owner(), &new("a")).await, stored(&w, &owner(), &new("b")).await, Owner::of_row("other"));
        let theirs = stored(&w, &other, &new("c")).await;
        let (me, db) = (owner(), &w.app.db);
        let both = HashSet::from([me.as_str(), other.as_str()]);
        let main = async |of: &HashSet<&str>| -> HashSet<(String, Uuid)> {
            agents::main(db, of).await.unwrap().into_iter().map(|agent| (agent.owner, agent.id)).collect()
        };
        assert_eq!(main(&both).await, HashSet::new(), "{}", w.name);
        for (id, of) in [(a, owner()), (theirs, other.clone()), (b, owner()), (b, owner())] {
            let mut tx = w.tx().await;
            agents::promote(&mut tx, id, &of, w.app.clock.now()).await.unwrap();
            tx.commit().await.unwrap();
        }
        let (mine, others) = ((me.as_str().to_owned(), b), ("other".to_owned(), theirs));
        assert_eq!(main(&both).await, HashSet::from([mine, others.clone()]));
        assert_eq!(main(&HashSet::from(["other", "nobody"])).await, HashSet::from([others]));
        assert_eq!(w.count("agents WHERE is_main").await, 2);
    }
}

#[tokio::test]
async fn an_agent_is_busy_while_a_run_of_it_has_not_ended() {
    for w in worlds().await {
        let id = stored(&w, &owner(), &new("a")).await;
        let busy = async || {
            let mut tx = w.tx().await;
            agents::is_busy(&mut tx, id).await.unwrap()
        };
        assert!(!busy().await, "{}", w.name);
        let run = accept(&w.app, &owner(), &Work { agent_id: Some(id.to_string()), ..work("t", "a") }).await.unwrap();
        w.accept("other", "b").await;
        assert!(busy().await);
        let run = w.claim(run.id).await;
        assert!(busy().await);
        w.finish(&run).await;
        assert!(!busy().await);
    }
}
