//! `runmill sandbox`: what the worker starts for code and documents that it does not trust. Not for people.
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// Bytes
    memory: u64,
    /// Until it ends itself
    seconds: u32,
}

pub fn run(args: &Args) -> ExitCode {
    runmill_worker::sandbox::child(args.memory, args.seconds)
}
