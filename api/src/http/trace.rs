//! The trace that a request is part of, for work that goes on after its answer.
use poem::{FromRequest, Request, RequestBody};
use runmill_shared::telemetry;

/// A W3C traceparent: that of the request's own span; where nothing is traced here, the one that the client sent.
pub struct Trace(pub Option<String>);

impl<'a> FromRequest<'a> for Trace {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let sent = || request.header("traceparent").filter(|t| is_traceparent(t)).map(str::to_owned);
        Ok(Self(telemetry::current_traceparent().or_else(sent)))
    }
}

/// `00-` 32 hex digits `-` 16 hex digits `-` 2 hex digits: <https://www.w3.org/TR/trace-context/>.
fn is_traceparent(text: &str) -> bool {
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    lengths == [2, 32, 16, 2] && text.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_traceparent_is_not_kept() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in ["", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", "00-x-y-01", &"a".repeat(55)] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
