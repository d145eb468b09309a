use runmill_shared::domain::plugin::{Auth, AuthKind};

use super::*;

fn source(base_url: Option<&str>) -> Openapi {
    Openapi { document: None, url: None, base_url: base_url.map(str::to_owned), include: None, auth: None }
}

fn read(document: &Value) -> Result<Vec<FoundTool>, ToolError> {
    tools_of(document, &source(Some("https://api.test/v1/")), 100)
}

/// One operation at `/a/{id}`.
fn with(operation: Value) -> Value {
    json!({"openapi": "3.1.0", "paths": {"/a/{id}": {"get": operation}}})
}

fn only(document: &Value) -> (FoundTool, Operation) {
    let mut tools = read(document).unwrap();
    assert_eq!(tools.len(), 1);
    let tool = tools.remove(0);
    let operation = serde_json::from_value(tool.config.clone()).unwrap();
    (tool, operation)
}

fn built(document: &Value, arguments: Value) -> Result<Outgoing, ToolError> {
    request::build(&only(document).1, arguments.as_object().unwrap())
}

fn url_of(parameter: Value, value: Value) -> String {
    let place = parameter["in"].as_str().unwrap().to_owned();
    let mut document = with(json!({"parameters": [parameter]}));
    if place == "query" {
        let item = document["paths"]["/a/{id}"].take();
        document["paths"] = json!({ "/a": item });
    }
    built(&document, json!({ "id": value })).unwrap().url.as_str().trim_start_matches("https://api.test/v1").to_owned()
}

#[test]
fn an_operation_becomes_a_tool() {
    let document = json!({
        "openapi": "3.0.3",
        "servers": [{"url": "https://{where}.test/v2/", "variables": {"where": {"default": "eu"}}}],
        "paths": {"/pets/{petId}": {
            "parameters": [{"name": "petId", "in": "path", "required": true, "schema": {"type": "integer"}}],
            "patch": {
                "operationId": "updatePet", "summary": "Change a pet", "description": "All fields are optional.",
                "parameters": [
                    {"$ref": "#/components/parameters/Verbose"},
                    {"name": "petId", "in": "query", "description": "another one", "schema": {"type": "string"}},
                    {"name": "Authorization", "in": "header", "schema": {"type": "string"}},
                    {"name": "Accept", "in": "header", "schema": {"type": "string"}},
                    {"name": "session", "in": "cookie", "schema": {"type": "string"}},
                ],
                "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}},
            },
        }},
        "components": {
            "parameters": {"Verbose": {"name": "X-Verbose", "in": "header", "schema": {"type": "boolean"}}},
            "schemas": {"Pet": {
                "type": "object", "required": ["id", "name"], "example": {},
                "properties": {
                    "id": {"type": "integer", "readOnly": true},
                    "name": {"type": "string", "nullable": true, "xml": {}},
                    "age": {"type": "number", "minimum": 0, "exclusiveMinimum": true},
                    "parent": {"$ref": "#/components/schemas/Pet"},
                },
            }},
        },
    });
    let tool = tools_of(&document, &source(None), 10).unwrap().remove(0);
    assert_eq!((tool.name.as_str(), tool.description.as_str()), ("updatePet", "Change a pet\nAll fields are optional."));
    let properties = &tool.input_schema["properties"];
    assert_eq!(properties["petId"], json!({"type": "integer"}));
    assert_eq!(properties["query_petId"], json!({"type": "string", "description": "another one"}));
    assert_eq!(properties["name"], json!({"type": ["string", "null"]}));
    assert_eq!(properties["age"], json!({"type": "number", "exclusiveMinimum": 0}));
    assert_eq!(properties["parent"], json!({"type": "object"}), "a cycle is cut");
    assert_eq!(tool.input_schema["required"], json!(["petId", "name"]));
    let mut names: Vec<_> = properties.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["Authorization", "X-Verbose", "age", "name", "parent", "petId", "query_petId"]);
    let operation: Operation = serde_json::from_value(tool.config).unwrap();
    assert_eq!(operation.base_url, "https://eu.test/v2");
    let arguments = json!({"petId": 7, "query_petId": "x y", "name": null, "age": 2, "X-Verbose": true});
    let request = request::build(&operation, arguments.as_object().unwrap()).unwrap();
    assert_eq!((request.method.as_str(), request.url.as_str()), ("PATCH", "https://eu.test/v2/pets/7?petId=x+y"));
    assert_eq!(
        (request.headers["x-verbose"].as_bytes(), request.headers["content-type"].as_bytes()),
        (&b"true"[..], &b"application/json"[..])
    );
    assert_eq!(serde_json::from_slice::<Value>(&request.body.unwrap()).unwrap(), json!({"name": null, "age": 2}));
}

