//! The rules for what a user writes, as far as they need nobody else's word: which tools and model configurations there are, the
//! services know.
use std::collections::HashSet;

use serde_json::Value;

use super::{Definition, ModelChoice, NewAgent};
use crate::{
    domain::{model::Provider, tool::schema::compile},
    error::FieldError,
};

const MAX_NAME: usize = 100;
const MAX_DESCRIPTION: usize = 2000;
const ITERATION_LIMITS: std::ops::RangeInclusive<u32> = 1..=100;

/// The fields that break a rule, by the names of the platform's dialect.
#[derive(Default)]
struct Bad(Vec<FieldError>);

impl Bad {
    fn rule(&mut self, ok: bool, field: impl Into<String>, message: impl Into<String>) {
        if !ok {
            self.0.push(FieldError { field: field.into(), message: message.into() });
        }
    }
}

impl NewAgent {
    /// Every field that breaks a rule; none: it may be stored.
    pub fn faults(&self) -> Vec<FieldError> {
        let mut bad = Bad::default();
        let name = self.name.trim();
        bad.rule((1..=MAX_NAME).contains(&name.chars().count()), "name", format!("1 to {MAX_NAME} characters"));
        bad.rule(!name.contains(char::is_control), "name", "no control characters");
        let short = self.description.chars().count() <= MAX_DESCRIPTION;
        bad.rule(short, "description", format!("at most {MAX_DESCRIPTION} characters"));
        self.definition.faults(&mut bad);
        bad.0
    }
}

impl Definition {
    fn faults(&self, bad: &mut Bad) {
        self.model.faults(bad);
        bad.rule(ITERATION_LIMITS.contains(&self.iteration_limit), "iteration_limit", "1 to 100");
        twice(&self.include_tools, "include_tools", bad);
        twice(&self.approval_tools, "approval_tools", bad);
        for (i, tool) in self.approval_tools.iter().enumerate() {
            let included = self.include_tools.contains(tool);
            bad.rule(included, format!("approval_tools.{i}"), format!("{tool} is not among include_tools"));
        }
        let budget = self.budget;
        for (name, limit) in
            [("max_tokens", budget.max_tokens), ("max_cost_micros", budget.max_cost_micros), ("max_seconds", budget.max_seconds)]
        {
            bad.rule(limit != Some(0), format!("budget.{name}"), "at least 1");
        }
        if let Some(workflow) = &self.workflow_config {
            graph(workflow, bad);
        }
        if let Some(schema) = &self.output_schema {
            self::schema(schema, bad);
        }
    }
}

impl ModelChoice {
    fn faults(&self, bad: &mut Bad) {
        reference(self.provider.as_deref(), self.model_name.as_deref(), "model_config", bad);
        let warm = self.temperature.is_none_or(|t| (0.0..=2.0).contains(&t));
        bad.rule(warm, "model_config.temperature", "0 to 2");
        bad.rule(self.max_tokens != Some(0), "model_config.max_tokens", "at least 1");
        for (i, fallback) in self.fallbacks.iter().enumerate() {
            let field = format!("model_config.fallbacks.{i}");
            reference(fallback.provider.as_deref(), fallback.model_name.as_deref(), &field, bad);
            let named = fallback.provider.is_some() || fallback.model_config_id.is_some();
            bad.rule(named, field, "names no model: provider and model_name, or model_config_id");
        }
    }
}

/// A provider and a model's name come together.
fn reference(provider: Option<&str>, name: Option<&str>, field: &str, bad: &mut Bad) {
    if let Some(provider) = provider {
        let all = Provider::ALL.map(Provider::as_str).join(", ");
        bad.rule(Provider::parse(provider).is_some(), format!("{field}.provider"), format!("one of {all}"));
        bad.rule(name.is_some(), format!("{field}.model_name"), "is required with a provider");
    }
    if let Some(name) = name {
        bad.rule(provider.is_some(), format!("{field}.provider"), "is required with a model_name");
        bad.rule(!name.trim().is_empty() && name.len() <= 200, format!("{field}.model_name"), "1 to 200 characters");
    }
}

fn twice(names: &[String], field: &str, bad: &mut Bad) {
    let mut seen = HashSet::new();
    for (i, name) in names.iter().enumerate() {
        bad.rule(seen.insert(name), format!("{field}.{i}"), format!("{name} is there twice"));
    }
}

