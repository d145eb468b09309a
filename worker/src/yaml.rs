//! YAML 1.2 as JSON, within a budget: an alias costs as much as what it stands for, so that a small text cannot become a large value.
use serde::de::DeserializeOwned;
use serde_saphyr::{Options, options::DuplicateKeyPolicy};

const MAX_DEPTH: usize = 100;
/// Bytes of text that a node is worth.
const NODE: usize = 16;

/// What a YAML text may come to, in bytes once its aliases are expanded.
fn limits(max: usize) -> Options {
    let mut aliases = serde_saphyr::options::AliasLimits::default();
    aliases.max_total_replayed_events = max / NODE;
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: max / NODE, max_total_scalar_bytes: max },
        alias_limits: aliases,
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    }
}

/// One document of at most `max` bytes.
pub fn parse<T: DeserializeOwned>(text: &str, max: usize) -> Result<T, String> {
    serde_saphyr::from_str_with_options(text, limits(max)).map_err(|e| e.to_string())
}

/// The documents between `---`.
pub fn parse_all<T: DeserializeOwned>(text: &str, max: usize) -> Result<Vec<T>, String> {
    serde_saphyr::from_multiple_with_options(text, limits(max)).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn yaml_and_json_are_read_alike() {
        let yaml = "openapi: 3.1.0\npaths:\n  /a: &a\n    get: {responses: {200: {description: 'ok'}}}\n  /b: *a\nx: [1, -2, 1.5, true, ~]\n";
        let operation = json!({"get": {"responses": {"200": {"description": "ok"}}}});
        let expected = json!({"openapi": "3.1.0", "paths": {"/a": operation, "/b": operation}, "x": [1, -2, 1.5, true, null]});
        assert_eq!(parse::<Value>(yaml, 10_000).unwrap(), expected);
        assert_eq!(parse::<Value>(&expected.to_string(), 10_000).unwrap(), expected);
    }

    #[test]
    fn aliases_do_not_explode() {
        let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for n in 1..10 {
            let before = format!("*a{}", n - 1);
            laughs.push_str(&format!("a{n}: &a{n} [{}]\n", [before.as_str(); 9].join(", ")));
        }
        assert!(parse::<Value>(&laughs, 1_000_000).is_err());
        // Each alias alone is harmless, and there are few of them: it is their number times their size that is not.
        let wide = format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(20_000), "*a, ".repeat(1000));
        assert!(parse::<Value>(&wide, 1_000_000).is_err());
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), "*a, ".repeat(1000));
        assert!(parse::<Value>(&text, 1_000_000).is_err());
    }

    #[test]
    fn what_is_no_plain_yaml_is_an_error() {
        for text in
            ["a: [", "a: 1\na: 2", "? [a]\n: b", "a: *b", &"[".repeat(100_000), &format!("{{\"a\":{}", "[".repeat(100_000))]
        {
            assert!(parse::<Value>(text, 1_000_000).is_err(), "{:.20}", text);
        }
    }
}
