use serde_json::{Value, json};

use crate::functions::{Answer, Refusal, answers, refusals};

fn store() -> Value {
    json!({"store": {"book": [
        {"author": "Ann", "price": 8.95, "tags": ["x", "new"]}, {"author": "Bob", "price": 12.99, "tags": []},
        {"author": "Cy", "price": 8.99, "isbn": "1"},
    ], "bicycle": {"price": 399}}})
}

fn query(query: &str, matches: Value) -> Answer {
    ("json_query", json!({"data": store(), "query": query}), json!({"matches": matches}))
}

fn tree() -> Value {
    json!({
        "type": "object", "required": ["value"], "additionalProperties": false,
        "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}},
    })
}

/// A schema that follows 2^n references.
fn doubling(n: usize) -> Value {
    let defs: serde_json::Map<_, _> = (0..n)
        .map(|i| {
            let next = json!({"$ref": format!("#/$defs/d{}", i + 1)});
            (format!("d{i}"), json!({"allOf": [next, next]}))
        })
        .chain([(format!("d{n}"), json!({"type": "integer"}))])
        .collect();
    json!({"$ref": "#/$defs/d0", "$defs": defs})
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!({"a": inner}))
}

pub fn known() -> Vec<Answer> {
    [documents(), formats(), tables()].concat()
}

fn documents() -> Vec<Answer> {
    vec![
        query("$.store.book[*].author", json!(["Ann", "Bob", "Cy"])),
        query("$.store.book[?@.price < 10 && @.tags[1] == 'new'].author", json!(["Ann"])),
        query("$.store.book[-1].isbn", json!(["1"])),
        query("$.store.book[0:2].price", json!([8.95, 12.99])),
        query("$.store.book[?length(@.tags) == 0]['author']", json!(["Bob"])),
        query("$.store.book[?count(@.*) > 2].author", json!(["Ann", "Bob", "Cy"])),
        query("$.store.nothing", json!([])),
        ("json_query", json!({"data": store(), "query": "$..price"}), json!({"count": 4})),
        (
            "json_validate",
            json!({"data": {"value": 1, "children": [{"value": 2}]}, "schema": tree()}),
            json!({"valid": true, "errors": []}),
        ),
        (
            "json_validate",
            json!({"data": {"children": [{"value": "x"}, {"value": 1, "y": 2}]}, "schema": tree()}),
            json!({"valid": false, "more": false, "errors": [
                {"path": "/children/0/value", "message": "\"x\" is not of type \"integer\""},
                {"path": "/children/1", "message": "Additional properties are not allowed ('y' was unexpected)"},
                {"path": "", "message": "\"value\" is a required property"},
            ]}),
        ),
        ("json_validate", json!({"data": 1, "schema": false}), json!({"valid": false})),
        (
            "json_validate",
            json!({"data": vec!["x"; 500], "schema": {"items": {"type": "null"}}}),
            json!({"valid": false, "more": true}),
        ),
        ("json_validate", json!({"data": nested(60), "schema": {"properties": {"a": {"$ref": "#"}}}}), json!({"valid": true})),
        ("json_validate", json!({"data": 5, "schema": doubling(10)}), json!({"valid": true})),
        (
            "json_diff",
            json!({"a": {"x": 1, "y": [1, 2], "z": 0}, "b": {"x": 2, "y": [1, 2, 3], "w": null}}),
            json!({"equal": false, "patch": [
                {"op": "replace", "path": "/x", "value": 2}, {"op": "add", "path": "/y/2", "value": 3},
                {"op": "add", "path": "/w", "value": null}, {"op": "remove", "path": "/z"},
            ]}),
        ),
        ("json_diff", json!({"a": [1], "b": [1]}), json!({"equal": true, "patch": []})),
        // The example of RFC 7386.
        (
            "json_merge",
            json!({
                "base": {"title": "Goodbye!", "author": {"givenName": "John", "familyName": "Doe"}, "tags": ["example", "sample"], "content": "x"},
                "patch": {"title": "Hello!", "phoneNumber": "+01-123-456-7890", "author": {"familyName": null}, "tags": ["example"]},
            }),
            json!({"result": {
                "title": "Hello!", "author": {"givenName": "John"}, "tags": ["example"], "content": "x", "phoneNumber": "+01-123-456-7890",
            }}),
        ),
    ]
}