#[test]
fn parameters_are_written_in_their_style() {
    let list = || json!(["a b", "c/d"]);
    let object = || json!({"k": "v", "n": 1});
    for (place, style, explode, value, expected) in [
        ("path", "simple", false, list(), "/a/a%20b,c%2Fd"),
        ("path", "simple", true, object(), "/a/k=v,n=1"),
        ("path", "simple", false, object(), "/a/k,v,n,1"),
        ("path", "label", true, list(), "/a/.a%20b.c%2Fd"),
        ("path", "matrix", true, list(), "/a/;id=a%20b;id=c%2Fd"),
        ("path", "matrix", false, json!(5), "/a/;id=5"),
        ("query", "form", true, list(), "/a?id=a+b&id=c%2Fd"),
        ("query", "form", false, list(), "/a?id=a+b%2Cc%2Fd"),
        ("query", "pipeDelimited", false, list(), "/a?id=a+b%7Cc%2Fd"),
        ("query", "deepObject", true, object(), "/a?id%5Bk%5D=v&id%5Bn%5D=1"),
        ("query", "form", true, object(), "/a?k=v&n=1"),
    ] {
        let parameter = json!({"name": "id", "in": place, "style": style, "explode": explode, "schema": {}});
        assert_eq!(url_of(parameter, value), expected, "{style} {explode}");
    }
    assert_eq!(url_of(json!({"name": "id", "in": "query", "schema": {}}), list()), "/a?id=a+b&id=c%2Fd", "the default explodes");
    let as_json = json!({"name": "id", "in": "query", "content": {"application/json": {"schema": {"type": "object"}}}});
    assert_eq!(url_of(as_json, json!({"a": [1]})), "/a?id=%7B%22a%22%3A%5B1%5D%7D");
}

#[test]
fn a_value_does_not_leave_its_place() {
    let document = with(json!({"parameters": [
        {"name": "id", "in": "path", "schema": {"type": "string"}},
        {"name": "X-Tag", "in": "header", "schema": {"type": "string"}},
    ]}));
    let url = built(&document, json!({"id": "../../admin?x=1#y%2e"})).unwrap().url;
    assert_eq!(url.as_str(), "https://api.test/v1/a/..%2F..%2Fadmin%3Fx%3D1%23y%252e");
    for step in [".", ".."] {
        assert_eq!(built(&document, json!({ "id": step })).err().unwrap().code, "INVALID_ARGUMENTS");
    }
    let split = built(&document, json!({"id": "a", "X-Tag": "a\r\nHost: evil"}));
    assert_eq!(split.err().unwrap().code, "INVALID_ARGUMENTS");
}

#[test]
fn bodies_are_written_as_their_media_type_says() {
    let body = |content: Value| json!({"openapi": "3.0.0", "paths": {"/f": {"post": {"requestBody": {"required": true, "content": content}}}}});
    let form = body(json!({
        "multipart/form-data": {"schema": {}},
        "application/x-www-form-urlencoded": {"schema": {"type": "object", "properties": {"a": {}, "b": {"type": "array"}}}},
    }));
    let request = built(&form, json!({"a": "x&y", "b": [1, 2]})).unwrap();
    assert_eq!(String::from_utf8(request.body.unwrap()).unwrap(), "a=x%26y&b=1&b=2");
    assert_eq!(request.headers["content-type"], "application/x-www-form-urlencoded");
    let list = body(json!({"application/json": {"schema": {"type": "array", "items": {"type": "integer"}}}}));
    let (tool, _) = only(&list);
    assert_eq!((tool.name.as_str(), tool.description.as_str()), ("post_/f", "POST /f"));
    assert_eq!(tool.input_schema["required"], json!(["body"]));
    assert_eq!(built(&list, json!({"body": [1]})).unwrap().body.unwrap(), b"[1]");
    let text = body(json!({"text/plain": {"schema": {"type": "string"}}}));
    assert_eq!(built(&text, json!({"body": "hello"})).unwrap().body.unwrap(), b"hello");
    assert_eq!(read(&body(json!({"multipart/form-data": {"schema": {}}}))).unwrap(), [], "what cannot be written is left out");
}

