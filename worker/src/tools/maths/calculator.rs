//! `calculator`: arithmetic by precedence climbing. Length and depth are bounded, so no expression costs more than a few microseconds.
use std::{iter::Peekable, str::CharIndices, sync::Arc};

use serde::Deserialize;
use serde_json::json;

use super::number;
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object},
};

const MAX_LENGTH: usize = 1000;
const MAX_DEPTH: u32 = 64;
/// How tight a sign binds: below `^`, so that -2^2 is -4.
const UNARY: u8 = 3;

#[derive(Deserialize)]
struct Arguments {
    expression: String,
}

pub fn tool() -> Arc<dyn Tool> {
    let expression = json!({
        "type": "string", "minLength": 1, "maxLength": MAX_LENGTH, "description": "for example (2 + 3) * sqrt(16) / 7",
    });
    let spec = Spec {
        name: "calculator",
        category: "maths",
        description: "Evaluates an arithmetic expression: + - * / % (remainder) ^ (power, right to left), parentheses, pi and e, and \
                      the functions abs, ceil, cos, exp, floor, ln, log10, log2, max, min, round, sin, sqrt, tan. Angles are in \
                      radians.",
        parameters: object(json!({"expression": expression}), &["expression"]),
        output: object(json!({"result": {"type": "number"}}), &["result"]),
    };
    function(spec, |arguments: Arguments| {
        let value = evaluate(&arguments.expression).map_err(|e| ToolError::new("INVALID_EXPRESSION", e))?;
        Ok(json!({"result": number(value)}))
    })
}

fn evaluate(text: &str) -> Result<f64, String> {
    let mut parser = Parser { text, chars: text.char_indices().peekable(), depth: 0 };
    let value = parser.expression(0)?;
    if let Some(c) = parser.peek() {
        return Err(format!("unexpected {c:?} at position {}", parser.position()));
    }
    if value.is_finite() { Ok(value) } else { Err("the result is no finite number".to_owned()) }
}

struct Parser<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    depth: u32,
}

impl<'a> Parser<'a> {
    /// The next character that is no white space, without taking it.
    fn peek(&mut self) -> Option<char> {
        while self.chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        self.chars.peek().map(|(_, c)| *c)
    }

