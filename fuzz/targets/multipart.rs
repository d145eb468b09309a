//! The reader of uploads: the content type, a line end, and the body. However the body is cut on its way, the same comes of it.
#![no_main]

use std::io;

use bytes::Bytes;
use futures::{StreamExt, stream};
use libfuzzer_sys::fuzz_target;
use runmill_api::http::upload::Form;
use runmill_fuzz::runtime;
use runmill_shared::{ErrorKind, Result};

const LIMIT: u64 = 256;

#[derive(Debug, PartialEq)]
struct Read {
    parts: Vec<(String, String, Option<String>, Vec<u8>)>,
    refused: Option<ErrorKind>,
}

fuzz_target!(|data: &[u8]| {
    let (content_type, body) = match data.iter().position(|b| *b == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (&b"multipart/form-data; boundary=x"[..], data),
    };
    let Ok(content_type) = std::str::from_utf8(content_type) else { return };
    runtime().block_on(async {
        let whole = read(content_type, body, body.len().max(1)).await;
        for size in [1, 7, 64] {
            assert_eq!(read(content_type, body, size).await, whole, "in pieces of {size}");
        }
    });
});

async fn read(content_type: &str, body: &[u8], size: usize) -> Read {
    let mut read = Read { parts: Vec::new(), refused: None };
    if let Err(e) = parts(content_type, body, size, &mut read).await {
        assert!(matches!(e.kind, ErrorKind::Malformed | ErrorKind::TooLarge), "{e:?}");
        read.refused = Some(e.kind);
    }
    read
}

async fn parts(content_type: &str, body: &[u8], size: usize, read: &mut Read) -> Result<()> {
    let pieces: Vec<io::Result<Bytes>> = body.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let mut form = Form::<()>::over(content_type, stream::iter(pieces).boxed(), LIMIT)?;
    while let Some(part) = form.next().await? {
        let (name, file, kind) = (part.name().to_owned(), part.file_name().to_owned(), part.content_type());
        let bytes = part.bytes(LIMIT).await?;
        assert!(bytes.len() as u64 <= LIMIT);
        read.parts.push((name, file, kind, bytes));
    }
    Ok(())
}
