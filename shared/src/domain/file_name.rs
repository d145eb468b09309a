//! Names that come from outside, made fit for storage: an uploaded file's name, and the key that its object gets.
use std::fmt::Write;

use sha2::{Digest, Sha256};
use uuid::Uuid;

const MAX_NAME: usize = 100;
const MAX_EXTENSION: usize = 16;
const MAX_SEGMENT: usize = 128;

/// The last component of `name` without what a path, a shell or a reader could trip over; at most 100 bytes, never
/// empty, no leading dot. Letters of every script and the extension are kept.
pub fn safe_file_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).find(|part| !part.trim_matches(unwanted_at_ends).is_empty()).unwrap_or_default();
    let clean: String = last.trim_matches(unwanted_at_ends).chars().filter(|c| !is_invisible(*c)).map(replace).collect();
    let clean = clean.trim_matches(unwanted_at_ends);
    if clean.is_empty() {
        return "file".to_owned();
    }
    cap(clean)
}

/// `{user}/{thread}/{id}-{safe file name}`. Different users and threads never share a prefix, whatever they are called:
/// what does not fit into one path segment is escaped, and a long one ends in its hash.
pub fn blob_key(user: &str, thread: &str, id: Uuid, file_name: &str) -> String {
    format!("{}/{}/{id}-{}", key_segment(user), key_segment(thread), safe_file_name(file_name))
}

/// One path segment that stands for exactly this text.
fn key_segment(text: &str) -> String {
    let all_dots = text.bytes().all(|b| b == b'.');
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_invisible(c) || matches!(c, '/' | '\\' | '=' | '~') || (all_dots && c == '.') {
            let mut utf8 = [0; 4];
            for byte in c.encode_utf8(&mut utf8).bytes() {
                let _ = write!(out, "={byte:02X}");
            }
        } else {
            out.push(c);
        }
    }
    match out.len() {
        0 => "=".to_owned(),
        1..=MAX_SEGMENT => out,
        _ => format!("{}~{}", prefix(&out, 60), hex::encode(&Sha256::digest(text)[..16])),
    }
}

fn unwanted_at_ends(c: char) -> bool {
    c == '.' || c.is_whitespace() || is_invisible(c)
}

/// Control characters, and the format characters that reorder or hide text.
fn is_invisible(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

fn replace(c: char) -> char {
    if c.is_whitespace() || "<>:\"|?*%#&;`'$".contains(c) { '_' } else { c }
}

fn cap(name: &str) -> String {
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if extension.len() <= MAX_EXTENSION => (stem, format!(".{extension}")),
        _ => (name, String::new()),
    };
    format!("{}{extension}", prefix(stem, MAX_NAME - extension.len()))
}

/// The longest prefix of at most `max` bytes that ends between two characters.
fn prefix(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_letters_and_lose_their_paths() {
        for (given, safe) in [
            ("photo.png", "photo.png"),
            ("Grüße aus Zürich.pdf", "Grüße_aus_Zürich.pdf"),
            ("報告書.docx", "報告書.docx"),
            ("हिन्दी.txt", "हिन्दी.txt"),
            ("../../etc/passwd", "passwd"),
            ("/absolute/name.txt", "name.txt"),
            ("C:\\Users\\me\\scan.pdf", "scan.pdf"),
            ("folder/", "folder"),
            (".bashrc", "bashrc"),
            ("...", "file"),
            ("..", "file"),
            ("", "file"),
            (" \t\n ", "file"),
            ("\u{200B}.\u{200B}.", "file"),
            ("nul\0byte\r\n.txt", "nulbyte.txt"),
            ("invoice\u{202E}fdp.exe", "invoicefdp.exe"),
            ("a?b*c:d.txt", "a_b_c_d.txt"),
        ] {
            assert_eq!(safe_file_name(given), safe, "{given:?}");
        }
    }

    #[test]
    fn long_names_are_cut_between_characters_and_keep_their_extension() {
        let safe = safe_file_name(&format!("{}.jpeg", "ü".repeat(200)));
        assert!(safe.len() <= MAX_NAME && safe.ends_with("ü.jpeg"), "{safe}");
        assert_eq!(safe_file_name(&"界".repeat(200)), "界".repeat(33));
        assert_eq!(safe_file_name(&format!("{}.{}", "a".repeat(90), "b".repeat(90))).len(), MAX_NAME);
    }

    #[test]
    fn keys_have_three_segments_whatever_the_names() {
        let long = "界".repeat(128);
        let names = [
            "t1",
            "..",
            ".",
            "",
            "/",
            "a/b",
            "a\\b",
            "../../etc",
            "=2E",
            "a=2Fb",
            "nul\0",
            "~",
            long.as_str(),
            &long[3..],
            "...",
        ];
        let mut seen = std::collections::HashSet::new();
        for thread in names {
            let key = blob_key("user", thread, Uuid::nil(), "x.png");
            let parts: Vec<_> = key.split('/').collect();
            assert_eq!(parts.len(), 3, "{key}");
            assert!(!parts[1].is_empty() && parts[1].len() <= MAX_SEGMENT && !parts[1].bytes().all(|b| b == b'.'), "{key}");
            assert!(!key.chars().any(char::is_control), "{key:?}");
            assert!(seen.insert(key), "{thread:?} shares its key");
        }
        assert_eq!(blob_key("local", "t1", Uuid::nil(), "a b.png"), "local/t1/00000000-0000-0000-0000-000000000000-a_b.png");
    }
}
