//! `table_aggregate`: rows in groups, each with its sums and counts.
use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::MAX_CELLS;
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object},
    maths::{number, statistics},
};

const MAX_COLUMNS: usize = 50;

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Op {
    Count,
    CountDistinct,
    Sum,
    Mean,
    Median,
    Min,
    Max,
    First,
    Last,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::CountDistinct => "count_distinct",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Median => "median",
            Self::Min => "min",
            Self::Max => "max",
            Self::First => "first",
            Self::Last => "last",
        }
    }
}

#[derive(Deserialize)]
struct Aggregation {
    column: Option<String>,
    op: Op,
    r#as: Option<String>,
}

#[derive(Deserialize)]
struct Sort {
    column: String,
    #[serde(default)]
    descending: bool,
}

#[derive(Deserialize)]
struct Arguments {
    rows: Vec<Map<String, Value>>,
    #[serde(default)]
    group_by: Vec<String>,
    aggregations: Vec<Aggregation>,
    #[serde(default)]
    sort: Vec<Sort>,
}

pub fn tool() -> Arc<dyn Tool> {
    let name = json!({"type": "string", "maxLength": 200, "description": "a key of the rows"});
    let aggregation = object(
        json!({
            "column": name,
            "op": {
                "type": "string", "enum": ["count", "count_distinct", "sum", "mean", "median", "min", "max", "first", "last"],
                "description": "count without a column counts rows; sum, mean and median need numbers",
            },
            "as": {"type": "string", "minLength": 1, "maxLength": 200, "description": "key in the result; op_column when left out"},
        }),
        &["op"],
    );
    let sort =
        object(json!({"column": name, "descending": {"type": "boolean", "description": "false when left out"}}), &["column"]);
    let spec = Spec {
        name: "table_aggregate",
        category: "data",
        description: "Groups rows by the values of columns and aggregates each group, as GROUP BY does in SQL. Nulls and missing values take no \
                      part, except in the count of rows. Without group_by all rows are one group. Groups come in the order of their first row \
                      unless sort says otherwise.",
        parameters: object(
            json!({
                "rows": {"type": "array", "items": {"type": "object"}, "maxItems": MAX_CELLS, "description": "objects with the columns as keys"},
                "group_by": {"type": "array", "items": name, "maxItems": MAX_COLUMNS, "description": "none: one group"},
                "aggregations": {"type": "array", "items": aggregation, "minItems": 1, "maxItems": MAX_COLUMNS, "description": "what to reckon for each group"},
                "sort": {"type": "array", "items": sort, "maxItems": MAX_COLUMNS, "description": "by columns of the result"},
            }),
            &["rows", "aggregations"],
        ),
        output: object(
            json!({"rows": {"type": "array", "items": {"type": "object"}}, "groups": {"type": "integer"}}),
            &["rows", "groups"],
        ),
    };
    function(spec, |arguments: Arguments| aggregate(&arguments))
}

fn aggregate(arguments: &Arguments) -> Result<Value, ToolError> {
    let names = result_names(arguments)?;
    let mut results = Vec::new();
    for group in groups(arguments) {
        let mut result = Map::new();
        for column in &arguments.group_by {
            result.insert(column.clone(), group.first().and_then(|row| row.get(column)).cloned().unwrap_or_default());
        }
        for (name, aggregation) in names.iter().zip(&arguments.aggregations) {
            result.insert(name.clone(), reckon(aggregation, &group)?);
        }
        results.push(result);
    }
    for sort in &arguments.sort {
        if !arguments.group_by.contains(&sort.column) && !names.contains(&sort.column) {
            return Err(ToolError::invalid(format!("sort: the result has no column {:?}", sort.column)));
        }
    }
    results.sort_by(|a, b| in_order(&arguments.sort, a, b));
    Ok(json!({"groups": results.len(), "rows": results}))
}

