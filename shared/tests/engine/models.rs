//! Which models a run asks: the wish, the choice, the configurations of the agent's owner, and whose keys go where.
use runmill_shared::{
    App,
    config::{Config, Price, Secret},
    domain::{
        agent::{Agent, Definition, ModelChoice, ModelReference},
        caller::{Caller, Role},
        model::{Prices, Provider, Target},
        new_id,
    },
    services::{
        model_configs::{self, Change, ModelConfig, Patch},
        models::targets,
    },
};
use uuid::Uuid;

use crate::worlds_with;

fn keys(config: &mut Config) {
    config.models.openai_api_key = Secret::new("sk-deployment");
    config.models.default = "openai:default".into();
    config.models.prices.insert("openai:named".into(), Price { input: 1.0, cached_input: None, output: 1.0 });
}

fn agent(owner: Option<Uuid>, model: ModelChoice) -> Agent {
    let definition = Definition { model, ..Definition::default() };
    Agent { id: "a".into(), name: "A".into(), owner: owner.map(|id| id.to_string()), version: 1, definition }
}

fn named(provider: &str, name: &str) -> ModelReference {
    ModelReference { provider: Some(provider.into()), model_name: Some(name.into()), model_config_id: None }
}

fn choice(provider: &str, name: &str) -> ModelChoice {
    ModelChoice { provider: Some(provider.into()), model_name: Some(name.into()), ..ModelChoice::default() }
}

async fn config(app: &App, caller: &Caller, provider: &str, model: &str, change: Change) -> ModelConfig {
    let change = Change { provider: Some(provider.into()), model_name: Some(model.into()), ..change };
    model_configs::create(app, caller, change).await.unwrap()
}

fn key(text: &str) -> Patch<Secret> {
    Patch::Set(Secret::new(text))
}

async fn specs(app: &App, agent: &Agent, wish: Option<&str>) -> Vec<String> {
    targets(app, agent, wish).await.unwrap().iter().map(Target::spec).collect()
}

#[tokio::test]
async fn the_wish_goes_before_the_choice_and_the_choice_before_the_default() {
    for world in worlds_with(keys).await {
        let app = &world.app;
        let mut chosen = agent(None, ModelChoice { temperature: Some(0.9), ..choice("openai", "named") });
        assert_eq!(specs(app, &chosen, Some("openai:wish")).await, ["openai:wish"]);
        assert_eq!(specs(app, &chosen, Some("")).await, ["openai:named"]);
        assert_eq!(specs(app, &chosen, None).await, ["openai:named"]);
        let [target] = &targets(app, &chosen, None).await.unwrap()[..] else { panic!("one target") };
        assert_eq!((target.key.expose(), target.temperature, target.max_tokens), ("sk-deployment", Some(0.9), None));
        assert_eq!(target.prices, Some(Prices { input: 1_000_000, cached_input: 1_000_000, output: 1_000_000 }));
        for half in [choice("", "x"), choice("openai", ""), ModelChoice::default()] {
            assert_eq!(specs(app, &agent(None, half), None).await, ["openai:default"]);
        }
        chosen.definition.model.fallbacks =
            vec![named("offline", "scripted-demo"), named("acme", "x"), named("gemini", "no-key")];
        assert_eq!(specs(app, &chosen, None).await, ["openai:named", "offline:scripted-demo"], "what is none is left out");
        for (wish, code) in [("acme:x", "VALIDATION_ERROR"), ("gpt", "VALIDATION_ERROR"), ("gemini:x", "MODEL_NOT_CONFIGURED")] {
            assert_eq!(targets(app, &chosen, Some(wish)).await.unwrap_err().code, code, "{wish}");
        }
    }
}

#[tokio::test]
async fn the_owners_configurations_are_found_by_id_and_by_name() {
    for world in worlds_with(keys).await {
        let (app, ann, bob) = (&world.app, new_id(), new_id());
        let caller = Caller::user(ann, Role::User);
        let url = Patch::Set("https://models.example.com/v1".to_owned());
        let settings = Change { base_url: url, max_tokens: Patch::Set(9), temperature: Patch::Set(0.1), ..Change::default() };
        let own = config(app, &caller, "openai_compatible", "mine", Change { api_key: key("sk-ann"), ..settings.clone() }).await;
        config(app, &caller, "openai", "keyless", Change { name: Some("k".into()), ..settings }).await;
        config(app, &caller, "openai", "shared", Change::default()).await;
        let theirs =
            config(app, &Caller::user(bob, Role::User), "openai", "theirs", Change { api_key: key("b"), ..Change::default() })
                .await;

        let by_id = ModelChoice { model_config_id: Some(own.id), temperature: Some(0.7), ..ModelChoice::default() };
        for chosen in [by_id, ModelChoice { temperature: Some(0.7), ..choice("openai", "mine") }] {
            let [target] = &targets(app, &agent(Some(ann), chosen), None).await.unwrap()[..] else { panic!("one target") };
            assert_eq!((target.spec().as_str(), target.key.expose(), target.guarded), ("openai:mine", "sk-ann", true));
            assert_eq!((target.temperature, target.max_tokens), (Some(0.7), Some(9)), "the agent's own goes first");
            assert!(!format!("{target:?}").contains("sk-ann"));
        }
        let of = |name: &'static str| agent(Some(ann), choice("openai", name));
        let keyless = &targets(app, &of("keyless"), None).await.unwrap()[0];
        assert!(keyless.key.is_empty(), "the deployment's key goes to the deployment's address only");
        let shared = &targets(app, &of("shared"), None).await.unwrap()[0];
        assert_eq!((shared.key.expose(), shared.guarded), ("sk-deployment", false));
        let wish = &targets(app, &of("shared"), Some("openai:mine")).await.unwrap()[0];
        assert_eq!(wish.key.expose(), "sk-ann");

        let stolen = ModelChoice { model_config_id: Some(theirs.id), ..ModelChoice::default() };
        let refused = targets(app, &agent(Some(ann), stolen), None).await.unwrap_err();
        assert_eq!(refused.code, "MODEL_CONFIG_NOT_FOUND");
        let unowned = &targets(app, &agent(None, choice("openai", "mine")), None).await.unwrap()[0];
        assert_eq!((unowned.key.expose(), &unowned.base_url), ("sk-deployment", &None), "an agent of the settings has none");
    }
}

#[tokio::test]
async fn an_admin_may_name_any_address_until_a_user_changes_it() {
    for world in worlds_with(keys).await {
        let (app, id) = (&world.app, new_id());
        let url = |url: &str| Change { base_url: Patch::Set(url.into()), ..Change::default() };
        let made = config(app, &Caller::user(id, Role::Admin), "ollama", "m", url("http://127.0.0.1:11434")).await;
        let chosen = agent(Some(id), ModelChoice { model_config_id: Some(made.id), ..ModelChoice::default() });
        let target = targets(app, &chosen, None).await.unwrap().remove(0);
        assert_eq!((target.provider, target.guarded), (Provider::Ollama, false));
        model_configs::update(app, &Caller::user(id, Role::User), made.id, url("http://127.0.0.1:11434/")).await.unwrap();
        assert!(targets(app, &chosen, None).await.unwrap()[0].guarded);
    }
}
