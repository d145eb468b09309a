//! Code of users and models, and parsers of uploaded documents, run in child processes of our own binary: they have no files, no
//! network, no environment, little memory and little time, and what they do wrong ends with them.
mod child;
mod confine;
mod documents;
mod javascript;
mod wire;

use std::{
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use runmill_shared::config;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::Semaphore,
    time::timeout,
};

pub use self::{
    child::child,
    wire::{CodeOutput, DocxText, PdfPage, PdfText, SheetRows},
};
use self::{
    confine::{OUT_OF_TIME, has_no_memory},
    wire::{Reply, Request, Work},
};
use crate::tools::ToolError;

/// What a child takes to start, and to say that its time is over before it is killed for it.
const GRACE: Duration = Duration::from_secs(2);
/// Of what a child that failed has said.
const MAX_STDERR: u64 = 4096;
/// A reply is the output, its frame, and the logs.
const REPLY_ROOM: usize = 65_536;

/// What one execution may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub timeout: Duration,
    pub memory_bytes: u64,
    /// Of the result as JSON text.
    pub max_output_bytes: usize,
}

/// Make one a process: its clones share the number of children.
#[derive(Clone)]
pub struct Sandbox {
    settings: config::Sandbox,
    permits: Arc<Semaphore>,
}

impl Sandbox {
    pub fn new(settings: &config::Sandbox) -> Self {
        Self { settings: settings.clone(), permits: Arc::new(Semaphore::new(settings.parallel)) }
    }

    /// What code may take when it asks for nothing, and at most.
    pub fn limits(&self) -> Limits {
        let s = &self.settings;
        Limits { timeout: s.timeout, memory_bytes: s.memory_bytes, max_output_bytes: s.max_output_bytes }
    }

    fn document_limits(&self) -> Limits {
        Limits { timeout: self.settings.document_timeout, ..self.limits() }
    }

    /// Runs JavaScript: the body of an async function of `input`. Dropping the future kills it.
    ///
    /// # Errors
    /// `CODE_ERROR` with the line, `TIMEOUT`, `MEMORY_LIMIT`, `OUTPUT_TOO_LARGE`, `RESULT_NOT_JSON`; `SANDBOX_FAILED` when the child
    /// could not do its work.
    pub async fn run_code(&self, code: &str, input: &Value, limits: Limits) -> Result<CodeOutput, ToolError> {
        self.ask(Work::Code { code: code.to_owned(), input: input.clone() }, &[], limits).await
    }

    /// The text of a PDF's pages from `first_page` (1…), of at most `max_bytes` as JSON.
    ///
    /// # Errors
    /// `UNREADABLE_FILE`, `TIMEOUT`, `MEMORY_LIMIT`, `SANDBOX_FAILED`.
    pub async fn read_pdf(&self, file: &[u8], first_page: u32, max_bytes: usize) -> Result<PdfText, ToolError> {
        self.ask(Work::Pdf { first_page, max_bytes }, file, self.document_limits()).await
    }

    /// The text of a Word document from `offset` (characters), of at most `max_bytes` as JSON. Errors as `read_pdf`.
    pub async fn read_docx(&self, file: &[u8], offset: usize, max_bytes: usize) -> Result<DocxText, ToolError> {
        self.ask(Work::Docx { offset, max_bytes }, file, self.document_limits()).await
    }

    /// Rows of a sheet (the first when none is named) from `offset`, of at most `max_bytes` as JSON. Errors as `read_pdf`, and
    /// `SHEET_NOT_FOUND`.
    pub async fn read_sheet(&self, file: &[u8], rows: Rows, max_bytes: usize) -> Result<SheetRows, ToolError> {
        let Rows { is_csv, sheet, offset, limit } = rows;
        self.ask(Work::Sheet { is_csv, sheet, offset, limit, max_bytes }, file, self.document_limits()).await
    }

