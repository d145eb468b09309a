use runmill_shared::{
    domain::{caller::Owner, model::ModelSettings, new_id, page::PageRequest},
    store::model_configs::{self as store, ModelConfigRow},
};

use super::NASTY;
use crate::{START, worlds};

fn row(owner: &str, name: &str, model: &str) -> ModelConfigRow {
    ModelConfigRow {
        id: new_id(),
        owner: owner.into(),
        name: name.into(),
        provider: "openai".into(),
        model_name: model.into(),
        base_url: None,
        sealed_key: Some("sealed".into()),
        settings: ModelSettings { max_tokens: Some(7), ..ModelSettings::default() },
        version: 1,
        created_at: START,
        updated_at: START,
    }
}

#[tokio::test]
async fn configurations_are_their_owners() {
    for world in worlds().await {
        let db = &world.app.db;
        let (ann, bob) = (Owner::of_row("ann"), Owner::of_row("bob"));
        let mut mine = row("ann", NASTY, "m1");
        let (other, theirs) = (row("ann", "second", "m2"), row("bob", "second", "m1"));
        for row in [&mine, &other, &theirs] {
            store::insert(db, row).await.unwrap();
        }
        assert_eq!(store::insert(db, &row("ann", "second", "x")).await.unwrap_err().code, "MODEL_CONFIG_EXISTS");
        assert!(store::owned(db, mine.id, &bob).await.unwrap().is_none());
        let found = store::owned(db, mine.id, &ann).await.unwrap().unwrap();
        assert_eq!(
            (found.name.as_str(), found.settings.max_tokens, found.sealed_key.as_deref()),
            (NASTY, Some(7), Some("sealed"))
        );

        let ids = async |wanted: &[uuid::Uuid], names: &[&str]| -> Vec<uuid::Uuid> {
            store::wanted(db, "ann", wanted, names).await.unwrap().into_iter().map(|row| row.id).collect()
        };
        assert_eq!(ids(&[other.id, theirs.id], &["m1"]).await, [other.id, mine.id], "newest first, and no one else's");
        assert_eq!(ids(&[], &["nothing"]).await, [] as [uuid::Uuid; 0]);

        mine.name = "renamed".into();
        assert!(store::update(db, &mine, START).await.unwrap());
        assert!(!store::update(db, &mine, START).await.unwrap(), "its version has moved on");
        let page = PageRequest { number: 1, size: 1, search: Some("RENAMED".into()), status: None, sort: None };
        let listed = store::page(db, &ann, &page).await.unwrap();
        assert_eq!((listed.total, listed.items[0].id, listed.items[0].version), (1, mine.id, 2));
        assert!(!store::delete(db, mine.id, &bob).await.unwrap());
        assert!(store::delete(db, mine.id, &ann).await.unwrap() && !store::delete(db, mine.id, &ann).await.unwrap());
    }
}
