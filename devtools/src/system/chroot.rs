//! A Debian release in a folder. Its programs run with the folder as their root, so that the machine's own packages stay
//! as they are.
use crate::system::{
    progress::run_long,
    tools::{find_or_install, lock},
};
use anyhow::Result;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tokio::process::Command;
use xtask::{apt, place::find_in_path};

const MIRROR: &str = "http://deb.debian.org/debian";
/// The steps of an installation. An older debootstrap has none by the name of a newer release; those of all are the same.
const SCRIPT: &str = "/usr/share/debootstrap/scripts/sid";
/// The search path inside, and of the commands that enter.
pub const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Enters a root folder ($1) with some folders of the machine (up to `--`), and runs a command in a working folder. The
/// mounts belong to the process, and end with it.
const ENTER: &str = r#"set -e
root=$1; shift
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
while [ "$1" != -- ]; do
  mkdir -p "$root$1"
  mount --bind "$1" "$root$1"
  shift
done
folder=$2; shift 2
exec chroot "$root" /usr/bin/env --chdir="$folder" "$@"
"#;

/// An installed release.
pub struct Chroot {
    folder: PathBuf,
}

impl Chroot {
    /// Installs a release with packages into `folder`, if needed. `foreign` is another processor, by Debian's name, for
    /// which some of the packages are.
    pub async fn install(folder: PathBuf, release: &str, foreign: &str, packages: &[&str]) -> Result<Self> {
        let packages = packages.join(" ");
        let wanted = format!("{release} {packages}");
        let installed = folder.join("installed");
        let chroot = Self { folder };
        let _lock = lock(release)?;
        if fs::read_to_string(&installed).is_ok_and(|it| it == wanted) {
            return Ok(chroot);
        }
        find_or_install("debootstrap", || find_in_path("debootstrap"), "debootstrap").await?;
        let _ = fs::remove_dir_all(&chroot.folder);
        fs::create_dir_all(&chroot.folder)?;
        let what = format!("Installing Debian {release} into {}", chroot.folder.display());
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", release]).arg(&chroot.folder).args([MIRROR, SCRIPT]).env("PATH", PATH);
        run_long(&what, &format!("install-{release}"), "a minute", &mut debootstrap).await?;
        // A mirror's copy of the list may have expired, which debootstrap accepts too. It is signed nevertheless.
        let update = "apt-get -qq -o Acquire::Check-Valid-Until=false update";
        let install = format!("apt-get -qq {} {packages}", apt::INSTALL.join(" "));
        let script = format!("dpkg --add-architecture {foreign} && {update} && {install} && apt-get clean");
        let mut apt = chroot.command(&[], Path::new("/"), Path::new("/bin/sh"));
        apt.args(["-c", &script]).envs([("PATH", PATH), ("DEBIAN_FRONTEND", "noninteractive"), ("LC_ALL", "C.UTF-8")]);
        let what = format!("Installing into it: {packages}");
        run_long(&what, &format!("install-packages-{release}"), "two minutes", &mut apt).await?;
        fs::write(installed, wanted)?;
        Ok(chroot)
    }

    /// Returns a command that runs a program inside, with some folders of the machine, in a working folder.
    pub fn command(&self, shared: &[&Path], folder: &Path, program: &Path) -> Command {
        let mut command = Command::new("/usr/bin/unshare");
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", ENTER, "enter"]).arg(&self.folder);
        command.args(shared).arg("--").arg(folder).arg(program);
        command
    }
}
