//! `/blobs/{key}`: a disk store's files, for whoever has a signed URL. S3 serves its own.
use std::ops::RangeInclusive;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use poem::{
    Body, IntoEndpoint, Response, Route, get, handler,
    http::{HeaderMap, StatusCode, header},
    web::{Data, Path, Query},
};
use runmill_shared::{App, Error, services::attachments::presented};
use serde::Deserialize;

use crate::http::error::refuse;

#[derive(Deserialize)]
struct Signed {
    expires: i64,
    signature: String,
}

pub fn routes() -> impl IntoEndpoint<Endpoint: 'static> {
    Route::new().at("/*key", get(serve).head(serve))
}

/// A file is data from a stranger: it is sent so that a browser neither guesses its type nor runs what is in it.
#[handler]
async fn serve(
    app: Data<&App>,
    key: Path<String>,
    signed: poem::Result<Query<Signed>>,
    headers: &HeaderMap,
) -> poem::Result<Response> {
    let Query(signed) = signed.map_err(|_| refuse(Error::forbidden("the link's signature is not valid")))?;
    let found = presented(&app, &key, signed.expires, &signed.signature).await.map_err(refuse)?;
    let blob = app.blobs.get(&found.path).await.map_err(refuse)?;
    let range = headers.get(header::RANGE).and_then(|r| r.to_str().ok()).map_or(Wanted::Whole, |r| wanted(r, blob.size));
    let response = Response::builder()
        .content_type(&found.mime_type)
        .header(header::CONTENT_DISPOSITION, disposition(&found.mime_type, &found.name))
        .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; sandbox")
        .header(header::CACHE_CONTROL, "private, max-age=300")
        .header(header::ACCEPT_RANGES, "bytes");
    Ok(match range {
        Wanted::Whole => response.header(header::CONTENT_LENGTH, blob.size).body(Body::from_bytes_stream(blob.body)),
        Wanted::Part(part) => response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {}-{}/{}", part.start(), part.end(), blob.size))
            .header(header::CONTENT_LENGTH, part.end() - part.start() + 1)
            .body(Body::from_bytes_stream(cut(blob.body, &part))),
        Wanted::Nothing => response
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .header(header::CONTENT_RANGE, format!("bytes */{}", blob.size))
            .finish(),
    })
}

/// Pictures, sound and films may be shown in place; all else is for saving.
fn disposition(mime_type: &str, name: &str) -> String {
    let kind = mime_type.split('/').next().unwrap_or_default();
    let shown = matches!(kind, "image" | "audio" | "video") && mime_type != "image/svg+xml";
    let escape =
        |b: u8| if b.is_ascii_alphanumeric() || b"-_.".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    let name: String = name.bytes().map(escape).collect();
    format!("{}; filename*=UTF-8''{name}", if shown { "inline" } else { "attachment" })
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(RangeInclusive<u64>),
    Nothing,
}

/// One range; several, and what is none, get the whole file, as RFC 9110 allows.
fn wanted(range: &str, size: u64) -> Wanted {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else { return Wanted::Whole };
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let part = match (first, number(first), last, number(last)) {
        ("", _, _, Some(suffix)) => size.saturating_sub(suffix)..=size.saturating_sub(1),
        (_, Some(first), "", _) => first..=size.saturating_sub(1),
        (_, Some(first), _, Some(last)) if first <= last => first..=last.min(size.saturating_sub(1)),
        _ => return Wanted::Whole,
    };
    if part.is_empty() || *part.start() >= size { Wanted::Nothing } else { Wanted::Part(part) }
}

fn cut(
    body: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    part: &RangeInclusive<u64>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let (mut skip, mut left) = (*part.start(), part.end() - part.start() + 1);
    let chunks = body.map(move |chunk| {
        chunk.map(|mut chunk| {
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            let rest = chunk.split_off(usize::try_from(skipped).unwrap_or(chunk.len()));
            let taken = left.min(rest.len() as u64);
            left -= taken;
            (rest.slice(..usize::try_from(taken).unwrap_or(rest.len())), left == 0)
        })
    });
    async_stream::stream! {
        for await chunk in chunks {
            let done = !matches!(chunk, Ok((_, false)));
            yield chunk.map(|(chunk, _)| chunk);
            if done {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{TryStreamExt, stream};

    use super::*;

    #[test]
    fn ranges() {
        let cases = [
            ("bytes=0-4", Wanted::Part(0..=4)),
            ("bytes=4-", Wanted::Part(4..=9)),
            ("bytes=-3", Wanted::Part(7..=9)),
            ("bytes=-30", Wanted::Part(0..=9)),
            ("bytes=8-80", Wanted::Part(8..=9)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=4-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ];
        for (range, expected) in cases {
            assert_eq!(wanted(range, 10), expected, "{range}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Nothing);
    }

    #[tokio::test]
    async fn a_part_is_cut_across_chunks() {
        let chunks = || stream::iter(["abc", "def", "ghij"]).map(|c| Ok(Bytes::from_static(c.as_bytes())));
        for (part, expected) in [(0..=9, "abcdefghij"), (2..=3, "cd"), (3..=3, "d"), (4..=8, "efghi"), (9..=9, "j")] {
            let read: Vec<Bytes> = cut(chunks(), &part).try_collect().await.unwrap();
            assert_eq!(String::from_utf8(read.concat()).unwrap(), expected);
        }
    }

    #[test]
    fn only_media_is_shown_and_names_are_escaped() {
        assert_eq!(disposition("image/png", "ü 1.png"), "inline; filename*=UTF-8''%C3%BC%201.png");
        assert_eq!(disposition("image/svg+xml", "a"), "attachment; filename*=UTF-8''a");
        assert_eq!(disposition("text/plain", "a\".txt"), "attachment; filename*=UTF-8''a%22.txt");
    }
}
