//! The `runmill` binary as the program of sandboxes: a test's own binary cannot be it.
use std::path::PathBuf;

/// Where the binary is that was built into the same target directory as this test, whether it is there or not.
pub fn expected_program() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    // target/debug/deps/test-0123456789abcdef
    let profile = test.ancestors().nth(2).map(PathBuf::from).unwrap_or_default();
    profile.join(format!("runmill{}", std::env::consts::EXE_SUFFIX))
}

/// The program for a test that needs a sandbox.
///
/// # Panics
/// When it has not been built.
pub fn sandbox_program() -> PathBuf {
    let program = expected_program();
    assert!(program.is_file(), "{} is not there; build it with: cargo build -p runmill", program.display());
    program
}
