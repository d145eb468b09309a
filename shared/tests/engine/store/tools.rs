use runmill_shared::{
    domain::{
        page::PageRequest,
        plugin::{Server, Source},
        tool::{ToolType, definition::ToolDefinition},
    },
    store::{
        plugins::{self, NewPlugin, NewTool},
        secrets, tools,
    },
};

use super::{super::*, NASTY};

fn definition(name: &str, category: &str) -> ToolDefinition {
    ToolDefinition {
        name: name.into(),
        description: NASTY.into(),
        kind: ToolType::Http,
        category: category.into(),
        input_schema: json!({ "type": "object", "title": NASTY }),
        output_schema: None,
        config: json!({ "url": NASTY }),
    }
}

fn bob() -> Owner {
    Owner::of_row("bob")
}

/// A public plugin of bob's with these tools.
async fn plugin(w: &World, names: &[&'static str]) -> Uuid {
    let source = Source::Mcp(Server::Stdio { command: "x".into() });
    let (id, schema, config) = (new_id(), json!({ "type": "object" }), json!({}));
    let tool = |name: &&'static str| NewTool {
        id: new_id(),
        name,
        description: "",
        kind: ToolType::Mcp,
        input_schema: &schema,
        output_schema: None,
        config: &config,
    };
    let mut tx = w.tx().await;
    let new = NewPlugin { id, name: "p", description: "", source: &source, credentials: None, is_public: true };
    plugins::insert(&mut tx, &bob(), new, START).await.unwrap();
    plugins::replace_tools(&mut tx, &bob(), id, "plugin", &names.iter().map(tool).collect::<Vec<_>>(), START).await.unwrap();
    tx.commit().await.unwrap();
    id
}

fn page(search: Option<&str>, sort: Option<&str>) -> PageRequest {
    PageRequest { number: 1, size: 10, search: search.map(Into::into), status: None, sort: sort.map(Into::into) }
}

async fn names(w: &World, page: &PageRequest, narrow: &tools::Narrow, limit: i64, offset: i64) -> (i64, Vec<String>) {
    let listed = tools::list(&w.app.db, &owner(), page, narrow, limit, offset).await.unwrap();
    (listed.total, listed.items.into_iter().map(|t| t.tool.name).collect())
}

#[tokio::test]
async fn a_tool_is_its_owners_and_changes_from_the_version_that_was_read() {
    for w in worlds().await {
        let db = &w.app.db;
        let made = tools::insert(db, new_id(), &owner(), &definition("a", "x"), START).await.unwrap();
        assert_eq!((made.version, made.created_at, made.tool.description.as_str()), (1, START, NASTY), "{}", w.name);
        assert_eq!(tools::by_id(db, &owner(), made.id).await.unwrap().as_ref(), Some(&made));
        assert_eq!(tools::by_id(db, &bob(), made.id).await.unwrap(), None);
        assert_eq!(tools::insert(db, new_id(), &owner(), &definition("a", "x"), START).await.unwrap_err().code, "DUPLICATE");
        tools::insert(db, new_id(), &bob(), &definition("a", "x"), START).await.unwrap();
        let later = START.after(MINUTE);
        let with_output = ToolDefinition { output_schema: Some(json!({ "a": NASTY })), ..definition("b", "y") };
        assert!(tools::update(db, made.id, &bob(), 1, &with_output, later).await.unwrap().is_none());
        assert!(tools::update(db, made.id, &owner(), 2, &with_output, later).await.unwrap().is_none());
        let changed = tools::update(db, made.id, &owner(), 1, &with_output, later).await.unwrap().unwrap();
        assert_eq!((changed.version, changed.created_at, changed.updated_at), (2, START, later));
        assert_eq!((changed.tool.output_schema, changed.tool.name.as_str()), (Some(json!({ "a": NASTY })), "b"));
        assert!(!tools::delete(db, made.id, &bob()).await.unwrap());
        assert!(tools::delete(db, made.id, &owner()).await.unwrap() && !tools::delete(db, made.id, &owner()).await.unwrap());
    }
}