fn result_names(arguments: &Arguments) -> Result<Vec<String>, ToolError> {
    let mut names = Vec::new();
    for aggregation in &arguments.aggregations {
        let op = aggregation.op.name();
        if aggregation.column.is_none() && aggregation.op != Op::Count {
            return Err(ToolError::invalid(format!("aggregations: {op} needs a column")));
        }
        let own = aggregation.column.as_ref().map_or_else(|| op.to_owned(), |column| format!("{op}_{column}"));
        let name = aggregation.r#as.clone().unwrap_or(own);
        if names.contains(&name) || arguments.group_by.contains(&name) {
            return Err(ToolError::invalid(format!("aggregations: two columns of the result are named {name:?}; say `as`")));
        }
        names.push(name);
    }
    Ok(names)
}

type Row = Map<String, Value>;

fn groups(arguments: &Arguments) -> Vec<Vec<&Row>> {
    let mut groups: Vec<Vec<&Row>> = if arguments.group_by.is_empty() { vec![Vec::new()] } else { Vec::new() };
    let mut places: HashMap<String, usize> = HashMap::new();
    for row in &arguments.rows {
        if arguments.group_by.is_empty() {
            groups[0].push(row);
            continue;
        }
        let key = json!(arguments.group_by.iter().map(|column| row.get(column)).collect::<Vec<_>>()).to_string();
        let place = *places.entry(key).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(row);
    }
    groups
}

fn reckon(aggregation: &Aggregation, group: &[&Row]) -> Result<Value, ToolError> {
    let Some(column) = &aggregation.column else { return Ok(json!(group.len())) };
    let values: Vec<&Value> = group.iter().filter_map(|row| row.get(column)).filter(|value| !value.is_null()).collect();
    let numbers = || {
        let number = |value: &&Value| {
            let told = || crate::tools::output::prefix(&value.to_string(), 40).to_owned();
            value
                .as_f64()
                .ok_or_else(|| ToolError::new("NOT_A_NUMBER", format!("column {column:?} has {}, which is no number", told())))
        };
        values.iter().map(number).collect::<Result<Vec<f64>, _>>()
    };
    let pick =
        |wanted: Ordering| values.iter().copied().reduce(|best, next| if compare(next, best) == wanted { next } else { best });
    Ok(match aggregation.op {
        Op::Count => json!(values.len()),
        Op::CountDistinct => json!(values.iter().map(ToString::to_string).collect::<std::collections::HashSet<_>>().len()),
        Op::Sum => number(statistics::sum(numbers()?.into_iter())),
        Op::Mean if values.is_empty() => Value::Null,
        Op::Mean => number(statistics::sum(numbers()?.into_iter()) / values.len() as f64),
        Op::Median if values.is_empty() => Value::Null,
        Op::Median => {
            let mut numbers = numbers()?;
            numbers.sort_by(f64::total_cmp);
            number(statistics::quantile(&numbers, 0.5))
        }
        Op::Min => pick(Ordering::Less).cloned().unwrap_or_default(),
        Op::Max => pick(Ordering::Greater).cloned().unwrap_or_default(),
        Op::First => values.first().copied().cloned().unwrap_or_default(),
        Op::Last => values.last().copied().cloned().unwrap_or_default(),
    })
}

fn in_order(sorts: &[Sort], a: &Row, b: &Row) -> Ordering {
    let by = |sort: &Sort| {
        let order = compare(a.get(&sort.column).unwrap_or(&Value::Null), b.get(&sort.column).unwrap_or(&Value::Null));
        if sort.descending { order.reverse() } else { order }
    };
    sorts.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Nulls first, then booleans, numbers, texts, and all else as its JSON text.
fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) | Value::Object(_) => 4,
    };
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(x), Value::Number(y)) => x.as_f64().unwrap_or(0.0).total_cmp(&y.as_f64().unwrap_or(0.0)),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)).then_with(|| if rank(a) == 4 { a.to_string().cmp(&b.to_string()) } else { Ordering::Equal }),
    }
}
