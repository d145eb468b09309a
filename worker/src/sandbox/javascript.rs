//! JavaScript by QuickJS, with nothing but the language in it: no modules, timers, files or network. Only `console` is added.
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use rquickjs::{
    CaughtError, Coerced, Context, Ctx, Error, Exception, Function, Promise, Runtime, Value as Js, context::EvalOptions,
};
use serde_json::Value;

use super::wire::{CodeOutput, Problem};

/// Names the user's code in what QuickJS says of it.
const FILE: &str = "code.js";
const STACK_BYTES: usize = 1 << 20;
const MAX_LOGS: usize = 100;
const MAX_LOG_BYTES: usize = 8192;
/// Of what was logged, in the message of a failure.
const MAX_TOLD: usize = 1024;
const CONSOLE: &str = r"(log) => {
    const show = value => {
        if (typeof value === 'string') return value;
        if (value instanceof Error) return String(value);
        try { return JSON.stringify(value) ?? String(value); } catch { return String(value); }
    };
    const write = (...values) => log(values.map(show).join(' '));
    globalThis.console = { debug: write, error: write, info: write, log: write, warn: write };
}";

#[derive(Clone, Copy)]
pub struct Limits {
    pub timeout: Duration,
    pub memory_bytes: u64,
    pub max_output_bytes: usize,
}

#[derive(Default)]
struct Logs {
    lines: Vec<String>,
    bytes: usize,
}

impl Logs {
    fn push(&mut self, line: String) {
        let room = MAX_LOG_BYTES - self.bytes;
        if room == 0 || self.lines.len() == MAX_LOGS {
            return;
        }
        let line = line[..line.floor_char_boundary(room)].to_owned();
        self.bytes += line.len().max(1);
        self.lines.push(line);
    }

    fn told(&self) -> String {
        let all = self.lines.join("\n");
        let from = all.ceil_char_boundary(all.len().saturating_sub(MAX_TOLD));
        if all.is_empty() { String::new() } else { format!("\nlogged:\n{}", &all[from..]) }
    }
}

/// Runs `code` as the body of an async function of `input`.
pub fn run(code: &str, input: &Value, limits: Limits) -> Result<CodeOutput, Problem> {
    let (deadline, is_late) = (Instant::now() + limits.timeout, Rc::new(Cell::new(false)));
    let runtime = Runtime::new().map_err(engine)?;
    runtime.set_memory_limit(usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX));
    runtime.set_max_stack_size(STACK_BYTES);
    let late = Rc::clone(&is_late);
    runtime.set_interrupt_handler(Some(Box::new(move || {
        late.set(late.get() || Instant::now() >= deadline);
        late.get()
    })));
    let context = Context::full(&runtime).map_err(engine)?;
    let logs = Rc::<RefCell<Logs>>::default();
    let outcome = context.with(|ctx| {
        let result = (|| {
            give_console(&ctx, &logs)?;
            let value = settle(&ctx, start(&ctx, code, input)?, deadline, &is_late)?;
            to_json(&ctx, value, limits.max_output_bytes)
        })();
        result.map_err(|failure| failure.problem(&ctx, is_late.get(), limits))
    });
    match outcome {
        Ok(result) => Ok(CodeOutput { result, logs: std::mem::take(&mut logs.borrow_mut().lines) }),
        Err(problem) => Err(Problem { message: problem.message + &logs.borrow().told(), ..problem }),
    }
}

/// A failure of the code, thrown or ours to say.
enum Failure {
    Thrown(Error),
    Problem(Problem),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Thrown(error)
    }
}

impl Failure {
    fn problem(self, ctx: &Ctx<'_>, is_late: bool, limits: Limits) -> Problem {
        if is_late {
            return Problem::new("TIMEOUT", format!("stopped after {:?}", limits.timeout));
        }
        let memory = || Problem::new("MEMORY_LIMIT", format!("it needed more than {} MiB of memory", limits.memory_bytes >> 20));
        match self {
            Self::Problem(problem) => problem,
            Self::Thrown(Error::Allocation) => memory(),
            Self::Thrown(error) => match CaughtError::from_error(ctx, error) {
                CaughtError::Exception(e) if is_out_of_memory(&e) => memory(),
                CaughtError::Exception(e) => Problem::new("CODE_ERROR", described(&e)),
                CaughtError::Value(value) => Problem::new("CODE_ERROR", format!("thrown: {}", text(&value))),
                CaughtError::Error(e) => Problem::new("CODE_ERROR", e.to_string()),
            },
        }
    }
}

