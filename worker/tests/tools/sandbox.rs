//! JavaScript in child processes: what it can do, and that nothing it does reaches further than its limits.
use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use runmill_shared::{
    config::Config,
    domain::tool::{CustomTool, ToolType},
};
use runmill_testkit::{database::TestDatabase, sandbox::sandbox_program};
use runmill_worker::{
    sandbox::{Limits, Sandbox},
    tools::{ToolError, Tools, custom::code_tool},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::{DEADLINE, call, context, in_thread};

/// An execution that its limits do not stop would take minutes.
const STOPPED: Duration = Duration::from_secs(60);

fn sandbox(parallel: usize) -> Sandbox {
    let mut settings = Config::defaults().unwrap().sandbox;
    settings.program = sandbox_program();
    settings.parallel = parallel;
    settings.timeout = DEADLINE;
    Sandbox::new(&settings)
}

async fn run(sandbox: &Sandbox, code: &str, input: Value) -> Result<Value, ToolError> {
    Ok(sandbox.run_code(code, &input, sandbox.limits()).await?.result)
}

#[tokio::test]
async fn code_computes_with_its_input() {
    let sandbox = sandbox(4);
    let good = [
        ("return input.a + input.b", json!({"a": 1, "b": 2}), json!(3)),
        ("return input", json!({"deep": [{"text": "ünï \u{1F980}\n\u{0}"}, null, true, -1.5e300]}), Value::Null),
        ("const later = async n => n * 2; return await later(await Promise.resolve(21))", Value::Null, json!(42)),
        (
            "let sum = 0; for (const n of input) sum += n; return {sum, of: input.length} // done",
            json!([1, 2, 3]),
            json!({"sum": 6, "of": 3}),
        ),
        (
            "return [new Date(0).toISOString(), /b+/.exec('abbc')[0], 0.1 + 0.2 === 0.3]",
            Value::Null,
            json!(["1970-01-01T00:00:00.000Z", "bb", false]),
        ),
        ("return {n: NaN, u: undefined, d: new Date(0)}", Value::Null, json!({"n": null, "d": "1970-01-01T00:00:00.000Z"})),
        ("return null", Value::Null, Value::Null),
    ];
    for (code, input, expected) in good {
        let expected = if code == "return input" { input.clone() } else { expected };
        assert_eq!(run(&sandbox, code, input).await, Ok(expected), "{code}");
    }
    let output = sandbox
        .run_code("console.log('a', 1, {b: [2]}); console.error(new TypeError('x')); return 1", &Value::Null, sandbox.limits())
        .await
        .unwrap();
    assert_eq!(output.logs, ["a 1 {\"b\":[2]}", "TypeError: x"]);
}

#[tokio::test]
async fn nothing_of_the_outside_is_there() {
    let sandbox = sandbox(4);
    let names = "fetch require process module exports Deno Bun std os XMLHttpRequest WebSocket setTimeout setInterval queueMicrotask print scriptArgs importScripts Worker";
    let code = "return input.split(' ').filter(name => name !== 'queueMicrotask' && eval('typeof ' + name) !== 'undefined')";
    assert_eq!(run(&sandbox, code, json!(names)).await, Ok(json!([])));
    for code in [
        "return await import('os')",
        "return await import('/etc/passwd')",
        "return require('fs')",
        "return await fetch('http://127.0.0.1/')",
    ] {
        assert_eq!(run(&sandbox, code, Value::Null).await.unwrap_err().code, "CODE_ERROR", "{code}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_line() {
    let sandbox = sandbox(4);
    let cases = [
        ("const a = 1;\nreturn a.b.c", "CODE_ERROR", "TypeError: cannot read property 'c' of undefined (line 2)"),
        ("throw new RangeError('too far')", "CODE_ERROR", "RangeError: too far (line 1)"),
        ("return 1;\n\nlet let = 2", "CODE_ERROR", "(line 3)"),
        ("throw {reason: 'mine'}", "CODE_ERROR", "thrown: {\"reason\":\"mine\"}"),
        ("console.log('so far'); throw new Error('then')", "CODE_ERROR", "logged:\nso far"),
        ("await new Promise(() => {})", "CODE_ERROR", "promise"),
        ("const f = () => f() + 1; return f()", "CODE_ERROR", "Maximum call stack size exceeded"),
        ("const a = []; a.push(a); return a", "RESULT_NOT_JSON", "circular"),
        ("return 1n", "RESULT_NOT_JSON", "BigInt"),
        ("input.x = 1", "RESULT_NOT_JSON", "return"),
        ("return () => 1", "RESULT_NOT_JSON", "function"),
        ("return '\\ud800'", "RESULT_NOT_JSON", ""),
        ("let a = 1; for (let i = 0; i < 1000; i++) a = [a]; return a", "RESULT_NOT_JSON", "recursion"),
        ("return 'x'.repeat(300_000)", "OUTPUT_TOO_LARGE", "262144"),
    ];
    for (code, expected, part) in cases {
        let e = run(&sandbox, code, json!({})).await.unwrap_err();
        assert_eq!(e.code, expected, "{code}: {e}");
        assert!(e.message.contains(part), "{code}: {e}");
    }
    let noisy = "for (let i = 0; i < 1e5; i++) console.log('é'.repeat(100)); return 1";
    let output = sandbox.run_code(noisy, &Value::Null, sandbox.limits()).await.unwrap();
    assert!(output.logs.iter().map(String::len).sum::<usize>() <= 8192 && output.logs.len() > 10);
}

/// Each of these would take minutes, or the machine's memory.
#[tokio::test]
async fn what_does_not_end_is_stopped_while_others_go_on() {
    let sandbox = sandbox(3);
    let limits = Limits { timeout: Duration::from_secs(1), memory_bytes: 32 << 20, max_output_bytes: 65_536 };
    let bombs = [
        ("while (true) {}", &["TIMEOUT"][..]),
        ("for (;;) { try { while (true) {} } catch {} }", &["TIMEOUT"]),
        ("return /(a+)+$/.test('a'.repeat(40) + 'b')", &["TIMEOUT"]),
        ("return [].concat(new Array(2**32-1)).join()", &["TIMEOUT", "MEMORY_LIMIT", "CODE_ERROR"]),
        ("const again = () => { Promise.resolve().then(again) }; again(); await new Promise(() => {})", &["TIMEOUT"]),
        ("const a = []; while (true) a.push(new Array(1e5).fill(1.5))", &["MEMORY_LIMIT"]),
        ("let s = 'x'; while (true) s += s + String(s.length)", &["MEMORY_LIMIT", "CODE_ERROR"]),
        ("return new ArrayBuffer(1e9).byteLength", &["MEMORY_LIMIT"]),
        ("return 'x'.repeat(5e6)", &["OUTPUT_TOO_LARGE"]),
        ("return new Array(2e4).fill({a: [1, 2, 3]})", &["OUTPUT_TOO_LARGE"]),
        ("let d = 0; const f = () => { d++; f() }; try { f() } catch {}; while (true) { try { f() } catch {} }", &["TIMEOUT"]),
        ("return {toJSON() { while (true) {} }}", &["TIMEOUT"]),
        ("return JSON.parse('['.repeat(1e6))", &["CODE_ERROR", "MEMORY_LIMIT"]),
    ];
    for (code, expected) in bombs {
        let started = Instant::now();
        let bomb = sandbox.run_code(code, &Value::Null, limits);
        let (stopped, other) = timeout(STOPPED, async { tokio::join!(bomb, run(&sandbox, "return 6 * 7", Value::Null)) })
            .await
            .unwrap_or_else(|_| panic!("{code} goes on"));
        let e = stopped.unwrap_err();
        assert!(expected.contains(&&*e.code), "{code}: {e} after {:?}", started.elapsed());
        assert_eq!(other, Ok(json!(42)), "beside {code}");
    }
}

/// The processes whose memory limit is this.
fn children(memory: u64) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    let is_it = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).any(|word| word == memory.to_string().as_bytes())
    };
    entries.filter(|name| name.bytes().all(|b| b.is_ascii_digit())).filter(is_it).collect()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(STOPPED, wait).await.unwrap_or_else(|_| panic!("{what}: not within {STOPPED:?}"));
}

