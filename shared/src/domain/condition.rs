//! Conditions that users write, in CEL (<https://cel.dev>). One is checked when it is accepted and evaluated in a time that its length
//! and its data bound: it reads what it is given and nothing else, and does not loop within a loop.
use std::collections::HashSet;

use cel::{
    Context, ExecutionError, Program, Value,
    common::ast::{EntryExpr, Expr, IdedEntryExpr, IdedExpr},
};

const MAX_CHARS: usize = 500;
/// The parser descends a dozen calls for each bracket, and evaluation one for each operator: room for the deepest that fits in
/// `MAX_CHARS`. Only what is touched of it costs memory.
const STACK: usize = 64 << 20;

#[derive(Clone, Debug, PartialEq)]
pub struct Condition(String);

impl Condition {
    /// Checks an expression that may read the variables `names`.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str, names: &[&str]) -> Result<Self, String> {
        if text.chars().count() > MAX_CHARS {
            return Err(format!("at most {MAX_CHARS} characters"));
        }
        on_a_deep_stack(|| check(&compile(text)?, names))?;
        Ok(Self(text.to_owned()))
    }

    /// Whether it holds with these values.
    ///
    /// # Errors
    /// When it cannot be evaluated with them, or comes to something else than true or false.
    pub fn holds(&self, variables: Vec<(&str, serde_json::Value)>) -> Result<bool, String> {
        on_a_deep_stack(|| match evaluate(&compile(&self.0)?, variables) {
            Ok(Value::Bool(held)) => Ok(held),
            Ok(_) => Err("it does not come to true or false".to_owned()),
            Err(e) => Err(first_line(&e.to_string()).to_owned()),
        })
    }
}

fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("condition".to_owned()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work).map_err(|e| e.to_string())?;
        thread.join().unwrap_or_else(|_| Err("it cannot be evaluated".to_owned()))
    })
}

fn compile(text: &str) -> Result<Program, String> {
    Program::compile(text).map_err(|e| format!("is no CEL expression: {}", first_line(&e.to_string())))
}

fn check(program: &Program, names: &[&str]) -> Result<(), String> {
    let mut seen = Seen::default();
    seen.walk(program.expression(), 0);
    if seen.deepest > 1 {
        return Err("a macro inside of a macro is not allowed".to_owned());
    }
    let references = program.references();
    if let Some(unknown) = references.variables().into_iter().find(|v| !names.contains(v) && !seen.bound.contains(v)) {
        return Err(format!("there is no {unknown}; there are {}", names.join(", ")));
    }
    let empty = names.iter().map(|name| (*name, serde_json::Value::from(""))).collect();
    match evaluate(program, empty) {
        Err(ExecutionError::UndeclaredReference(name)) => Err(format!("there is no function {name}")),
        // What it needs of its values is seen when they are there.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn evaluate(program: &Program, variables: Vec<(&str, serde_json::Value)>) -> Result<Value, ExecutionError> {
    let mut context = Context::default();
    for (name, value) in variables {
        let value = cel::to_value(value).map_err(|e| ExecutionError::function_error(name, e))?;
        context.add_variable_from_value(name, value);
    }
    program.execute(&context)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The loops of an expression.
#[derive(Default)]
struct Seen<'a> {
    /// How deep they are nested: each level multiplies what it costs.
    deepest: usize,
    /// The names that they bind.
    bound: HashSet<&'a str>,
}

impl<'a> Seen<'a> {
    fn walk(&mut self, expr: &'a IdedExpr, depth: usize) {
        self.deepest = self.deepest.max(depth);
        match &expr.expr {
            Expr::Call(call) => call.args.iter().chain(call.target.as_deref()).for_each(|e| self.walk(e, depth)),
            Expr::Comprehension(c) => {
                self.bound.insert(&c.iter_var);
                self.bound.extend(c.iter_var2.as_deref());
                let parts = [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result];
                parts.into_iter().for_each(|e| self.walk(e, depth + 1));
            }
            Expr::List(list) => list.elements.iter().for_each(|e| self.walk(e, depth)),
            Expr::Map(map) => self.entries(&map.entries, depth),
            Expr::Struct(object) => self.entries(&object.entries, depth),
            Expr::Select(select) => self.walk(&select.operand, depth),
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn entries(&mut self, entries: &'a [IdedEntryExpr], depth: usize) {
        for entry in entries {
            match &entry.expr {
                EntryExpr::StructField(field) => self.walk(&field.value, depth),
                EntryExpr::MapEntry(entry) => {
                    self.walk(&entry.key, depth);
                    self.walk(&entry.value, depth);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NAMES: [&str; 2] = ["output", "status"];

    fn holds(text: &str, output: serde_json::Value) -> Result<bool, String> {
        Condition::parse(text, &NAMES)?.holds(vec![("output", output), ("status", json!("completed"))])
    }

    #[test]
    fn it_reads_what_it_is_given() {
        assert_eq!(holds("output.contains('yes') && status == 'completed'", json!("oh yes")), Ok(true));
        assert_eq!(holds("output.matches('^n')", json!("oh yes")), Ok(false));
        assert_eq!(holds("output.score > 0.5", json!({ "score": 0.7 })), Ok(true));
        assert_eq!(holds("output.exists(x, x == 2)", json!([1, 2])), Ok(true));
    }

    #[test]
    fn what_cannot_work_is_refused_before_it_is_needed() {
        for bad in ["output ==", "secret == 'x'", "output.all(a, output.all(b, a == b))", "nothing(output)", ""] {
            assert!(Condition::parse(bad, &NAMES).is_err(), "{bad}");
        }
        assert!(Condition::parse(&format!("output == '{}'", "x".repeat(MAX_CHARS)), &NAMES).is_err());
    }

    #[test]
    fn the_deepest_that_fits_does_not_overflow_the_stack() {
        let n = MAX_CHARS;
        let nested = |open: &str, inner: &str, close: &str, depth: usize| open.repeat(depth) + inner + &close.repeat(depth);
        let deepest = [
            nested("(", "1", ")", n / 2 - 1),
            nested("[", "", "]", n / 2),
            nested("size(", "''", ")", n / 6 - 1),
            nested("{1:", "1", "}", n / 4 - 1),
            "!".repeat(n - 4) + "true",
            "-".repeat(n - 1) + "1",
            "output".to_owned() + &".a".repeat(n / 2 - 4),
            "output".to_owned() + &"[0]".repeat(n / 3 - 3),
            "1".to_owned() + &"+1".repeat(n / 2 - 1),
            "true".to_owned() + &"?1:1".repeat(n / 4 - 1),
        ];
        for text in deepest {
            // Whether it is allowed is the parser's business; that this returns is ours.
            let held = holds(&text, json!("x"));
            assert!(text.len() <= n && held != Err("it cannot be evaluated".to_owned()), "{text}");
        }
    }

    #[test]
    fn what_fails_says_why() {
        assert!(holds("output + 'x'", json!("x")).unwrap_err().contains("true or false"));
        assert!(holds("output.score > 1", json!("text")).is_err());
        assert!(holds("output.matches('(')", json!("text")).is_err());
    }
}
