//! What a key may be, and how it is written in a URL and on disk.
use std::{fmt::Write, path::Path};

use crate::error::{Error, Result};

const MAX_KEY: usize = 1024;
/// File systems take 255 bytes a name; a longer one goes on in a subdirectory whose name starts with `+`.
const MAX_NAME: usize = 200;

/// A key is 1–1024 bytes of segments parted by `/`, none of them empty, `.` or `..`, without control characters: what
/// every S3 server, every URL parser and every proxy leaves as it is.
pub fn check(key: &str) -> Result<()> {
    let sound = key.len() <= MAX_KEY
        && !key.chars().any(char::is_control)
        && key.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    if sound { Ok(()) } else { Err(Error::invalid("key", "not a key of an object")) }
}

/// The key as a URL path, without the leading slash.
pub fn url_path(key: &str) -> String {
    key.split('/').map(escape).collect::<Vec<_>>().join("/")
}

/// The names of the directories and, last, of the file that hold the object. ASCII letters, digits and `-_.~%+` only,
/// no leading dot, none over 201 bytes.
pub fn file_parts(key: &str) -> Vec<String> {
    key.split('/').flat_map(segment_parts).collect()
}

fn segment_parts(segment: &str) -> Vec<String> {
    let mut escaped = escape(segment);
    if escaped.starts_with('.') {
        escaped.replace_range(..1, "%2E");
    }
    // Only ASCII is left, so that any byte is a boundary.
    let mut parts = Vec::new();
    while escaped.len() > MAX_NAME {
        let rest = escaped.split_off(MAX_NAME);
        parts.push(std::mem::replace(&mut escaped, format!("+{rest}")));
    }
    parts.push(escaped);
    parts
}

/// The key of a file, given its path below the root; none for a file that no key leads to.
pub fn from_file(relative: &Path) -> Option<String> {
    let path = relative.to_str()?;
    let key = path.replace("/+", "").split('/').map(unescape).collect::<Option<Vec<_>>>()?.join("/");
    (check(&key).is_ok() && file_parts(&key).join("/") == path).then_some(key)
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        out.extend(hex::decode(part.get(..2)?).ok()?);
        out.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_leave_the_root_is_no_key() {
        let long = "a".repeat(MAX_KEY + 1);
        for key in ["", "/", "/etc/passwd", "..", "a/../b", "./a", "a//b", "a/", "a/..", "nul\0", "a\nb", long.as_str()] {
            assert!(check(key).is_err(), "{key:?}");
        }
        for key in ["a", "a/b/c.png", "...", "a\\b", "ü/界", "%2e%2e/x", "C:x"] {
            check(key).unwrap();
        }
    }

    #[test]
    fn every_key_has_its_own_file_and_the_file_names_the_key() {
        let long = format!("u/{}/{}", "界".repeat(100), ".".repeat(700));
        for key in ["a/b/c.png", "...", ".hidden/+x", "a\\b:c", "ü/界 x", "%2E%2E/%", "~+=&", long.as_str()] {
            check(key).unwrap();
            let parts = file_parts(key);
            for part in &parts {
                assert!(part.len() <= MAX_NAME + 1 && !part.starts_with('.') && part.is_ascii(), "{part}");
            }
            assert_eq!(from_file(&parts.iter().collect::<std::path::PathBuf>()).as_deref(), Some(key));
        }
    }

    #[test]
    fn files_that_are_not_ours_have_no_key() {
        for path in [".tmp/x", ".DS_Store", "a/%2", "a/%zz", "a/%41", "+a", "a b", "%FF", "%2E%2E"] {
            assert_eq!(from_file(Path::new(path)), None, "{path}");
        }
    }
}
