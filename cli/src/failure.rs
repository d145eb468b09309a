//! What a person reads when something failed.
use std::error::Error as _;

use runmill_shared::{Error, ErrorKind};

use crate::{FAILED, USAGE};

/// Prints the error, every bad field on a line of its own, and answers the exit code.
pub fn report(error: &Error) -> u8 {
    if is_broken_pipe(error) {
        return 0;
    }
    eprintln!("runmill: {}", explain(error));
    match error.kind {
        ErrorKind::Invalid | ErrorKind::Malformed => USAGE,
        _ => FAILED,
    }
}

/// Whoever read our output has seen enough.
fn is_broken_pipe(error: &Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

pub fn explain(error: &Error) -> String {
    if !error.fields.is_empty() {
        let lines: Vec<_> = error.fields.iter().map(|f| format!("\n  {}: {}", f.field, f.message)).collect();
        return format!("these settings cannot be used:{}", lines.concat());
    }
    let mut text = if error.kind == ErrorKind::Internal { String::new() } else { error.message.to_string() };
    let mut cause = error.source();
    while let Some(reason) = cause {
        let reason_text = reason.to_string();
        if !text.contains(&reason_text) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&reason_text);
        }
        cause = reason.source();
    }
    if text.is_empty() { error.message.to_string() } else { text }
}