#[tokio::test]
async fn a_dropped_execution_leaves_no_child() {
    let sandbox = sandbox(2);
    let limits = Limits { memory_bytes: 33_333_333, timeout: Duration::from_secs(600), ..sandbox.limits() };
    let endless = sandbox.run_code("while (true) {}", &Value::Null, limits);
    let mut endless = Box::pin(endless);
    tokio::select! {
        outcome = &mut endless => panic!("it ended: {outcome:?}"),
        () = until("the child", || children(33_333_333).len() == 1) => {}
    }
    let pid = children(33_333_333).remove(0);
    drop(endless);
    until("the child's end", || !fs::exists(format!("/proc/{pid}")).unwrap()).await;
    assert!(children(33_333_333).is_empty());
    // Its place is free again, and so is that of an execution whose tool is cancelled.
    let code = Arc::new(code_tool(&sandbox, custom(json!({"code": "while (true) {}", "memory_mb": 31}))).unwrap());
    let tools = Tools::new(vec![Arc::clone(&code)]).unwrap();
    let cx = context().await;
    let cancel = async {
        until("the tool's child", || children(31 << 20).len() == 1).await;
        cx.cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(tools.call("mine", &cx, json!({})), cancel);
    assert_eq!(outcome.unwrap_err().code, "CANCELLED");
    until("the tool's child's end", || children(31 << 20).is_empty()).await;
    let both = async { tokio::join!(run(&sandbox, "return 1", Value::Null), run(&sandbox, "return 2", Value::Null)) };
    assert_eq!(timeout(STOPPED, both).await.unwrap(), (Ok(json!(1)), Ok(json!(2))));
}

#[tokio::test]
async fn a_child_has_nothing_and_may_nothing() {
    let sandbox = sandbox(1);
    let limits = Limits { memory_bytes: 34_444_444, timeout: Duration::from_secs(600), ..sandbox.limits() };
    let mut endless = Box::pin(sandbox.run_code("while (true) {}", &Value::Null, limits));
    let of = |pid: &str, what: &str| fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default();
    let is_confined = || children(34_444_444).first().is_some_and(|pid| of(pid, "status").contains("NoNewPrivs:\t1"));
    tokio::select! {
        outcome = &mut endless => panic!("it ended: {outcome:?}"),
        () = until("a confined child", is_confined) => {}
    }
    let pid = children(34_444_444).remove(0);
    assert_eq!(of(&pid, "environ"), "");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    let mut open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|e| e.unwrap().file_name()).collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2", "3"]);
    let allowed = of(&pid, "limits");
    for (name, most) in [("Max open files", 4), ("Max processes", 0), ("Max file size", 0), ("Max core file size", 0)] {
        let line = allowed.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{allowed}"));
        let words: Vec<_> = line[name.len()..].split_whitespace().take(2).collect();
        assert_eq!(words, [most.to_string(), most.to_string()], "{name}");
    }
    // A second one has to wait for the only place.
    let mut second = Box::pin(run(&sandbox, "return 2", Value::Null));
    assert!(timeout(Duration::from_millis(200), &mut second).await.is_err());
    drop(endless);
    assert_eq!(timeout(STOPPED, second).await.unwrap(), Ok(json!(2)));
}