#[tokio::test]
async fn tools_of_enabled_plugins_are_seen_and_an_owners_own_go_first() {
    for w in worlds().await {
        let db = &w.app.db;
        let plugin = plugin(&w, &["p_one", "shared"]).await;
        let own = tools::insert(db, new_id(), &owner(), &definition("shared", "x"), START).await.unwrap();
        let found = async |owner: &str| tools::named(db, owner, &["shared", "p_one", "none"]).await.unwrap();
        assert_eq!(found("local").await.len(), 1, "{}: not installed yet", w.name);
        assert_eq!(found("bob").await.len(), 0, "one's own plugin has to be installed too");
        let mut tx = w.tx().await;
        assert!(plugins::install(&mut tx, &owner(), plugin, START).await.unwrap());
        tx.commit().await.unwrap();
        let all = found("local").await;
        assert_eq!((all.len(), all[0].id, all[1].tool.plugin_id), (3, own.id, Some(plugin)));
        let of_plugin = all[1].id;
        assert!(tools::by_id(db, &owner(), of_plugin).await.unwrap().is_some());
        assert!(!tools::delete(db, of_plugin, &bob()).await.unwrap(), "a plugin's tools go with it");
        plugins::enable(db, &owner(), plugin, false).await.unwrap();
        assert_eq!(found("local").await.len(), 1);
        assert!(tools::by_id(db, &owner(), of_plugin).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn lists_are_searched_narrowed_and_sorted() {
    for w in worlds().await {
        let db = &w.app.db;
        for (n, (name, category)) in [("beta", "x"), ("alpha", "y"), ("ga_mma", "x")].into_iter().enumerate() {
            let at = START.after(MINUTE * u32::try_from(n).unwrap());
            tools::insert(db, new_id(), &owner(), &definition(name, category), at).await.unwrap();
        }
        let any = tools::Narrow::default();
        let (all, x) = (page(None, None), tools::Narrow { category: "x".into(), kind: "http".into() });
        assert_eq!(names(&w, &all, &any, 10, 0).await, (3, ["alpha", "beta", "ga_mma"].map(String::from).to_vec()), "{}", w.name);
        assert_eq!(names(&w, &all, &any, 1, 1).await, (3, vec!["beta".to_owned()]));
        assert_eq!(names(&w, &all, &any, 0, 0).await, (3, Vec::new()));
        assert_eq!(names(&w, &page(None, Some("-name")), &x, 10, 0).await.1, ["ga_mma", "beta"]);
        assert_eq!(names(&w, &page(None, Some("-created_at")), &any, 10, 0).await.1, ["ga_mma", "alpha", "beta"]);
        assert_eq!(names(&w, &page(None, Some("created_at")), &any, 10, 0).await.1, ["beta", "alpha", "ga_mma"]);
        assert_eq!(names(&w, &page(Some("A_M"), None), &any, 10, 0).await.1, ["ga_mma"]);
        assert_eq!(names(&w, &page(Some("漢字"), None), &any, 10, 0).await.0, 3);
        let code = tools::Narrow { kind: "code".into(), ..any };
        assert_eq!(names(&w, &all, &code, 10, 0).await.0, 0);
        let counts: Vec<_> = tools::categories(db, &owner()).await.unwrap().into_iter().map(|c| (c.name, c.count)).collect();
        assert_eq!(counts, [("x".to_owned(), 2), ("y".to_owned(), 1)]);
    }
}

#[tokio::test]
async fn a_secret_is_replaced_under_its_name() {
    for w in worlds().await {
        let (db, later) = (&w.app.db, START.after(MINUTE));
        assert!(secrets::put(db, new_id(), &owner(), "KEY", NASTY, START).await.unwrap().0, "{}", w.name);
        let (is_new, stored) = secrets::put(db, new_id(), &owner(), "KEY", "second", later).await.unwrap();
        let stored = stored.unwrap();
        assert_eq!((is_new, stored.created_at, stored.updated_at), (false, START, later));
        assert_eq!(secrets::sealed(db, "local", "KEY").await.unwrap().as_deref(), Some("second"));
        assert_eq!(secrets::sealed(db, "bob", "KEY").await.unwrap(), None);
        let listed = secrets::list(db, &owner(), &page(Some("ke"), None)).await.unwrap();
        assert_eq!((listed.total, listed.items), (1, vec![stored]));
        assert!(!secrets::delete(db, &bob(), "KEY").await.unwrap());
        assert!(secrets::delete(db, &owner(), "KEY").await.unwrap() && !secrets::delete(db, &owner(), "KEY").await.unwrap());
    }
}
