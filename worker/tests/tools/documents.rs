//! Documents that these tests make, byte by byte, and what the tools read in them.
use std::{
    fmt::Write as _,
    io::{Cursor, Write},
};

use bytes::Bytes;
use runmill_shared::{
    config::Config,
    services::files::{self, Place},
};
use runmill_testkit::{database::TestDatabase, sandbox::sandbox_program};
use runmill_worker::{
    sandbox::{Rows, Sandbox},
    tools::ToolContext,
};
use serde_json::json;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::support::{call, in_thread};

fn sandbox() -> Sandbox {
    let mut settings = Config::defaults().unwrap().sandbox;
    settings.program = sandbox_program();
    Sandbox::new(&settings)
}

/// The context of a thread that has these files.
async fn with_files(database: &TestDatabase, content: Vec<(&str, Vec<u8>)>) -> ToolContext {
    sandbox_program();
    let cx = in_thread(database, |_| {}).await;
    let place = Place { owner: &cx.scope.owner, thread_id: cx.scope.thread_id, thread: &cx.scope.thread };
    for (name, bytes) in content {
        files::write(&cx.app, place, name, Bytes::from(bytes), name).await.unwrap();
    }
    cx
}

/// A PDF with one line of text a page.
fn pdf(pages: &[&str]) -> Vec<u8> {
    let kids: Vec<_> = (0..pages.len()).map(|n| format!("{} 0 R", 4 + 2 * n)).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!("<< /Type /Pages /Kids [{}] /Count {} >>", kids.join(" "), pages.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned(),
    ];
    for (n, text) in pages.iter().enumerate() {
        let content = format!("BT /F1 24 Tf 72 720 Td ({text}) Tj ET");
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> /Contents {} 0 R >>",
            5 + 2 * n
        ));
        objects.push(format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()));
    }
    let (mut file, mut places) = ("%PDF-1.4\n".to_owned(), Vec::new());
    for (n, object) in objects.iter().enumerate() {
        places.push(file.len());
        write!(file, "{} 0 obj\n{object}\nendobj\n", n + 1).unwrap();
    }
    let table = file.len();
    write!(file, "xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).unwrap();
    for place in places {
        writeln!(file, "{place:010} 00000 n ").unwrap();
    }
    write!(file, "trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n", objects.len() + 1).unwrap();
    file.into_bytes()
}