#[test]
fn hostile_documents_are_bounded() {
    let refused = |document: Value| read(&document).unwrap_err().code.into_owned();
    assert_eq!(refused(json!({"swagger": "2.0", "paths": {}})), "INVALID_DOCUMENT");
    assert_eq!(refused(json!({"openapi": "3.1.0"})), "INVALID_DOCUMENT");
    for reference in
        ["http://169.254.169.254/x", "other.yaml#/a", "file:///etc/passwd", "#/nowhere", "#/paths/~1a~1{id}/get/parameters/0"]
    {
        let document = with(json!({"parameters": [{"$ref": reference}]}));
        assert_eq!(refused(document), "INVALID_DOCUMENT", "{reference}");
        let in_schema = with(json!({"parameters": [{"name": "id", "in": "path", "schema": {"$ref": reference}}]}));
        if reference.starts_with("#/paths") {
            read(&in_schema).unwrap();
        } else {
            assert_eq!(refused(in_schema), "INVALID_DOCUMENT", "{reference}");
        }
    }
    // Each schema names the next one twice: 2^40 of them, were they written out.
    let mut schemas = Map::new();
    for n in 0..40 {
        let next = json!({"$ref": format!("#/components/schemas/S{}", n + 1)});
        schemas.insert(format!("S{n}"), json!({"type": "object", "properties": {"a": next, "b": next}}));
    }
    schemas.insert("S40".into(), json!({"type": "string"}));
    let mut document = with(json!({"parameters": [{"name": "id", "in": "path", "schema": {"$ref": "#/components/schemas/S0"}}]}));
    document["components"] = json!({ "schemas": schemas });
    assert!(only(&document).0.input_schema.to_string().len() < 100_000);
    let paths: Map<_, _> = (0..101).map(|n| (format!("/{n}"), json!({"get": {}}))).collect();
    assert_eq!(refused(json!({"openapi": "3.0.0", "paths": paths})), "TOO_MANY_TOOLS");
}

#[test]
fn a_schema_that_is_none_is_not_checked() {
    let parameter = json!({"name": "id", "in": "path", "description": "which", "schema": {"type": "file", "pattern": "["}});
    let (tool, _) = only(&with(json!({"parameters": [parameter]})));
    assert_eq!(tool.input_schema["properties"]["id"], json!({"description": "which"}));
}

#[test]
fn operations_can_be_chosen() {
    let document = json!({"openapi": "3.0.0", "paths": {"/a": {"get": {"operationId": "a"}, "post": {"operationId": "b"}}}});
    let choose = |names: &[&str]| {
        let include = Some(names.iter().map(|n| (*n).to_owned()).collect());
        tools_of(&document, &Openapi { include, ..source(Some("http://a.test")) }, 1)
    };
    assert_eq!(choose(&["b"]).unwrap()[0].name, "b");
    assert!(choose(&["b", "c", "d"]).unwrap_err().message.ends_with("c, d"));
    assert_eq!(choose(&["a", "b"]).unwrap_err().code, "TOO_MANY_TOOLS");
}

#[test]
fn the_server_is_found_from_where_the_document_is() {
    let document = json!({"openapi": "3.0.0", "servers": [{"url": "../v3"}], "paths": {"/a": {"get": {}}}});
    let at = |url: Option<&str>| tools_of(&document, &Openapi { url: url.map(str::to_owned), ..source(None) }, 1);
    let operation = |tool: &FoundTool| serde_json::from_value::<Operation>(tool.config.clone()).unwrap();
    assert_eq!(operation(&at(Some("https://a.test/docs/x/openapi.json")).unwrap()[0]).base_url, "https://a.test/docs/v3");
    assert_eq!(at(None).unwrap_err().code, "INVALID_DOCUMENT");
    let auth = Auth { kind: AuthKind::Bearer, secret: "KEY".into(), header: None };
    let with_auth = tools_of(&document, &Openapi { auth: Some(auth.clone()), ..source(Some("https://b.test")) }, 1).unwrap();
    assert_eq!(operation(&with_auth[0]).auth, Some(auth));
}
