//! One process a data directory: its SQLite file has one writer, and its queue lives in that process.
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Write},
    path::Path,
};

use runmill_shared::{Error, Result};

/// Held as long as this value; the kernel lets it go when the process ends, however it ends.
pub struct Lock {
    _file: File,
}

/// Makes the directory where it is missing.
///
/// # Errors
/// `Conflict` when another process has it; `Unavailable` when it cannot be written to.
pub fn take(data_dir: &Path) -> Result<Lock> {
    let unwritable = |e: std::io::Error| {
        let message = format!("cannot write to the data directory {}: {e}; choose another with --data-dir", data_dir.display());
        Error::unavailable("DATA_DIR_UNWRITABLE", message)
    };
    fs::create_dir_all(data_dir).map_err(unwritable)?;
    let path = data_dir.join("runmill.lock");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(unwritable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // Only for the message: the owner may be about to write it.
            file.read_to_string(&mut owner).ok();
            return Err(Error::conflict("DATA_DIR_IN_USE", in_use(data_dir, owner.trim())));
        }
        Err(TryLockError::Error(e)) => return Err(unwritable(e)),
    }
    file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(unwritable)?;
    Ok(Lock { _file: file })
}

fn in_use(data_dir: &Path, owner: &str) -> String {
    let owner = if owner.is_empty() { String::new() } else { format!(" (process {owner})") };
    format!(
        "another Runmill{owner} uses the data directory {}; stop it, or choose another directory with --data-dir",
        data_dir.display()
    )
}
