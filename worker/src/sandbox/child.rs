//! The child's side: give everything up, read one request, do it, write one reply.
use std::{
    any::Any,
    fs::File,
    io::{self, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use serde::Serialize;
use serde_json::Value;

use super::{
    confine::confine,
    documents::{docx, pdf, sheet},
    javascript,
    wire::{Problem, Reply, Request, Work},
};

/// The whole process of `runmill sandbox`. Started by the worker and by nobody else, before there is any thread.
///
/// `memory_bytes` and `seconds` (on the clock and of work) are enforced before anything is read.
pub fn child(memory_bytes: u64, seconds: u32) -> ExitCode {
    // A panic is told in the reply.
    std::panic::set_hook(Box::new(|_| {}));
    match confine(memory_bytes, seconds).and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("runmill sandbox: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve(mut reply_to: File) -> io::Result<()> {
    let mut input = io::stdin().lock();
    let request: Request = serde_json::from_slice(&part(&mut input)?)?;
    let body = part(&mut input)?;
    let outcome = catch_unwind(AssertUnwindSafe(|| execute(request, &body)));
    let reply = match outcome {
        Ok(Ok(value)) => Reply::Ok(value),
        Ok(Err(problem)) => Reply::Error { code: problem.code.to_owned(), message: problem.message },
        Err(panic) => {
            let problem = Problem::unreadable(panic_text(&*panic));
            Reply::Error { code: problem.code.to_owned(), message: problem.message }
        }
    };
    let reply = serde_json::to_vec(&reply)?;
    reply_to.write_all(&(reply.len() as u64).to_le_bytes())?;
    reply_to.write_all(&reply)
}

/// One part of the request: its length, and as many bytes.
fn part(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let mut bytes = Vec::new();
    let length = u64::from_le_bytes(length);
    input.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn execute(request: Request, body: &[u8]) -> Result<Value, Problem> {
    match request.work {
        Work::Code { code, input } => {
            let limits = javascript::Limits {
                timeout: std::time::Duration::from_millis(request.timeout_ms),
                memory_bytes: request.memory_bytes,
                max_output_bytes: request.max_output_bytes,
            };
            value(javascript::run(&code, &input, limits)?)
        }
        Work::Pdf { first_page, max_bytes } => value(pdf::read(body, first_page, max_bytes)?),
        Work::Docx { offset, max_bytes } => value(docx::read(body, offset, max_bytes)?),
        Work::Sheet { is_csv, sheet, offset, limit, max_bytes } => {
            let wanted = sheet::Wanted { sheet, offset, limit, max_bytes };
            value(if is_csv { sheet::read_csv(body, &wanted)? } else { sheet::read_workbook(body, wanted)? })
        }
    }
}

fn value(output: impl Serialize) -> Result<Value, Problem> {
    serde_json::to_value(output).map_err(Problem::unreadable)
}

pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("its parser failed")
}
