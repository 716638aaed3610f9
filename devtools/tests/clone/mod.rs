//! A copy of the project whose sources a test may change. It shares the compiled dependencies.
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The copy's folder. Dropping it removes the copy.
pub struct Clone(PathBuf);

impl Clone {
    /// Copies the tracked and untracked files, except ignored ones, and links the compiled dependencies.
    pub fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for file in String::from_utf8(output.stdout).unwrap().split_terminator('\0') {
            let to = folder.join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            // A file that is deleted but still in the index cannot be copied.
            let _ = fs::copy(root.join(file), to);
        }
        // The folder of this test's program is target/debug/deps.
        let built = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
        for part in ["deps", "build", ".fingerprint"] {
            link(&built.join(part), &folder.join("target/debug").join(part)).unwrap();
        }
        Self(folder)
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Returns `cargo xtask` for the copy.
    pub fn command(&self) -> Command {
        let mut command = crate::harness::command();
        command.current_dir(&self.0).env_remove("CARGO_TARGET_DIR").env("CARGO_TARGET_DIR", self.0.join("target"));
        command
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Hard-links a folder's files to another folder. Copies the files that cargo may write in place.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link(&entry.path(), &to)?;
        } else if from.components().any(|part| part.as_os_str() == ".fingerprint") {
            copy_with_time(&entry.path(), &to)?;
        } else {
            fs::hard_link(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Copies a file with its modification time, which cargo compares.
fn copy_with_time(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::File::options().write(true).open(to)?.set_modified(fs::metadata(from)?.modified()?)
}

/// Replaces a text in a file, and returns the old content.
pub fn edit(file: &Path, text: &str, by: &str) -> String {
    let before = fs::read_to_string(file).unwrap();
    assert!(before.contains(text), "{} has no {text:?}", file.display());
    fs::write(file, before.replace(text, by)).unwrap();
    before
}
