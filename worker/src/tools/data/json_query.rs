//! `json_query`: JSONPath (RFC 9535). An expression can visit a value many times; what that could come to is reckoned before.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use serde_json_path::JsonPath;

use super::{MAX_RESULT, measure, result_too_large};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, exceeds, function, object, text},
};

const MAX_QUERY: usize = 500;
const MAX_MATCHES: usize = 10_000;
const MAX_VISITS: usize = 50_000_000;
/// Of parentheses and brackets: the parser calls itself.
const MAX_NESTING: usize = 20;

#[derive(Deserialize)]
struct Arguments {
    data: Value,
    query: String,
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "json_query",
        category: "data",
        description: "Finds values in a JSON document by JSONPath (RFC 9535): $.store.book[*].author, $..price, $.items[?@.price < 10 && @.tags[0] == \
                      'new'].name, [0], [-1], [1:3], length(), count(). Without match() and search(): regex_match does that.",
        parameters: object(
            json!({"data": {"description": "any JSON"}, "query": text(MAX_QUERY, "JSONPath; $ is the whole document")}),
            &["data", "query"],
        ),
        output: object(json!({"matches": {"type": "array"}, "count": {"type": "integer"}}), &["matches", "count"]),
    };
    function(spec, |arguments: Arguments| query(&arguments))
}

fn query(arguments: &Arguments) -> Result<Value, ToolError> {
    let cost = Cost::of(&arguments.query);
    if cost.nesting > MAX_NESTING {
        return Err(ToolError::new("TOO_COMPLEX", format!("the query is nested deeper than {MAX_NESTING}")));
    }
    let path = JsonPath::parse(&arguments.query).map_err(|e| ToolError::new("INVALID_QUERY", e.to_string()))?;
    let (size, depth) = measure(&arguments.data);
    if cost.visits(size, depth) > MAX_VISITS {
        let e = "with this document the query could visit too many values; use fewer .. and lists of selectors, and no $ inside a filter";
        return Err(ToolError::new("TOO_COMPLEX", e));
    }
    let found = path.query(&arguments.data);
    let count = found.len();
    if count > MAX_MATCHES {
        return Err(ToolError::new("RESULT_TOO_LARGE", format!("{count} values match; at most {MAX_MATCHES} can be told")));
    }
    let mut rest = MAX_RESULT;
    for value in found.iter() {
        let size = measure(value).0;
        if size > rest || exceeds(value, rest) {
            return Err(result_too_large());
        }
        rest -= size;
    }
    Ok(json!({"matches": found.all(), "count": count}))
}

/// What in the text of a query makes it visit values more than once.
#[derive(Default)]
struct Cost {
    /// `..`
    descents: u32,
    /// `,` of a list of selectors, which can repeat one
    lists: u32,
    /// `$` inside, as a filter's
    roots: u32,
    length: usize,
    nesting: usize,
}

impl Cost {
    fn of(query: &str) -> Self {
        let mut cost = Self { length: query.len(), ..Self::default() };
        let (mut quote, mut escaped, mut open, mut last) = (None, false, 0_usize, ' ');
        for c in query.chars() {
            match quote {
                Some(_) if escaped => escaped = false,
                Some(_) if c == '\\' => escaped = true,
                Some(end) if c == end => quote = None,
                Some(_) => {}
                None => match c {
                    '\'' | '"' => quote = Some(c),
                    '.' if last == '.' => cost.descents += 1,
                    ',' => cost.lists += 1,
                    '$' => cost.roots += 1,
                    '[' | '(' => open += 1,
                    ']' | ')' => open = open.saturating_sub(1),
                    _ => {}
                },
            }
            cost.nesting = cost.nesting.max(open);
            last = c;
        }
        cost
    }

    /// At most: each part of the query sees each value once; again from each value above it for every further descent, as often as
    /// a list can name it, and the whole document for every filter that starts at its root.
    fn visits(&self, size: usize, depth: usize) -> usize {
        let again = depth.saturating_pow(self.descents.saturating_sub(1));
        let lists = 2_usize.saturating_pow(self.lists);
        let roots = size.saturating_pow(self.roots.saturating_sub(1));
        [again, lists, roots, self.length.div_ceil(4)].into_iter().fold(size, usize::saturating_mul)
    }
}