#[tokio::test]
async fn a_sandbox_that_cannot_start_says_so() {
    let mut settings = Config::defaults().unwrap().sandbox;
    for program in ["/nowhere/runmill", "/bin/false", "/bin/true"] {
        settings.program = program.into();
        let e = run(&Sandbox::new(&settings), "return 1", Value::Null).await.unwrap_err();
        assert_eq!(e.code, "SANDBOX_FAILED", "{program}");
    }
}

fn custom(config: Value) -> CustomTool {
    CustomTool {
        id: None,
        owner: "ann".into(),
        plugin_id: None,
        name: "mine".into(),
        description: "A tool of mine".into(),
        kind: ToolType::Code,
        category: "custom".into(),
        input_schema: json!({"type": "object", "properties": {"n": {"type": "integer"}}}),
        output_schema: None,
        config,
    }
}

#[tokio::test]
async fn a_users_tool_is_its_code_within_its_limits() {
    let sandbox = sandbox(2);
    let make = |config| code_tool(&sandbox, custom(config));
    let tool = make(json!({"code": "if (input.n < 0) throw new Error('negative'); return {root: Math.sqrt(input.n)}"})).unwrap();
    assert_eq!((tool.name(), tool.category(), tool.idempotent(&json!({}))), ("mine", "custom", true));
    let (tools, cx) = (Tools::new(vec![tool]).unwrap(), context().await);
    assert_eq!(tools.call("mine", &cx, json!({"n": 49})).await, Ok(json!({"root": 7})));
    let e = tools.call("mine", &cx, json!({"n": -1})).await.unwrap_err();
    assert_eq!((&*e.code, e.message.as_str()), ("CODE_ERROR", "Error: negative (line 1)"));
    assert_eq!(tools.call("mine", &cx, json!({"n": "x"})).await.unwrap_err().code, "INVALID_ARGUMENTS");
    let slow = make(json!({"code": "while (true) {}", "timeout_ms": 300})).unwrap();
    let e = Tools::new(vec![slow]).unwrap().call("mine", &cx, json!({})).await.unwrap_err();
    assert_eq!((&*e.code, e.message.as_str()), ("TIMEOUT", "stopped after 300ms"));
    let large = make(json!({"code": "return new Uint8Array(20e6).length", "memory_mb": 8})).unwrap();
    let e = Tools::new(vec![large]).unwrap().call("mine", &cx, json!({})).await.unwrap_err();
    assert_eq!(e.code, "MEMORY_LIMIT", "{e}");
    let e = make(json!({"timeout_ms": -1})).err().expect("a config without code");
    assert_eq!(e.fields.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(), ["config.code", "config.timeout_ms"]);
}

#[tokio::test]
async fn code_run_answers_with_result_and_logs() {
    sandbox_program();
    let database = TestDatabase::sqlite().await;
    let cx = in_thread(&database, |_| {}).await;
    let code = "console.log(input.length); return input.map(w => w.toUpperCase())";
    let answer = call(&cx, "code_run", json!({"code": code, "input": ["a", "b"]})).await;
    assert_eq!(answer, Ok(json!({"result": ["A", "B"], "logs": ["2"]})));
    assert_eq!(call(&cx, "code_run", json!({"code": "return input"})).await, Ok(json!({"result": null, "logs": []})));
}
