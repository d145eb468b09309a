//! The run engine's use cases. `accept` takes work in, `execution` is what a worker may do with a run it holds, `control` is what
//! callers may do with it, `start` is how an agent's run comes from a request, `wait` is how they wait, `sweep` is what the reconciler does,
//! `watch` is what is told of a run that has ended, `after` is what follows a commit.
pub mod accept;
pub mod after;
pub mod control;
pub(crate) mod ending;
pub mod execution;
pub mod start;
pub mod sweep;
pub mod wait;
mod watch;