/// `{"nodes": [{"id", "type", …}], "edges": [{"source", "target", …}]}`, whatever else is in it.
fn graph(workflow: &Value, bad: &mut Bad) {
    let Some(workflow) = workflow.as_object() else {
        return bad.rule(false, "workflow_config", "an object with nodes and edges");
    };
    let mut list = |name: &str| {
        let items = workflow.get(name).map_or(Some(&[][..]), |value| value.as_array().map(Vec::as_slice));
        bad.rule(items.is_some(), format!("workflow_config.{name}"), "a list");
        items.unwrap_or_default()
    };
    let (nodes, edges) = (list("nodes"), list("edges"));
    let mut ids = HashSet::new();
    for (i, node) in nodes.iter().enumerate() {
        let field = |name: &str| format!("workflow_config.nodes.{i}.{name}");
        match node["id"].as_str().filter(|id| !id.is_empty()) {
            Some(id) => bad.rule(ids.insert(id), field("id"), format!("{id} is there twice")),
            None => bad.rule(false, field("id"), "a text that is not empty"),
        }
        bad.rule(node["type"].as_str().is_some_and(|t| !t.is_empty()), field("type"), "a text that is not empty");
    }
    for (i, edge) in edges.iter().enumerate() {
        for end in ["source", "target"] {
            let known = edge[end].as_str().is_some_and(|id| ids.contains(id));
            bad.rule(known, format!("workflow_config.edges.{i}.{end}"), "names no node");
        }
    }
}

/// What answers are held against has to be a schema, and one that needs nothing from elsewhere.
fn schema(schema: &Value, bad: &mut Bad) {
    if !schema.is_object() {
        return bad.rule(false, "output_schema", "an object: a JSON Schema");
    }
    if let Err(e) = compile(schema) {
        bad.rule(false, "output_schema", format!("no JSON Schema: {e}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::agent::{Budget, ModelReference};

    fn named(definition: Definition) -> Vec<String> {
        let agent = NewAgent { name: "a".into(), description: String::new(), definition };
        agent.faults().into_iter().map(|f| f.field).collect()
    }

    #[test]
    fn every_bad_field_is_named() {
        let model = ModelChoice {
            provider: Some("nobody".into()),
            temperature: Some(2.5),
            max_tokens: Some(0),
            fallbacks: vec![ModelReference::default()],
            ..ModelChoice::default()
        };
        let definition = Definition {
            model,
            iteration_limit: 101,
            include_tools: vec!["now".into(), "now".into()],
            approval_tools: vec!["wait".into()],
            budget: Budget { max_tokens: Some(0), ..Budget::default() },
            ..Definition::default()
        };
        let model = ["provider", "model_name", "temperature", "max_tokens", "fallbacks.0"].map(|f| format!("model_config.{f}"));
        let rest = ["iteration_limit", "include_tools.1", "approval_tools.0", "budget.max_tokens"].map(str::to_owned);
        assert_eq!(named(definition), [&model[..], &rest[..]].concat());
        let nameless = NewAgent { name: " \n".into(), description: "d".repeat(2001), ..NewAgent::default() };
        let fields: Vec<_> = nameless.faults().into_iter().map(|f| f.field).collect();
        assert_eq!(fields, ["name", "description"]);
        assert!(named(Definition::default()).is_empty());
    }

    #[test]
    fn edges_name_nodes_and_the_rest_is_the_designers() {
        let with = |workflow: Value| named(Definition { workflow_config: Some(workflow), ..Definition::default() });
        let node = |id: &str| json!({ "id": id, "type": "agent", "label": "x", "position": { "x": 1 } });
        assert!(
            with(json!({ "nodes": [node("a"), node("b")], "edges": [{ "source": "a", "target": "b" }], "zoom": 2 })).is_empty()
        );
        let bad = json!({ "nodes": [node("a"), node("a"), { "id": 1 }], "edges": [{ "source": "a", "target": "z" }, 5] });
        let found = ["nodes.1.id", "nodes.2.id", "nodes.2.type", "edges.0.target", "edges.1.source", "edges.1.target"];
        assert_eq!(with(bad), found.map(|f| format!("workflow_config.{f}")));
        assert_eq!(with(json!({ "nodes": {}, "edges": 1 })), ["workflow_config.nodes", "workflow_config.edges"]);
        assert_eq!(with(json!([])), ["workflow_config"]);
    }

    #[test]
    fn an_output_schema_is_one_that_can_be_used() {
        let with = |schema: Value| named(Definition { output_schema: Some(schema), ..Definition::default() });
        assert!(with(json!({ "type": "object", "properties": { "a": { "type": "integer" } }, "required": ["a"] })).is_empty());
        for bad in [json!("object"), json!({ "type": "wrong" }), json!({ "$ref": "http://127.0.0.1:9/schema" })] {
            assert_eq!(with(bad.clone()), ["output_schema"], "{bad}");
        }
    }
}
