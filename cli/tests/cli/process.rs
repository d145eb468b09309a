//! Starting `runmill` with nothing of this machine's settings in its environment.
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub const LIMIT: Duration = Duration::from_secs(30);

/// In `dir`, whose `data` is the data directory; on free ports.
pub fn runmill(dir: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runmill"));
    command
        .env_clear()
        .current_dir(dir.path())
        .envs([
            ("RUNMILL_DATA_DIR", "data"),
            ("RUNMILL_PLATFORM_ADDR", "127.0.0.1:0"),
            ("RUNMILL_OPS_ADDR", "127.0.0.1:0"),
            ("NO_PROXY", "127.0.0.1"),
        ])
        .args(args)
        .stdin(Stdio::null());
    command
}

/// Everything that it said, and how it ended.
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub fn done(mut command: Command) -> Done {
    Running::start(&mut command).wait()
}

/// Killed when it is dropped before its end.
pub struct Running {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (Arc::<Mutex<String>>::default(), Arc::<Mutex<String>>::default());
        let readers = vec![gather(child.stdout.take().unwrap(), out.clone()), gather(child.stderr.take().unwrap(), err.clone())];
        Self { child, out, err, readers }
    }

    /// Waits until standard output or standard error has `text`; answers all of that stream so far.
    pub fn until(&mut self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let ended = self.child.try_wait().unwrap().is_some();
            for stream in [&self.out, &self.err] {
                let so_far = stream.lock().unwrap().clone();
                if so_far.contains(text) {
                    return so_far;
                }
            }
            let (out, err) = (self.out.lock().unwrap().clone(), self.err.lock().unwrap().clone());
            assert!(!ended && Instant::now() < deadline, "{text:?} did not come\n--- stdout\n{out}\n--- stderr\n{err}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub fn wait(mut self) -> Done {
        let deadline = Instant::now() + LIMIT;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end; stderr: {}", self.err.lock().unwrap());
            thread::sleep(Duration::from_millis(5));
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let (out, err) = (self.out.lock().unwrap().clone(), self.err.lock().unwrap().clone());
        Done { code: status.code().unwrap_or(-1), out, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, in most cases.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn gather(stream: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        loop {
            let piece = reader.fill_buf().unwrap_or_default();
            let length = piece.len();
            if length == 0 {
                return;
            }
            into.lock().unwrap().push_str(&String::from_utf8_lossy(piece));
            reader.consume(length);
        }
    })
}