fn engine(error: Error) -> Problem {
    match error {
        Error::Allocation => Problem::new("MEMORY_LIMIT", "there is not enough memory to start"),
        error => Problem::new("SANDBOX_FAILED", error.to_string()),
    }
}

fn options() -> EvalOptions {
    let mut options = EvalOptions::default();
    options.strict = false;
    options.filename = Some(FILE.to_owned());
    options
}

fn give_console(ctx: &Ctx<'_>, logs: &Rc<RefCell<Logs>>) -> Result<(), Error> {
    let logs = Rc::clone(logs);
    let log = Function::new(ctx.clone(), move |line: Coerced<String>| logs.borrow_mut().push(line.0))?;
    ctx.eval::<Function<'_>, _>(CONSOLE)?.call((log,))
}

/// On the first line, so that the lines in messages are the user's.
fn start<'js>(ctx: &Ctx<'js>, code: &str, input: &Value) -> Result<Promise<'js>, Failure> {
    let function: Function<'_> = ctx.eval_with_options(format!("(async function (input) {{{code}\n}})"), options())?;
    let input = ctx.json_parse(input.to_string())?;
    Ok(function.call((input,))?)
}

/// Runs what is pending until the promise has settled.
fn settle<'js>(ctx: &Ctx<'js>, promise: Promise<'js>, deadline: Instant, is_late: &Cell<bool>) -> Result<Js<'js>, Failure> {
    loop {
        if let Some(result) = promise.result() {
            return Ok(result?);
        }
        is_late.set(is_late.get() || Instant::now() >= deadline);
        if is_late.get() || !ctx.execute_pending_job() {
            return Err(Failure::Problem(Problem::new("CODE_ERROR", "it waits for a promise that nothing can settle any more")));
        }
    }
}

fn to_json<'js>(ctx: &Ctx<'js>, value: Js<'js>, max_bytes: usize) -> Result<Value, Failure> {
    let not_json = |why: String| Failure::Problem(Problem::new("RESULT_NOT_JSON", why));
    let kind = value.type_name();
    let json = match ctx.json_stringify(value) {
        Ok(json) => json,
        // A cycle, a BigInt, or a `toJSON` that throws.
        Err(error) => match CaughtError::from_error(ctx, error) {
            CaughtError::Exception(e) if !is_out_of_memory(&e) => return Err(not_json(described(&e))),
            other => return Err(Failure::Thrown(other.throw(ctx))),
        },
    };
    let json = json.ok_or_else(|| not_json(format!("the code returned {kind}; return a value that JSON has")))?.to_string()?;
    if json.len() > max_bytes {
        let message = format!("the result has {} bytes, more than {max_bytes}", json.len());
        return Err(Failure::Problem(Problem::new("OUTPUT_TOO_LARGE", message)));
    }
    serde_json::from_str(&json).map_err(|e| not_json(e.to_string()))
}

fn is_out_of_memory(e: &Exception<'_>) -> bool {
    e.message().as_deref() == Some("out of memory") && name(e) == "InternalError"
}

fn name(e: &Exception<'_>) -> String {
    e.as_object().get::<_, Coerced<String>>("name").map_or_else(|_| "Error".to_owned(), |name| name.0)
}

/// `TypeError: x is not a function (line 3)`.
fn described(e: &Exception<'_>) -> String {
    let line = e.stack().as_deref().and_then(line_of).map(|line| format!(" (line {line})"));
    format!("{}: {}{}", name(e), e.message().unwrap_or_default(), line.unwrap_or_default())
}

/// The first line of the user's code in a stack trace.
fn line_of(stack: &str) -> Option<u32> {
    let (_, place) = stack.split_once(&format!("{FILE}:"))?;
    place.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn text(value: &Js<'_>) -> String {
    let json = value.ctx().json_stringify(value.clone()).ok().flatten().and_then(|json| json.to_string().ok());
    json.unwrap_or_else(|| value.type_name().to_owned())
}
