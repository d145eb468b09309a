//! The text of PDF pages.
use std::panic::{AssertUnwindSafe, catch_unwind};

use pdf_extract::{Document, PlainTextOutput, output_doc_page};

use super::{
    super::wire::{PdfPage, PdfText, Problem},
    fit, json_len,
};

/// What a page takes in JSON beside its text.
const PAGE_FRAME: usize = 32;

pub fn read(file: &[u8], first_page: u32, max_bytes: usize) -> Result<PdfText, Problem> {
    let mut document = Document::load_mem(file).map_err(Problem::unreadable)?;
    // Many are encrypted with no password at all.
    if document.is_encrypted() && document.decrypt("").is_err() {
        return Err(Problem::unreadable("it needs a password"));
    }
    let numbers: Vec<u32> = document.get_pages().into_keys().collect();
    let page_count = u32::try_from(numbers.len()).map_err(Problem::unreadable)?;
    if first_page > page_count.max(1) {
        return Err(Problem::new("PAGE_NOT_FOUND", format!("it has {page_count} pages")));
    }
    let (mut pages, mut left) = (Vec::new(), max_bytes);
    for page in numbers.into_iter().filter(|n| *n >= first_page) {
        let text = page_text(&document, page);
        let takes = json_len(&text) + PAGE_FRAME;
        if takes > left && !pages.is_empty() {
            return Ok(PdfText { pages, page_count, next_page: Some(page) });
        }
        // A page that is too long by itself is cut, so that every call gets on.
        pages.push(PdfPage { page, text: fit(&text, left.saturating_sub(PAGE_FRAME)).to_owned() });
        left = left.saturating_sub(takes);
    }
    Ok(PdfText { pages, page_count, next_page: None })
}

/// A page that the library cannot read says so in its place: the others still count.
fn page_text(document: &Document, page: u32) -> String {
    let mut text = String::new();
    let mut output = PlainTextOutput::new(&mut text);
    let outcome = catch_unwind(AssertUnwindSafe(|| output_doc_page(document, &mut output, page)));
    match outcome {
        Ok(Ok(())) => text.trim().to_owned(),
        Ok(Err(e)) => format!("[this page cannot be read: {e}]"),
        Err(_panic) => "[this page cannot be read]".to_owned(),
    }
}
