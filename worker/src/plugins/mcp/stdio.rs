//! An MCP server as a child process. It is given the environment of its settings and nothing of ours, and it does not outlive its
//! connection: its input is closed, and when that does not end it, it is killed.
use std::{future::Future, io, process::Stdio, time::Duration};

use rmcp::{
    RoleClient,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::{Transport, async_rw::AsyncRwTransport},
};
use runmill_shared::config::McpServer;
use tokio::{
    process::{ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// How long it may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);

pub struct Child {
    process: tokio::process::Child,
    pipes: AsyncRwTransport<RoleClient, ChildStdout, ChildStdin>,
}

impl Child {
    /// `max_line`: bytes of one message; a longer one is dropped.
    pub fn start(server: &McpServer, max_line: usize) -> io::Result<Self> {
        let mut command = Command::new(&server.command);
        command.args(&server.args).env_clear().envs(server.env.iter().map(|(name, value)| (name, value.expose())));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        // A Ctrl-C in the terminal is for us: we end it when we have drained.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn()?;
        let (Some(output), Some(input)) = (process.stdout.take(), process.stdin.take()) else {
            return Err(io::Error::other("a child process without pipes"));
        };
        Ok(Self { process, pipes: AsyncRwTransport::new_client(output, input).with_max_line_length(max_line) })
    }
}

impl Transport<RoleClient> for Child {
    type Error = io::Error;

    fn send(&mut self, item: TxJsonRpcMessage<RoleClient>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.pipes.send(item)
    }

    fn receive(&mut self) -> impl Future<Output = Option<RxJsonRpcMessage<RoleClient>>> + Send {
        self.pipes.receive()
    }

    async fn close(&mut self) -> io::Result<()> {
        self.pipes.close().await.ok();
        match timeout(GRACE, self.process.wait()).await {
            Ok(ended) => ended.map(|_| ()),
            Err(_) => self.process.kill().await,
        }
    }
}
