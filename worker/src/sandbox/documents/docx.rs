//! The text of a Word document: paragraphs as lines, the cells of a table's row parted by tabs.
use std::io::{BufReader, Cursor, Read};

use quick_xml::{Reader, events::Event};
use zip::ZipArchive;

use super::{
    super::wire::{DocxText, Problem},
    fit,
};

const MAIN: &str = "word/document.xml";
/// Of the document once it is unpacked: an archive can be a thousand times smaller.
const MAX_XML_BYTES: u64 = 64 << 20;

pub fn read(file: &[u8], offset: usize, max_bytes: usize) -> Result<DocxText, Problem> {
    let mut archive = ZipArchive::new(Cursor::new(file)).map_err(Problem::unreadable)?;
    let main = archive.by_name(MAIN).map_err(|_| Problem::unreadable("it is no Word document"))?;
    let mut xml = BufReader::new(main.take(MAX_XML_BYTES));
    let text = text_of(&mut xml);
    // Cut off there, it may look like anything.
    if xml.into_inner().limit() == 0 {
        return Err(Problem::unreadable(format!("unpacked, it has more than {} MiB", MAX_XML_BYTES >> 20)));
    }
    let text = text?;
    let total_chars = text.chars().count();
    let from = text.char_indices().nth(offset).map_or(text.len(), |(at, _)| at);
    let part = fit(&text[from..], max_bytes);
    let until = offset.min(total_chars) + part.chars().count();
    Ok(DocxText { text: part.to_owned(), total_chars, next_offset: (until < total_chars).then_some(until) })
}

#[derive(Default)]
struct Text {
    all: String,
    /// Inside `w:r`, where a tab is a tab and no place for one.
    is_run: bool,
    /// Inside `w:t`, where text is text.
    is_text: bool,
    /// Tables, one in the other.
    tables: usize,
    /// Inside what is there for old programs, and says the same once more.
    fallbacks: usize,
}

fn text_of(xml: impl std::io::BufRead) -> Result<String, Problem> {
    let mut reader = Reader::from_reader(xml);
    reader.config_mut().check_end_names = false;
    let (mut text, mut buffer) = (Text::default(), Vec::new());
    loop {
        match reader.read_event_into(&mut buffer).map_err(Problem::unreadable)? {
            Event::Start(tag) => text.open(tag.local_name().as_ref()),
            Event::Empty(tag) => text.empty(tag.local_name().as_ref()),
            Event::End(tag) => text.close(tag.local_name().as_ref()),
            Event::Text(part) if text.is_text => text.push(&part.decode().map_err(Problem::unreadable)?),
            Event::CData(part) if text.is_text => text.push(&part.decode().map_err(Problem::unreadable)?),
            Event::GeneralRef(name) if text.is_text => {
                let character = name.resolve_char_ref().map_err(Problem::unreadable)?;
                let name = name.decode().map_err(Problem::unreadable)?;
                let known = character
                    .map(String::from)
                    .or_else(|| quick_xml::escape::resolve_predefined_entity(&name).map(str::to_owned));
                text.push(&known.unwrap_or_default());
            }
            Event::Eof => return Ok(text.all.trim_end().to_owned()),
            _ => {}
        }
        buffer.clear();
    }
}

impl Text {
    fn push(&mut self, part: &str) {
        if self.fallbacks == 0 {
            self.all.push_str(part);
        }
    }

    fn open(&mut self, name: &[u8]) {
        match name {
            b"r" => self.is_run = true,
            b"t" => self.is_text = true,
            b"tbl" => self.tables += 1,
            b"Fallback" => self.fallbacks += 1,
            _ => self.empty(name),
        }
    }

    fn empty(&mut self, name: &[u8]) {
        match name {
            b"tab" if self.is_run => self.push("\t"),
            b"br" | b"cr" => self.push("\n"),
            b"noBreakHyphen" => self.push("-"),
            _ => {}
        }
    }

    fn close(&mut self, name: &[u8]) {
        match name {
            b"r" => self.is_run = false,
            b"t" => self.is_text = false,
            b"p" if self.tables == 0 => self.push("\n"),
            // A cell's paragraphs stay in its row.
            b"p" => self.push(" "),
            b"tc" => self.end_of("\t"),
            b"tr" => self.end_of("\n"),
            b"tbl" => self.tables = self.tables.saturating_sub(1),
            b"Fallback" => self.fallbacks = self.fallbacks.saturating_sub(1),
            _ => {}
        }
    }

    /// Ends a cell, or a row, where its last part was ended by less.
    fn end_of(&mut self, mark: &str) {
        let last = if mark == "\t" { ' ' } else { '\t' };
        if self.fallbacks == 0 && self.all.ends_with(last) {
            self.all.pop();
        }
        self.push(mark);
    }
}