    async fn ask<T: DeserializeOwned>(&self, work: Work, body: &[u8], limits: Limits) -> Result<T, ToolError> {
        let _permit = self.permits.acquire().await.map_err(failed)?;
        let request = Request {
            timeout_ms: u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX),
            memory_bytes: limits.memory_bytes,
            max_output_bytes: limits.max_output_bytes,
            work,
        };
        let head = serde_json::to_vec(&request).map_err(failed)?;
        let mut child = self.spawn(limits)?;
        let max_reply = limits.max_output_bytes + REPLY_ROOM;
        let said = timeout(limits.timeout + GRACE, talk(&mut child, &head, body, max_reply)).await;
        let outcome = match said {
            Err(_elapsed) => Err(too_slow(limits)),
            Ok(Said::Reply(reply)) => answer(&reply),
            Ok(Said::TooMuch) => Err(too_large(limits)),
            Ok(Said::Nothing) => Err(died(&mut child, limits).await),
        };
        // Nothing of it is left when the caller goes on.
        child.start_kill().ok();
        child.wait().await.map_err(failed)?;
        outcome
    }

    fn spawn(&self, limits: Limits) -> Result<Child, ToolError> {
        let seconds = limits.timeout.as_secs() + GRACE.as_secs() + 1;
        let mut command = Command::new(self.program()?);
        command.args(["sandbox", &limits.memory_bytes.to_string(), &seconds.to_string()]).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().map_err(|e| {
            tracing::error!(error = %e, program = %self.settings.program.display(), "the sandbox does not start");
            ToolError::new("SANDBOX_FAILED", "the sandbox could not be started")
        })
    }

    fn program(&self) -> Result<PathBuf, ToolError> {
        if !self.settings.program.as_os_str().is_empty() {
            return Ok(self.settings.program.clone());
        }
        // The file of a running process may have been replaced by a newer release; this names the one that runs.
        if cfg!(target_os = "linux") {
            return Ok(PathBuf::from("/proc/self/exe"));
        }
        std::env::current_exe().map_err(failed)
    }
}

/// Which rows of a spreadsheet.
#[derive(Clone, Debug)]
pub struct Rows {
    pub is_csv: bool,
    pub sheet: Option<String>,
    pub offset: usize,
    pub limit: usize,
}

enum Said {
    Reply(Vec<u8>),
    TooMuch,
    Nothing,
}

/// One request, one reply.
async fn talk(child: &mut Child, head: &[u8], body: &[u8], max_reply: usize) -> Said {
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else { return Said::Nothing };
    // A child that dies before it has read all of it is told from its end.
    for part in [head, body] {
        let length = (part.len() as u64).to_le_bytes();
        if stdin.write_all(&length).await.is_err() || stdin.write_all(part).await.is_err() {
            break;
        }
    }
    drop(stdin);
    let Ok(length) = stdout.read_u64_le().await else { return Said::Nothing };
    match usize::try_from(length) {
        Ok(length) if length <= max_reply => {
            let mut reply = vec![0; length];
            stdout.read_exact(&mut reply).await.map_or(Said::Nothing, |_| Said::Reply(reply))
        }
        _ => Said::TooMuch,
    }
}

fn answer<T: DeserializeOwned>(reply: &[u8]) -> Result<T, ToolError> {
    match serde_json::from_slice(reply).map_err(failed)? {
        Reply::Ok(output) => serde_json::from_value(output).map_err(failed),
        Reply::Error { code, message } => Err(ToolError::new(code, message)),
    }
}

/// Why a child ended without a reply.
async fn died(child: &mut Child, limits: Limits) -> ToolError {
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(MAX_STDERR).read_to_end(&mut said).await.ok();
    }
    let said = String::from_utf8_lossy(&said);
    match child.wait().await {
        Ok(status) if OUT_OF_TIME.iter().any(|signal| status.signal() == Some(*signal)) => too_slow(limits),
        Ok(status) if has_no_memory(status.signal(), &said) => {
            let megabytes = limits.memory_bytes >> 20;
            ToolError::new("MEMORY_LIMIT", format!("it needed more than {megabytes} MiB of memory"))
        }
        Ok(status) => crashed(status, &said),
        Err(e) => failed(e),
    }
}

fn crashed(status: ExitStatus, said: &str) -> ToolError {
    tracing::warn!(%status, said, "a sandbox ended without a reply");
    ToolError::new("SANDBOX_FAILED", "the sandbox ended without a result")
}

fn too_slow(limits: Limits) -> ToolError {
    ToolError::new("TIMEOUT", format!("stopped after {:?}", limits.timeout))
}

fn too_large(limits: Limits) -> ToolError {
    ToolError::new("OUTPUT_TOO_LARGE", format!("the result has more than {} bytes", limits.max_output_bytes))
}

fn failed(error: impl std::fmt::Display) -> ToolError {
    tracing::error!(%error, "the sandbox failed");
    ToolError::new("SANDBOX_FAILED", "the sandbox failed")
}
