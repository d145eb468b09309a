//! A wall clock of its own for a process: libfaketime stands between it and the system's, and reads from a file how far it is off. The
//! monotonic clock stays what it is.
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// The folders of libraries; Debian has one for each architecture in the first.
const FOLDERS: [&str; 3] = ["/usr/lib", "/usr/lib64", "/usr/local/lib"];

pub struct WallClock {
    library: PathBuf,
    file: PathBuf,
}

impl WallClock {
    /// `None`, and a word about it: the library is not there.
    pub fn new(file: &Path) -> Result<Option<Self>> {
        let Some(library) = library() else {
            println!("libfaketime is not installed: no clock of a worker is set, those faults of the plan do nothing");
            return Ok(None);
        };
        let this = Self { library, file: file.to_owned() };
        this.set(0)?;
        Ok(Some(this))
    }

    pub fn environment(&self) -> [(OsString, OsString); 4] {
        [
            ("LD_PRELOAD".into(), self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE".into(), self.file.clone().into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
            // Read again each time: a step is seen at once.
            ("FAKETIME_NO_CACHE".into(), "1".into()),
        ]
    }

    /// In one go, so that nobody reads half of it.
    pub fn set(&self, by: i64) -> Result<()> {
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{by:+}s\n"))?;
        Ok(fs::rename(next, &self.file)?)
    }
}

fn library() -> Option<PathBuf> {
    let folders = FOLDERS.map(PathBuf::from);
    let below = fs::read_dir(&folders[0]).into_iter().flatten().flatten().map(|entry| entry.path());
    folders.iter().cloned().chain(below).map(|folder| folder.join(LIBRARY)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_lives_in_another_time_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let Some(clock) = WallClock::new(&dir.path().join("clock")).unwrap() else { return };
        let seconds = |clock: &WallClock| {
            let date = Command::new("date").arg("+%s").envs(clock.environment()).output().unwrap();
            String::from_utf8(date.stdout).unwrap().trim().parse::<i64>().unwrap()
        };
        let now = seconds(&clock);
        clock.set(-100_000).unwrap();
        assert!((90_000..110_000).contains(&(now - seconds(&clock))));
        clock.set(0).unwrap();
        assert!(seconds(&clock) >= now);
    }
}
