//! What kind of file somebody uploads: the content decides, the name helps where the content cannot.

/// The type of a file from its first bytes and its name. `None`: it is none that can be told.
pub fn detect(name: &str, head: &[u8]) -> Option<String> {
    let by_name = mime_guess::from_path(name).first().map(|m| m.essence_str().to_owned());
    let Some(found) = infer::get(head).map(|t| normal(t.mime_type())) else {
        return if is_text(head) { Some(text_type(by_name)) } else { None };
    };
    Some(match (found, by_name) {
        // Office documents are zip archives; which one, the name tells.
        ("application/zip", Some(name)) if name.starts_with("application/vnd.openxmlformats-officedocument.") => name,
        // One container for sound and pictures.
        ("video/mp4", Some(name)) if name == "audio/mp4" || name == "audio/m4a" => "audio/mp4".to_owned(),
        ("video/webm", Some(name)) if name == "audio/webm" => name,
        (found, _) => found.to_owned(),
    })
}

fn normal(mime: &'static str) -> &'static str {
    match mime {
        "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => "audio/wav",
        "audio/m4a" | "audio/x-m4a" => "audio/mp4",
        "audio/x-flac" => "audio/flac",
        "audio/mp3" => "audio/mpeg",
        other => other,
    }
}

/// Text by its name, when that names a kind of text; plain text else.
fn text_type(by_name: Option<String>) -> String {
    match by_name {
        Some(name) if name.starts_with("text/") || name == "application/json" => name,
        // A picture's or a program's name on a text: neither.
        Some(name) => format!("{name}; as text"),
        None => "text/plain".to_owned(),
    }
}

/// UTF-8 without control characters, as far as it is seen; a character cut at the end is no fault.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default(),
        Err(_) => return false,
    };
    !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides_and_the_name_helps() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        let cases: [(&str, &[u8], Option<&str>); 9] = [
            ("a.png", png, Some("image/png")),
            ("a.txt", png, Some("image/png")),
            ("a.csv", b"a,b\n1,2", Some("text/csv")),
            ("a.md", "# Überschrift".as_bytes(), Some("text/markdown")),
            ("a", b"words", Some("text/plain")),
            ("a.json", b"{}", Some("application/json")),
            ("a.png", b"words", Some("image/png; as text")),
            ("a.txt", b"\0\x01\x02binary", None),
            (
                "a.docx",
                b"PK\x03\x04\x14\0\0\0\0\0",
                Some("application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
            ),
        ];
        for (name, head, expected) in cases {
            assert_eq!(detect(name, head).as_deref(), expected, "{name}");
        }
    }
}
