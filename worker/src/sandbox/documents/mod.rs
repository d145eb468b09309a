//! Readers of uploaded documents. They run in the child: one that loops, panics or eats memory hurts nobody.
pub mod docx;
pub mod pdf;
pub mod sheet;

/// Bytes of a text in JSON.
fn json_len(text: &str) -> usize {
    serde_json::to_string(text).map_or(0, |json| json.len())
}

/// The longest beginning of `text` that has at most `max` bytes in JSON.
fn fit(text: &str, max: usize) -> &str {
    if json_len(text) <= max {
        return text;
    }
    // Its JSON is at least as long as itself.
    let (mut low, mut high) = (0, text.len().min(max));
    while low < high {
        let middle = (low + high).div_ceil(2);
        if json_len(&text[..text.floor_char_boundary(middle)]) <= max { low = middle } else { high = middle - 1 }
    }
    &text[..text.floor_char_boundary(low)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_to_what_its_json_takes() {
        let text = "é\"\n".repeat(50);
        for max in 2..250 {
            let cut = fit(&text, max);
            assert!(text.starts_with(cut) && json_len(cut) <= max, "{max}");
            if let Some(next) = text[cut.len()..].chars().next() {
                assert!(json_len(&text[..cut.len() + next.len_utf8()]) > max, "{max}: there was room");
            }
        }
        assert_eq!(fit(&text, 1000), text);
    }
}