fn formats() -> Vec<Answer> {
    vec![
        (
            "csv_to_json",
            json!({"csv": "\u{feff}name,n,n\n\"a, \"\"b\"\"\",1,\nc,02,true\n", "types": true}),
            json!({
                "columns": ["name", "n", "n_3"], "count": 2,
                "rows": [{"name": "a, \"b\"", "n": 1, "n_3": null}, {"name": "c", "n": "02", "n_3": true}],
            }),
        ),
        (
            "csv_to_json",
            json!({"csv": "a;b\n1;2", "delimiter": ";", "headers": false}),
            json!({"rows": [["a", "b"], ["1", "2"]], "columns": null}),
        ),
        (
            "json_to_csv",
            json!({"rows": [{"a": 1, "b": "x,\"y\""}, {"a": null, "c": [1]}], "columns": ["b", "a", "c"]}),
            json!({"csv": "b,a,c\n\"x,\"\"y\"\"\",1,\n,,[1]\n", "count": 2}),
        ),
        (
            "json_to_csv",
            json!({"rows": [["=1+1", true], [2]], "headers": false, "delimiter": "\t"}),
            json!({"csv": "=1+1\ttrue\n2\n"}),
        ),
        ("json_to_csv", json!({"rows": []}), json!({"csv": "", "count": 0})),
        (
            "yaml_to_json",
            json!({"yaml": "a: &x [1, 2.5, yes, true, ~, 'n', 0x10]\nb: *x\n3: |\n  text\n  more\n"}),
            json!({"data": {"a": [1, 2.5, "yes", true, null, "n", 16], "b": [1, 2.5, "yes", true, null, "n", 16], "3": "text\nmore\n"}}),
        ),
        ("yaml_to_json", json!({"yaml": "a: 1\n---\n- b\n", "all_documents": true}), json!({"data": [{"a": 1}, ["b"]]})),
        (
            "xml_to_json",
            json!({"xml": "<?xml version='1.0'?><r id='1 &amp; 2'><!-- no --><i>a</i><i>b &lt;&#99;</i><e/><m x=''>t<![CDATA[<u>]]></m></r>"}),
            json!({"data": {"r": {"@id": "1 & 2", "i": ["a", "b <c"], "e": null, "m": {"@x": "", "#text": "t<u>"}}}}),
        ),
    ]
}

fn tables() -> Vec<Answer> {
    let people = json!([
        {"team": "a", "name": "Ann", "pay": 10}, {"team": "b", "name": "Bob", "pay": 7.5}, {"team": "a", "name": "Cy", "pay": 30},
        {"team": "a", "name": "Di", "pay": null},
    ]);
    vec![
        (
            "table_aggregate",
            json!({
                "rows": people, "group_by": ["team"], "sort": [{"column": "total", "descending": true}],
                "aggregations": [
                    {"op": "count"}, {"op": "count", "column": "pay"}, {"op": "sum", "column": "pay", "as": "total"},
                    {"op": "mean", "column": "pay"}, {"op": "max", "column": "name"}, {"op": "first", "column": "name"},
                ],
            }),
            json!({"groups": 2, "rows": [
                {"team": "a", "count": 3, "count_pay": 2, "total": 40, "mean_pay": 20, "max_name": "Di", "first_name": "Ann"},
                {"team": "b", "count": 1, "count_pay": 1, "total": 7.5, "mean_pay": 7.5, "max_name": "Bob", "first_name": "Bob"},
            ]}),
        ),
        (
            "table_aggregate",
            json!({"rows": people, "aggregations": [
                {"op": "median", "column": "pay"}, {"op": "min", "column": "pay"}, {"op": "last", "column": "pay"},
                {"op": "count_distinct", "column": "team"},
            ]}),
            json!({"rows": [{"median_pay": 10, "min_pay": 7.5, "last_pay": 30, "count_distinct_team": 2}]}),
        ),
        (
            "table_aggregate",
            json!({"rows": [], "aggregations": [{"op": "count"}, {"op": "mean", "column": "x"}]}),
            json!({"rows": [{"count": 0, "mean_x": null}]}),
        ),
    ]
}

#[tokio::test]
async fn known_answers() {
    answers(known()).await;
}