fn archive(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in parts {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(content.as_bytes()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn docx(body: &str) -> Vec<u8> {
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><w:document xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\" \
         xmlns:mc=\"http://schemas.openxmlformats.org/markup-compatibility/2006\"><w:body>{body}</w:body></w:document>"
    );
    let types = "<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\"/>";
    archive(&[("[Content_Types].xml", types), ("_rels/.rels", "<Relationships/>"), ("word/document.xml", &document)])
}

/// A workbook with two sheets, the first of these rows of XML.
fn xlsx(rows: &str) -> Vec<u8> {
    let main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    let office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let package = "http://schemas.openxmlformats.org/package/2006/relationships";
    let sheet = |rows: &str| format!("<worksheet xmlns=\"{main}\"><sheetData>{rows}</sheetData></worksheet>");
    archive(&[
        ("[Content_Types].xml", "<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\"/>"),
        (
            "_rels/.rels",
            &format!(
                "<Relationships xmlns=\"{package}\"><Relationship Id=\"r1\" Type=\"{office}/officeDocument\" Target=\"xl/workbook.xml\"/></Relationships>"
            ),
        ),
        (
            "xl/workbook.xml",
            &format!(
                "<workbook xmlns=\"{main}\" xmlns:r=\"{office}\"><sheets><sheet name=\"Prices\" sheetId=\"1\" r:id=\"r1\"/>\
                 <sheet name=\"Notes\" sheetId=\"2\" r:id=\"r2\"/></sheets></workbook>"
            ),
        ),
        (
            "xl/_rels/workbook.xml.rels",
            &format!(
                "<Relationships xmlns=\"{package}\"><Relationship Id=\"r1\" Type=\"{office}/worksheet\" Target=\"worksheets/sheet1.xml\"/>\
                 <Relationship Id=\"r2\" Type=\"{office}/worksheet\" Target=\"worksheets/sheet2.xml\"/>\
                 <Relationship Id=\"r3\" Type=\"{office}/styles\" Target=\"styles.xml\"/></Relationships>"
            ),
        ),
        (
            "xl/styles.xml",
            &format!(
                "<styleSheet xmlns=\"{main}\"><cellXfs count=\"2\"><xf numFmtId=\"0\"/><xf numFmtId=\"14\"/></cellXfs></styleSheet>"
            ),
        ),
        ("xl/worksheets/sheet1.xml", &sheet(rows)),
        ("xl/worksheets/sheet2.xml", &sheet("<row r=\"1\"><c r=\"A1\" t=\"inlineStr\"><is><t>a note</t></is></c></row>")),
    ])
}

#[tokio::test]
async fn a_pdf_is_read_page_by_page() {
    let database = TestDatabase::sqlite().await;
    let long = "words ".repeat(400);
    let many = vec![long.as_str(); 10];
    let cx =
        with_files(&database, vec![("two.pdf", pdf(&["Hello from page one", "And from \\(two\\)"])), ("ten.pdf", pdf(&many))])
            .await;
    let read = call(&cx, "pdf_extract", json!({"name": "two.pdf"})).await;
    let page = |page, text: &str| json!({"page": page, "text": text});
    let expected = json!({"pages": [page(1, "Hello from page one"), page(2, "And from (two)")], "page_count": 2});
    assert_eq!(read, Ok(expected));
    let second = call(&cx, "pdf_extract", json!({"name": "two.pdf", "first_page": 2})).await.unwrap();
    assert_eq!(second["pages"], json!([page(2, "And from (two)")]));
    let e = call(&cx, "pdf_extract", json!({"name": "two.pdf", "first_page": 3})).await.unwrap_err();
    assert_eq!(e.code, "PAGE_NOT_FOUND");
    // What does not fit comes with the next calls.
    let cx = ToolContext { max_output_bytes: 12_000, ..cx };
    let (mut seen, mut next) = (0, json!(1));
    while !next.is_null() {
        let part = call(&cx, "pdf_extract", json!({"name": "ten.pdf", "first_page": next})).await.unwrap();
        assert!(part.to_string().len() <= 12_000 && part.get("truncated").is_none());
        seen += part["pages"].as_array().unwrap().len();
        next = part["next_page"].clone();
    }
    assert_eq!(seen, 10);
}

#[tokio::test]
async fn a_word_document_is_read_with_its_tables() {
    let paragraph = |text: &str| format!("<w:p><w:r><w:t xml:space=\"preserve\">{text}</w:t></w:r></w:p>");
    let cell = |text: &str| format!("<w:tc>{}</w:tc>", paragraph(text));
    let body = [
        "<w:p><w:pPr><w:tabs><w:tab w:val=\"left\"/></w:tabs></w:pPr><w:r><w:t>A &amp; B</w:t><w:tab/><w:t>&#8212; ü</w:t></w:r></w:p>".to_owned(),
        paragraph("second <!-- not this -->line"),
        format!("<w:tbl><w:tr>{}{}</w:tr><w:tr>{}{}</w:tr></w:tbl>", cell("x"), cell("y"), cell("1"), cell("2")),
        "<w:p><w:r><w:delText>deleted</w:delText><w:instrText>PAGE</w:instrText><w:br/><w:t>last</w:t></w:r></w:p>".to_owned(),
        "<mc:AlternateContent><mc:Choice><w:p><w:r><w:t>box</w:t></w:r></w:p></mc:Choice><mc:Fallback><w:p><w:r><w:t>box</w:t></w:r></w:p></mc:Fallback></mc:AlternateContent>".to_owned(),
    ];
    let database = TestDatabase::sqlite().await;
    let cx = with_files(&database, vec![("a.docx", docx(&body.concat()))]).await;
    let expected = "A & B\t— ü\nsecond line\nx\ty\n1\t2\n\nlast\nbox";
    let read = call(&cx, "docx_extract", json!({"name": "a.docx"})).await;
    assert_eq!(read, Ok(json!({"text": expected, "total_chars": expected.chars().count()})));
    let rest = call(&cx, "docx_extract", json!({"name": "a.docx", "offset": 6})).await.unwrap();
    assert!(rest["text"].as_str().unwrap().starts_with("— ü\nsecond"), "{rest}");
    let part = sandbox().read_docx(&docx(&paragraph(&"é\"".repeat(100))), 10, 52).await.unwrap();
    assert_eq!((part.text.as_str(), part.total_chars), (format!("{}é", "é\"".repeat(12)).as_str(), 200));
    assert_eq!(part.next_offset, Some(35));
}

#[tokio::test]
async fn a_workbook_is_read_as_rows() {
    let rows = "<row r=\"1\"><c r=\"A1\" t=\"inlineStr\"><is><t>name</t></is></c><c r=\"B1\" t=\"inlineStr\"><is><t>price</t></is></c></row>\
        <row r=\"2\"><c r=\"A2\" t=\"inlineStr\"><is><t>tea &amp; milk</t></is></c><c r=\"B2\"><v>2.5</v></c><c r=\"C2\" s=\"1\"><v>46097</v></c></row>\
        <row r=\"3\"><c r=\"A3\" t=\"b\"><v>1</v></c><c r=\"B3\"><v>1200</v></c><c r=\"C3\" t=\"e\"><v>#DIV/0!</v></c></row>";
    let database = TestDatabase::sqlite().await;
    let cx = with_files(&database, vec![("a.xlsx", xlsx(rows)), ("a.csv", b"\xef\xbb\xbfa;b\n1;\"x;y\"\n\xc3\xbc;3\n".to_vec())])
        .await;
    let read = call(&cx, "spreadsheet_read", json!({"name": "a.xlsx"})).await;
    assert_eq!(
        read,
        Ok(json!({
            "sheets": ["Prices", "Notes"], "sheet": "Prices", "total_rows": 3,
            "rows": [["name", "price", null], ["tea & milk", 2.5, "2026-03-16"], [true, 1200, "#DIV/0!"]],
        }))
    );
    let part = call(&cx, "spreadsheet_read", json!({"name": "a.xlsx", "offset": 1, "limit": 1})).await.unwrap();
    assert_eq!((&part["rows"][0][0], &part["next_offset"]), (&json!("tea & milk"), &json!(2)));
    let notes = call(&cx, "spreadsheet_read", json!({"name": "a.xlsx", "sheet": "Notes"})).await.unwrap();
    assert_eq!(notes["rows"], json!([["a note"]]));
    let e = call(&cx, "spreadsheet_read", json!({"name": "a.xlsx", "sheet": "None"})).await.unwrap_err();
    assert!(e.code == "SHEET_NOT_FOUND" && e.message.contains("Notes"), "{e}");
    let csv = call(&cx, "spreadsheet_read", json!({"name": "a.csv", "limit": 5})).await.unwrap();
    assert_eq!((&csv["rows"], &csv["total_rows"]), (&json!([["a", "b"], ["1", "x;y"], ["ü", "3"]]), &json!(3)));
}

#[tokio::test]
async fn an_open_document_sheet_is_read_too() {
    let content = "<?xml version=\"1.0\"?><office:document-content xmlns:office=\"urn:oasis:names:tc:opendocument:xmlns:office:1.0\" \
        xmlns:table=\"urn:oasis:names:tc:opendocument:xmlns:table:1.0\" xmlns:text=\"urn:oasis:names:tc:opendocument:xmlns:text:1.0\">\
        <office:body><office:spreadsheet><table:table table:name=\"One\"><table:table-row>\
        <table:table-cell office:value-type=\"string\"><text:p>a</text:p></table:table-cell>\
        <table:table-cell office:value-type=\"float\" office:value=\"7\"><text:p>7</text:p></table:table-cell>\
        </table:table-row></table:table></office:spreadsheet></office:body></office:document-content>";
    let manifest = "<manifest:manifest xmlns:manifest=\"urn:oasis:names:tc:opendocument:xmlns:manifest:1.0\"/>";
    let file = archive(&[
        ("mimetype", "application/vnd.oasis.opendocument.spreadsheet"),
        ("META-INF/manifest.xml", manifest),
        ("content.xml", content),
    ]);
    let rows = Rows { is_csv: false, sheet: None, offset: 0, limit: 10 };
    let read = sandbox().read_sheet(&file, rows, 1000).await.unwrap();
    assert_eq!((read.sheet.as_str(), read.rows), ("One", vec![vec![json!("a"), json!(7)]]));
}

#[tokio::test]
async fn what_is_broken_or_a_bomb_ends_in_its_child() {
    let sandbox = sandbox();
    let rows = |sheet: Option<&str>| Rows { is_csv: false, sheet: sheet.map(str::to_owned), offset: 0, limit: 10 };
    for garbage in [&b""[..], b"%PDF-1.4 and no more", b"PK\x03\x04", &[0xff; 1000]] {
        assert_eq!(sandbox.read_pdf(garbage, 1, 1000).await.unwrap_err().code, "UNREADABLE_FILE");
        assert_eq!(sandbox.read_docx(garbage, 0, 1000).await.unwrap_err().code, "UNREADABLE_FILE");
        assert_eq!(sandbox.read_sheet(garbage, rows(None), 1000).await.unwrap_err().code, "UNREADABLE_FILE");
    }
    // One that is its own parent, so that looking for its parents never ends.
    let circle = String::from_utf8(pdf(&["text"])).unwrap().replace("/Parent 2 0 R /MediaBox [0 0 612 792]", "/Parent 4 0 R");
    let outcome = sandbox.read_pdf(circle.as_bytes(), 1, 1000).await;
    let is_told = match &outcome {
        Ok(read) => read.pages[0].text.contains("cannot be read"),
        Err(e) => ["SANDBOX_FAILED", "TIMEOUT", "UNREADABLE_FILE"].contains(&&*e.code),
    };
    assert!(is_told, "{outcome:?}");
    let bomb = docx(&format!("<!--{}-->", " ".repeat(1 << 20)).repeat(70));
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let e = sandbox.read_docx(&bomb, 0, 1000).await.unwrap_err();
    assert!(e.code == "UNREADABLE_FILE" && e.message.contains("64 MiB"), "{e}");
    // Two cells in opposite corners of a sheet of 17 billion.
    let corners = "<row r=\"1\"><c r=\"A1\"><v>1</v></c></row><row r=\"1048576\"><c r=\"XFD1048576\"><v>2</v></c></row>";
    let e = sandbox.read_sheet(&xlsx(corners), rows(None), 1000).await.unwrap_err();
    assert!(["MEMORY_LIMIT", "UNREADABLE_FILE"].contains(&&*e.code), "{e}");
    let fine = sandbox.read_pdf(&pdf(&["still here"]), 1, 1000).await.unwrap();
    assert_eq!(fine.pages[0].text, "still here");
}
