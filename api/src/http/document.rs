//! What the OpenAPI documents say that the types alone do not.
use std::collections::HashMap;

use poem::{endpoint::BoxEndpoint, http::Method};
use poem_openapi::{
    OpenApi,
    registry::{MetaApi, MetaSchema, MetaSchemaRef, Registry},
};

/// Endpoints whose document says of every property that may be left out that it may be null as well: that is what bodies are read by,
/// and how what is not there is answered.
pub struct Nullable<A>(pub A);

impl<A: OpenApi> OpenApi for Nullable<A> {
    fn meta() -> Vec<MetaApi> {
        A::meta()
    }

    fn register(registry: &mut Registry) {
        A::register(registry);
        registry.schemas.values_mut().for_each(allow_null);
    }

    fn add_routes(self, table: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {
        self.0.add_routes(table);
    }
}

fn allow_null(schema: &mut MetaSchema) {
    for (name, property) in &mut schema.properties {
        if !schema.required.contains(name) {
            *property = nullable(property);
        }
    }
}

fn nullable(property: &MetaSchemaRef) -> MetaSchemaRef {
    let schema = match property {
        // Nothing beside a reference counts.
        MetaSchemaRef::Reference(_) => MetaSchema { all_of: vec![property.clone()], ..MetaSchema::ANY },
        // Anything, null too.
        MetaSchemaRef::Inline(any) if any.ty.is_empty() && any.all_of.is_empty() => return property.clone(),
        MetaSchemaRef::Inline(schema) => (**schema).clone(),
    };
    MetaSchemaRef::Inline(Box::new(MetaSchema { nullable: true, ..schema }))
}

#[cfg(test)]
mod tests {
    use poem_openapi::{Object, OpenApiService, payload::Json};
    use serde_json::{Value, json};

    use super::*;

    #[derive(Object)]
    struct Inner {
        word: String,
    }

    #[derive(Object)]
    struct Outer {
        needed: Inner,
        plain: Option<String>,
        /// said of it
        described: Option<Inner>,
        referenced: Option<Inner>,
        free: Option<Value>,
    }

    struct Api;

    #[OpenApi]
    impl Api {
        #[oai(path = "/", method = "post")]
        async fn echo(&self, body: Json<Outer>) -> Json<Outer> {
            body
        }
    }

    #[test]
    fn what_may_be_left_out_may_be_null() {
        let document: Value = serde_json::from_str(&OpenApiService::new(Nullable(Api), "", "").spec()).unwrap();
        let properties = &document["components"]["schemas"]["Outer"]["properties"];
        let inner = json!({ "$ref": "#/components/schemas/Inner" });
        assert_eq!(properties["needed"], inner);
        assert_eq!(properties["plain"], json!({ "type": "string", "nullable": true }));
        assert_eq!(properties["referenced"], json!({ "allOf": [inner], "nullable": true }));
        assert_eq!(properties["described"]["nullable"], json!(true));
        assert_eq!(properties["free"], json!({}));
        assert!(document["components"]["schemas"]["Inner"]["properties"]["word"].get("nullable").is_none());
    }
}
