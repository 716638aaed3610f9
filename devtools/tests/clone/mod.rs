//! A copy of the project whose sources a test may change, with what is compiled of others already.
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The copy. Dropping it removes it.
pub struct Clone(PathBuf);

impl Clone {
    /// Copies the files that git knows or would take, and links the dependencies that are compiled.
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
            // One that is deleted but not committed is not there.
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

    /// `cargo xtask` of the copy.
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

/// The same files in another folder; those that cargo may write to in place are copied.
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

/// cargo compares the times of these files.
fn copy_with_time(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::File::options().write(true).open(to)?.set_modified(fs::metadata(from)?.modified()?)
}

/// Replaces a text in a file, and returns what the file was.
pub fn edit(file: &Path, text: &str, by: &str) -> String {
    let before = fs::read_to_string(file).unwrap();
    assert!(before.contains(text), "{} has no {text:?}", file.display());
    fs::write(file, before.replace(text, by)).unwrap();
    before
}
