//! MCP servers for tests: one over streamable HTTP in the test's process, and one that is a child process.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result};
use hyper::{Request, Response, StatusCode, body::Incoming, http::request::Parts, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, InitializeRequestParams, InitializeResult,
        ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
    transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager},
};
use runmill_shared::config::{self, Secret};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// Tools of one page.
const PAGE: usize = 2;
/// The header that has to show `McpServer::key`.
pub const KEY_HEADER: &str = "X-Key";

/// One call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Called {
    pub tool: String,
    pub arguments: Value,
}

#[derive(Default)]
struct Seen {
    calls: Vec<Called>,
    sessions: usize,
    tools: Vec<Value>,
}

struct Shared {
    key: String,
    seen: Mutex<Seen>,
    cancelled: watch::Sender<usize>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server of the official SDK, with tools that succeed, fail and hang. Stops when it is dropped.
pub struct McpServer {
    pub url: String,
    /// `127.0.0.1:PORT`, as `security.allow_private_hosts` takes it.
    pub host: String,
    /// What `KEY_HEADER` has to say; others get a 401.
    pub key: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl McpServer {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let host = listener.local_addr()?.to_string();
        let key = "a key of the test".to_owned();
        let seen = Mutex::new(Seen { tools: tools(), ..Seen::default() });
        let shared = Arc::new(Shared { key: key.clone(), seen, cancelled: watch::Sender::new(0) });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, shared.clone()));
        Ok(Self { url: format!("http://{host}/mcp"), host, key, shared, _tasks: tasks })
    }

    pub fn calls(&self) -> Vec<Called> {
        self.shared.seen().calls.clone()
    }

    /// How many clients have introduced themselves.
    pub fn sessions(&self) -> usize {
        self.shared.seen().sessions
    }

    /// From now on these are its tools: objects as `tools/list` answers them.
    pub fn set_tools(&self, tools: Vec<Value>) {
        self.shared.seen().tools = tools;
    }

    /// Waits until so many calls of `hang` were told that nobody waits any more.
    pub async fn until_cancelled(&self, wanted: usize) -> Result<()> {
        let mut cancelled = self.shared.cancelled.subscribe();
        let waiting = cancelled.wait_for(|n| *n >= wanted);
        tokio::time::timeout(std::time::Duration::from_secs(120), waiting).await.context("no call was cancelled")??;
        Ok(())
    }
}

/// `sum` {a, b}, `echo` {text}, `fail`, `picture`, `hang`.
fn tools() -> Vec<Value> {
    let number = json!({"type": "number"});
    let sum = json!({"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"], "additionalProperties": false});
    let text = json!({"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]});
    let nothing = json!({"type": "object"});
    vec![
        json!({
            "name": "sum", "description": "Adds two numbers.", "inputSchema": sum, "annotations": {"readOnlyHint": true},
            "outputSchema": {"type": "object", "properties": {"sum": number}},
        }),
        json!({"name": "echo", "description": "Says it again.", "inputSchema": text}),
        json!({"name": "fail", "description": "Fails.", "inputSchema": nothing}),
        json!({"name": "picture", "description": "Shows something.", "inputSchema": nothing}),
        json!({"name": "hang", "description": "Never answers.", "inputSchema": nothing}),
    ]
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let handler = Handler(shared.clone());
    let service = StreamableHttpService::new(
        move || Ok(handler.clone()),
        Arc::<LocalSessionManager>::default(),
        StreamableHttpServerConfig::default(),
    );
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (service, shared) = (service.clone(), shared.clone());
        let answer = service_fn(move |request: Request<Incoming>| {
            let (service, shared) = (service.clone(), shared.clone());
            async move {
                if request.headers().get(KEY_HEADER).is_none_or(|key| key != shared.key.as_str()) {
                    let mut refused = Response::new(Default::default());
                    *refused.status_mut() = StatusCode::UNAUTHORIZED;
                    return Ok(refused);
                }
                Ok::<_, std::convert::Infallible>(service.handle(request).await)
            }
        });
        // A client that has gone is part of many tests.
        connections.spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await.ok() });
    }
}

#[derive(Clone)]
struct Handler(Arc<Shared>);

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        self.0.seen().sessions += 1;
        context.peer.set_peer_info(request.clone());
        self.negotiate_initialize(&request)
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let from: usize = request.and_then(|r| r.cursor).and_then(|c| c.parse().ok()).unwrap_or(0);
        let all = self.0.seen().tools.clone();
        let broken = |e: serde_json::Error| ErrorData::internal_error(e.to_string(), None);
        let page = all.iter().skip(from).take(PAGE).map(|t| serde_json::from_value::<Tool>(t.clone()).map_err(broken));
        let mut result = ListToolsResult::with_all_items(page.collect::<Result<_, _>>()?);
        result.next_cursor = (from + PAGE < all.len()).then(|| (from + PAGE).to_string());
        Ok(result)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if context.extensions.get::<Parts>().is_none() {
            return Err(ErrorData::internal_error("no HTTP request", None));
        }
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        self.0.seen().calls.push(Called { tool: request.name.to_string(), arguments: arguments.clone() });
        let text = |text: &str| vec![ContentBlock::text(text)];
        let result = match request.name.as_ref() {
            "sum" => {
                let number = |name: &str| arguments[name].as_f64().unwrap_or_default();
                CallToolResult::structured(json!({"sum": number("a") + number("b")}))
            }
            "echo" => CallToolResult::success(text(arguments["text"].as_str().unwrap_or_default())),
            "fail" => CallToolResult::error(text("it did not work")),
            "picture" => CallToolResult::success(vec![ContentBlock::text("a dot"), ContentBlock::image("aGk=", "image/png")]),
            "hang" => {
                context.ct.cancelled().await;
                self.0.cancelled.send_modify(|n| *n += 1);
                CallToolResult::success(text("too late"))
            }
            other => return Err(ErrorData::invalid_params(format!("no tool {other}"), None)),
        };
        Ok(result.into())
    }
}

/// A server for `[mcp.<name>]` that is a child process: `pid` tells which, `env` what it was given, `die` ends it.
pub fn child_process(token: &str) -> config::McpServer {
    config::McpServer {
        command: "/bin/sh".into(),
        args: vec!["-c".into(), SCRIPT.into()],
        env: BTreeMap::from([("TOKEN".to_owned(), Secret::new(token))]),
    }
}

/// Only what the shell itself can do: there is no PATH.
const SCRIPT: &str = r#"
text() { printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"%s"}]}}\n' "$id" "$1"; }
tool() { printf '{"name":"%s","description":"%s","inputSchema":{"type":"object"}}' "$1" "$1"; }
while IFS= read -r line; do
    id=${line#*'"id":'}
    id=${id%%[,\}]*}
    case $line in
    *'"method":"initialize"'*)
        printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},' "$id"
        printf '"serverInfo":{"name":"sh","version":"1"}}}\n' ;;
    *'"method":"tools/list"'*)
        printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[%s,%s,%s]}}\n' "$id" "$(tool pid)" "$(tool env)" "$(tool die)" ;;
    *'"name":"pid"'*) text "$$" ;;
    *'"name":"env"'*) text "$TOKEN ${HOME:-none} ${USER:-none}" ;;
    *'"name":"die"'*) exit 1 ;;
    esac
done
"#;
