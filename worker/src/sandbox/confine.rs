//! What a child gives up before it reads its first byte.
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::AsRawFd,
};

use rustix::process::{Resource, Rlimit, setrlimit};

/// SIGALRM, SIGXCPU: its own clock, and the kernel's count of its work.
pub const OUT_OF_TIME: [i32; 2] = [libc::SIGALRM, libc::SIGXCPU];
/// What an allocator, a file's buffers and a reply need beside what is limited.
const ROOM: u64 = 48 << 20;

/// Whether this is how Rust ends when nothing can be allocated, or the kernel when nothing is left.
pub fn has_no_memory(signal: Option<i32>, said: &str) -> bool {
    match signal {
        Some(libc::SIGABRT) => said.contains("memory allocation"),
        Some(libc::SIGKILL) => true,
        _ => false,
    }
}

/// From here on: no new file or socket, no child, no file that grows, at most `memory` more bytes, and an end after `seconds`. Returns
/// where the reply goes: whatever prints to standard output prints to nowhere.
pub fn confine(memory: u64, seconds: u32) -> io::Result<File> {
    close_inherited();
    end_after(seconds);
    // The kernel takes a child before its worker when memory runs out.
    fs::write("/proc/self/oom_score_adj", "1000").ok();
    let reply = File::from(rustix::io::dup(rustix::stdio::stdout())?);
    rustix::stdio::dup2_stdout(OpenOptions::new().write(true).open("/dev/null")?)?;
    let (mapped, data) = memory_now();
    set(Resource::As, mapped + memory + ROOM)?;
    set(Resource::Data, data + memory + ROOM)?;
    // The last second lets it be told from a child that the kernel killed for its memory.
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds.into()), maximum: Some(u64::from(seconds) + 1) })?;
    set(Resource::Core, 0)?;
    set(Resource::Fsize, 0)?;
    set(Resource::Nproc, 0)?;
    set(Resource::Nofile, u64::try_from(reply.as_raw_fd()).map_err(io::Error::other)? + 1)?;
    #[cfg(target_os = "linux")]
    rustix::thread::set_no_new_privs(true)?;
    Ok(reply)
}

fn set(resource: Resource, most: u64) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// Bytes of address space and of data that this process has already: the limits count them.
fn memory_now() -> (u64, u64) {
    let page = rustix::param::page_size() as u64;
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let nth = |n| pages.split_whitespace().nth(n).and_then(|text| text.parse::<u64>().ok());
    match (nth(0), nth(5)) {
        (Some(mapped), Some(data)) => (mapped * page, data * page),
        // Where it is not told, it is generously guessed.
        _ => (1 << 30, 1 << 28),
    }
}

/// Descriptors that the worker, or a library in it, has not marked as its own.
#[expect(unsafe_code, reason = "closing descriptors by number has no safe form")]
fn close_inherited() {
    let most = match rustix::process::getrlimit(Resource::Nofile).current {
        Some(most) => i32::try_from(most).unwrap_or(i32::MAX),
        None => 65_536,
    };
    #[cfg(target_os = "linux")]
    {
        // SAFETY: this is the start of the process: nothing in it has opened or refers to a descriptor above 2.
        if unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) } == 0 {
            return;
        }
    }
    for fd in 3..most.min(65_536) {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

/// The end of a child whose worker has died before it could kill it.
#[expect(unsafe_code, reason = "alarm has no safe form")]
fn end_after(seconds: u32) {
    // SAFETY: it only sets the process's timer; nobody here uses SIGALRM, whose default is to end the process.
    unsafe { libc::alarm(seconds) };
}
