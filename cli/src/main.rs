//! The binary `runmill`. One file a subcommand; each answers the exit code that its process ends with.
mod api;
mod config;
mod dev;
mod doctor;
mod failure;
mod lock;
mod migrate;
mod models;
mod openapi;
mod process;
mod run;
mod sandbox;
mod settings;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::settings::Settings;

/// Runs AI agents as durable background jobs. Without a command: everything in one process, on this machine.
#[derive(Parser)]
#[command(name = "runmill", version, about)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Everything in one process; nothing else has to run (the default)
    Dev,
    /// The API alone: needs Postgres and Redis, and workers elsewhere
    Api,
    /// A worker alone: needs Postgres and Redis
    Worker,
    /// Bring the database's schema up to date
    Migrate(migrate::Args),
    /// Print an OpenAPI document
    Openapi(openapi::Args),
    /// Check everything that Runmill depends on, and say how to mend it
    Doctor(doctor::Args),
    /// Send a message to a running server and stream the answer
    Run(run::Args),
    /// Models for transcription
    #[command(subcommand)]
    Models(models::Command),
    /// Print every setting and where it came from
    Config,
    #[command(hide = true)]
    Sandbox(sandbox::Args),
}

/// A process that failed; 2 is for what was asked wrongly, as clap has it.
pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;

fn main() -> ExitCode {
    let Cli { settings, command } = Cli::parse();
    // It gives up its rights while it has one thread and no runtime.
    if let Some(Command::Sandbox(args)) = &command {
        return sandbox::run(args);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("runmill: the runtime could not start: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let outcome = runtime.block_on(async {
        match command.unwrap_or(Command::Dev) {
            Command::Dev => dev::run(&settings).await,
            Command::Api => api::run(&settings).await,
            Command::Worker => worker::run(&settings).await,
            Command::Migrate(args) => migrate::run(&settings, &args).await,
            Command::Openapi(args) => openapi::run(&args),
            Command::Doctor(args) => doctor::run(&settings, &args).await,
            Command::Run(args) => run::run(&settings, args).await,
            Command::Models(command) => models::run(&settings, command).await,
            Command::Config => config::run(&settings),
            Command::Sandbox(_) => unreachable!("it has been run above"),
        }
    });
    // A task that hangs must not keep the process.
    runtime.shutdown_background();
    ExitCode::from(outcome.unwrap_or_else(|error| failure::report(&error)))
}