#[tokio::test]
async fn bad_inputs() {
    let validate =
        |data: Value, schema: Value, code, part| ("json_validate", json!({"data": data, "schema": schema}), code, part);
    let many: Vec<_> = (0..20_000).map(|i| json!({"a": i})).collect();
    let bomb = (1..10).fold("a0: &a0 [x]\n".to_owned(), |yaml, i| {
        yaml + &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(","))
    });
    let laughs = "<!DOCTYPE l [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]><l>&b;</l>";
    let mut refused: Vec<Refusal> = vec![
        ("json_query", json!({"data": 1, "query": "store"}), "INVALID_QUERY", ""),
        ("json_query", json!({"data": 1, "query": "$[?match(@, 'a')]"}), "INVALID_QUERY", ""),
        ("json_query", json!({"data": many, "query": "$[?@.a == $[?@.a == $[0].a].a]"}), "INVALID_QUERY", ""),
        ("json_query", json!({"data": many, "query": "$[?$[*]]"}), "TOO_COMPLEX", "visit"),
        ("json_query", json!({"data": nested(100), "query": "$..*..*..*..*..*..*"}), "TOO_COMPLEX", "visit"),
        ("json_query", json!({"data": [1], "query": format!("${}", "[*,*]".repeat(40))}), "TOO_COMPLEX", "visit"),
        (
            "json_query",
            json!({"data": [1], "query": format!("$[?{}@{}]", "(".repeat(200), ")".repeat(200))}),
            "TOO_COMPLEX",
            "nested",
        ),
        ("csv_to_json", json!({"csv": "a,b\n1\n"}), "INVALID_CSV", "line"),
        ("csv_to_json", json!({"csv": format!("{}\n1\n", "x".repeat(300))}), "INVALID_CSV", "column 1"),
        ("csv_to_json", json!({"csv": ",\n".repeat(150_000)}), "INPUT_TOO_LARGE", "cells"),
        ("csv_to_json", json!({"csv": "a", "delimiter": "é"}), "INVALID_ARGUMENTS", "delimiter"),
        ("json_to_csv", json!({"rows": [{"a": 1}, [1]]}), "INVALID_ARGUMENTS", "either"),
        (
            "json_to_csv",
            json!({"rows": (0..1000).map(|i| json!({format!("k{i}"): 1})).collect::<Vec<_>>()}),
            "INPUT_TOO_LARGE",
            "cells",
        ),
        ("yaml_to_json", json!({"yaml": "a: [1"}), "INVALID_YAML", ""),
        ("yaml_to_json", json!({"yaml": "a: 1\na: 2"}), "INVALID_YAML", "uplicate"),
        ("yaml_to_json", json!({"yaml": bomb}), "INVALID_YAML", ""),
        ("yaml_to_json", json!({"yaml": "[".repeat(100_000)}), "INVALID_YAML", ""),
        ("yaml_to_json", json!({"yaml": "a: &a [*a]"}), "INVALID_YAML", ""),
        ("xml_to_json", json!({"xml": laughs}), "INVALID_XML", "DOCTYPE"),
        ("xml_to_json", json!({"xml": "<a>&b;</a>"}), "INVALID_XML", "&b;"),
        ("xml_to_json", json!({"xml": "<a><b></a>"}), "INVALID_XML", "b"),
        ("xml_to_json", json!({"xml": "<a>"}), "INVALID_XML", "<a>"),
        ("xml_to_json", json!({"xml": "<a/><b/>"}), "INVALID_XML", "more than one"),
        ("xml_to_json", json!({"xml": "text"}), "INVALID_XML", "outside"),
        ("xml_to_json", json!({"xml": ""}), "INVALID_XML", "no element"),
        ("xml_to_json", json!({"xml": "<a>".repeat(100_000)}), "TOO_COMPLEX", "100"),
        (
            "table_aggregate",
            json!({"rows": [{"a": "x"}], "aggregations": [{"op": "sum", "column": "a"}]}),
            "NOT_A_NUMBER",
            "\"x\"",
        ),
        ("table_aggregate", json!({"rows": [], "aggregations": [{"op": "sum"}]}), "INVALID_ARGUMENTS", "needs a column"),
        (
            "table_aggregate",
            json!({"rows": [], "aggregations": [{"op": "count"}, {"op": "count"}]}),
            "INVALID_ARGUMENTS",
            "\"count\"",
        ),
        (
            "table_aggregate",
            json!({"rows": [], "aggregations": [{"op": "count"}], "sort": [{"column": "x"}]}),
            "INVALID_ARGUMENTS",
            "\"x\"",
        ),
    ];
    refused.extend([
        validate(json!(1), json!({"type": "nothing"}), "INVALID_SCHEMA", "nothing"),
        validate(json!(1), json!({"$ref": "https://example.com/schema"}), "INVALID_SCHEMA", "leads out"),
        validate(json!(1), json!({"$ref": "#/$defs/x"}), "INVALID_SCHEMA", "leads nowhere"),
        validate(json!(1), json!({"allOf": [{"$ref": "#"}]}), "INVALID_SCHEMA", "leads back"),
        validate(json!(1), json!({"$dynamicRef": "#x"}), "INVALID_SCHEMA", "not supported"),
        validate(json!(1), json!({"pattern": "(?=x)"}), "INVALID_SCHEMA", "x"),
        validate(json!(1), doubling(40), "TOO_COMPLEX", "multiply"),
        validate(nested(60), json!({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}), "TOO_COMPLEX", "multiply"),
    ]);
    refusals(refused).await;
}

#[tokio::test]
async fn a_patch_makes_one_document_of_the_other() {
    let pairs = [
        (json!({"a": [1, {"b": 2}], "c/d": "~"}), json!({"a": [{"b": 3}], "c/d": "/", "e": {}})),
        (json!([1, 2, 3, 4]), json!([4, 3])),
        (json!(null), json!({"x": [[]]})),
    ];
    let (tools, cx) = (crate::support::tools(&[]), crate::support::context().await);
    for (a, b) in pairs {
        let answer = tools.call("json_diff", &cx, json!({"a": a, "b": b})).await.unwrap();
        let patch: json_patch::Patch = serde_json::from_value(answer["patch"].clone()).unwrap();
        let mut made = a;
        json_patch::patch(&mut made, &patch).unwrap();
        assert_eq!(made, b);
    }
}
