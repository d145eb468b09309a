//! Cutting a result to the size that a model (and the journal) should take.
use serde_json::{Value, json};

/// `value` when its JSON text has at most `max` bytes. Else its longest text is cut until it fits and `truncated: true` is added; a
/// value that has no text long enough becomes `{truncated, output}` with the beginning of its JSON text.
pub fn limit(value: Value, max: usize) -> Value {
    let size = json_len(&value);
    if size <= max {
        return value;
    }
    if let Value::Object(mut fields) = value {
        fields.insert("truncated".into(), Value::Bool(true));
        let mut value = Value::Object(fields);
        let rest = json_len(&value);
        if let Some(text) = longest_text(&mut value) {
            let others = rest - escaped_len(text);
            if others < max {
                *text = fit(text, max - others).to_owned();
                return value;
            }
        }
        return cut_text(&value, max);
    }
    cut_text(&value, max)
}

/// The longest beginning of `text` that has at most `max` bytes and ends between two characters.
pub fn prefix(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

fn cut_text(value: &Value, max: usize) -> Value {
    let frame = json_len(&json!({"truncated": true, "output": ""}));
    json!({"truncated": true, "output": fit(&value.to_string(), max.saturating_sub(frame))})
}

fn longest_text(value: &mut Value) -> Option<&mut String> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(items) => items.iter_mut().filter_map(longest_text).max_by_key(|t| t.len()),
        Value::Object(fields) => fields.values_mut().filter_map(longest_text).max_by_key(|t| t.len()),
        _ => None,
    }
}

fn json_len(value: &Value) -> usize {
    value.to_string().len()
}

fn escaped_len(text: &str) -> usize {
    text.chars().map(char_len).sum()
}

/// The longest beginning of `text` whose JSON escape has at most `max` bytes.
pub fn fit(text: &str, max: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += char_len(*c);
        used > max
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// Bytes of one character in JSON text, as serde_json writes it.
fn char_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_left_alone() {
        let value = json!({"result": 4});
        assert_eq!(limit(value.clone(), json_len(&value)), value);
    }

    #[test]
    fn the_longest_text_is_cut_to_the_byte() {
        let value = json!({"status": 200, "headers": {"etag": "abc"}, "body": "é\"\u{1}".repeat(100)});
        for max in 100..140 {
            let cut = limit(value.clone(), max);
            let size = json_len(&cut);
            assert!(size <= max && size + 6 > max, "{size} of {max}");
            assert_eq!(
                (&cut["truncated"], &cut["status"], &cut["headers"]),
                (&json!(true), &json!(200), &json!({"etag": "abc"}))
            );
        }
    }

    #[test]
    fn a_value_of_many_small_parts_becomes_text() {
        let cut = limit(json!((0..1000).collect::<Vec<_>>()), 100);
        assert!(json_len(&cut) <= 100);
        assert_eq!(cut["truncated"], true);
        assert!(cut["output"].as_str().is_some_and(|t| t.starts_with("[0,1,2,")), "{cut}");
    }
}