    fn position(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(at, _)| *at) + 1
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.chars.next();
        }
        found
    }

    fn demand(&mut self, wanted: char) -> Result<(), String> {
        if self.take(wanted) { Ok(()) } else { Err(format!("{wanted:?} expected at position {}", self.position())) }
    }

    /// Operators that bind at least as tight as `min`.
    fn expression(&mut self, min: u8) -> Result<f64, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH}"));
        }
        let mut left = self.operand()?;
        while let Some(operator) = self.peek() {
            let Some((_, right_min)) = precedence(operator).filter(|(binds, _)| *binds >= min) else { break };
            self.chars.next();
            left = apply(operator, left, self.expression(right_min)?)?;
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operand(&mut self) -> Result<f64, String> {
        match self.peek() {
            Some('+') => {
                self.chars.next();
                self.expression(UNARY)
            }
            Some('-') => {
                self.chars.next();
                Ok(-self.expression(UNARY)?)
            }
            Some('(') => {
                self.chars.next();
                let value = self.expression(0)?;
                self.demand(')').map(|()| value)
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.literal(),
            Some(c) if c.is_ascii_alphabetic() => self.name(),
            Some(c) => Err(format!("unexpected {c:?} at position {}", self.position())),
            None => Err("the expression ends too early".to_owned()),
        }
    }

    fn word(&mut self, belongs: impl Fn(char, char) -> bool) -> &'a str {
        let start = self.position() - 1;
        let mut last = ' ';
        while let Some((_, c)) = self.chars.next_if(|(_, c)| belongs(last, *c)) {
            last = c;
        }
        let end = self.position() - 1;
        &self.text[start..end]
    }

    fn literal(&mut self) -> Result<f64, String> {
        let exponent = |last: char| matches!(last, 'e' | 'E');
        let digits =
            self.word(|last, c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E') || exponent(last) && matches!(c, '+' | '-'));
        digits.parse().map_err(|_| format!("{digits:?} is no number"))
    }

    fn name(&mut self) -> Result<f64, String> {
        let name = self.word(|_, c| c.is_ascii_alphanumeric());
        match name {
            "pi" => return Ok(std::f64::consts::PI),
            "e" => return Ok(std::f64::consts::E),
            _ => self.demand('(').map_err(|_| format!("{name:?} is not known, or \"(\" is missing after it"))?,
        }
        let mut arguments = vec![self.expression(0)?];
        while self.take(',') {
            arguments.push(self.expression(0)?);
        }
        self.demand(')')?;
        apply_named(name, &arguments)
    }
}

/// How tight an operator binds, and how tight one to its right must bind to be taken first.
fn precedence(operator: char) -> Option<(u8, u8)> {
    match operator {
        '+' | '-' => Some((1, 2)),
        '*' | '/' | '%' => Some((2, 3)),
        '^' => Some((4, 4)),
        _ => None,
    }
}

fn apply(operator: char, a: f64, b: f64) -> Result<f64, String> {
    Ok(match operator {
        '/' | '%' if b == 0.0 => return Err("division by zero".to_owned()),
        '+' => a + b,
        '-' => a - b,
        '*' => a * b,
        '/' => a / b,
        '%' => a % b,
        _ => a.powf(b),
    })
}

fn apply_named(name: &str, arguments: &[f64]) -> Result<f64, String> {
    let value = match (name, arguments) {
        ("abs", [x]) => x.abs(),
        ("ceil", [x]) => x.ceil(),
        ("cos", [x]) => x.cos(),
        ("exp", [x]) => x.exp(),
        ("floor", [x]) => x.floor(),
        ("ln", [x]) => x.ln(),
        ("log10", [x]) => x.log10(),
        ("log2", [x]) => x.log2(),
        ("round", [x]) => x.round(),
        ("sin", [x]) => x.sin(),
        ("sqrt", [x]) => x.sqrt(),
        ("tan", [x]) => x.tan(),
        ("max", [first, rest @ ..]) => rest.iter().copied().fold(*first, f64::max),
        ("min", [first, rest @ ..]) => rest.iter().copied().fold(*first, f64::min),
        _ => return Err(format!("there is no function {name} of {} arguments", arguments.len())),
    };
    if value.is_nan() { Err(format!("{name} is not defined there")) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let known = [
            ("1 + 2 * 3", "7"),
            ("(1 + 2) * 3", "9"),
            ("2 ^ 3 ^ 2", "512"),
            ("-2 ^ 2", "-4"),
            ("2 ^ -1", "0.5"),
            ("10 - 4 - 3", "3"),
            ("2 * -3", "-6"),
            ("-7 % 3", "-1"),
            ("- -5", "5"),
            ("100 / 8 / 5", "2.5"),
            ("0.1 + 0.2", "0.3"),
            ("1.5e3 + 2E-1", "1500.2"),
            ("sqrt(2) ^ 2", "2.0"),
            ("max(1, min(9, 4), 3)", "4"),
            ("round(2.5) + floor(-0.5)", "2"),
            ("cos(pi)", "-1"),
            ("ln(e ^ 3)", "3"),
            ("9007199254740991", "9007199254740991"),
            (".5*2", "1"),
        ];
        for (expression, answer) in known {
            let value = evaluate(expression).map(number).unwrap_or_else(|e| panic!("{expression}: {e}"));
            assert_eq!(value.as_f64(), answer.parse().ok(), "{expression}");
        }
        assert_eq!(number(evaluate("2 * 21").unwrap()).to_string(), "42");
    }

    #[test]
    fn what_is_no_expression_says_why() {
        let bad = [
            ("", "ends too early"),
            ("1 +", "ends too early"),
            ("(1", "')' expected at position 3"),
            ("1 2", "unexpected '2' at position 3"),
            ("1 / 0", "division by zero"),
            ("1 % 0", "division by zero"),
            ("sqrt(-1)", "not defined"),
            ("10 ^ 400", "no finite number"),
            ("1.2.3", "no number"),
            ("foo(1)", "no function foo"),
            ("foo", "not known"),
            ("sqrt(1, 2)", "of 2 arguments"),
            ("1 + é", "unexpected 'é'"),
        ];
        for (expression, why) in bad {
            let e = evaluate(expression).expect_err(expression);
            assert!(e.contains(why), "{expression}: {e}");
        }
    }

    #[test]
    fn depth_is_bounded_and_length_alone_is_not_depth() {
        for deep in ["(", "-", "abs(", "2^"] {
            assert!(evaluate(&deep.repeat(100_000)).expect_err(deep).contains("nested"), "{deep}");
        }
        assert_eq!(evaluate(&format!("0{}", "+1-1*1".repeat(10_000))), Ok(0.0));
    }
}
