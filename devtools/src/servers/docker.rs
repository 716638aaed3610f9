//! A Docker engine for tests: the one that this machine runs already, else one of our own, with its files under target/.
use crate::system::{
    process::{Running, run_command},
    tools::find_or_install,
};
use anyhow::{Context as _, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::geteuid};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{process::Command, time::sleep};
use xtask::{place::find_in_path, step};

/// Timeout of the engine's start, in seconds.
const START_TIMEOUT_S: u64 = 60;
/// The network of containers that ask for none.
const BRIDGE: &str = "docker0";
/// This machine's address in that network, of an engine of our own. Without it, the engine does not report the address.
const GATEWAY: &str = "172.17.0.1/16";

/// A running engine. Dropping it stops it if it is our own.
pub struct Docker {
    program: PathBuf,
    /// The engine's address, if it is our own.
    host: Option<String>,
    gateway: String,
    /// Images to remove at the end.
    images: Vec<String>,
    _engine: Option<Engine>,
}

/// An engine of our own.
struct Engine {
    process: Running,
    _bridge: Option<Bridge>,
}

/// The network device that an engine makes and does not remove. Dropping this removes it.
struct Bridge;

impl Docker {
    /// Uses the engine that runs on this machine, or starts one with its files in `folder`.
    pub async fn start(folder: &Path) -> Result<Self> {
        ensure!(
            cfg!(target_os = "linux"),
            "Docker is used on Linux only: the functions in the containers are this machine's"
        );
        let program = find_or_install("Docker", || find_in_path("docker"), "docker.io").await?;
        let mut docker = Self { program, host: None, gateway: String::new(), images: Vec::new(), _engine: None };
        if !docker.is_running().await {
            docker.start_engine(folder).await?;
        }
        let gateway = ["network", "inspect", "bridge", "--format", "{{range .IPAM.Config}}{{.Gateway}} {{end}}"];
        let gateways = docker.output(&gateway).await?;
        let is_v4 = |address: &&str| address.contains('.');
        docker.gateway = gateways.split(' ').find(is_v4).context("Docker's default network has no gateway")?.to_owned();
        Ok(docker)
    }

    async fn start_engine(&mut self, folder: &Path) -> Result<()> {
        if !geteuid().is_root() {
            bail!(
                "Docker does not run, and only root can start it: 'sudo systemctl start docker', or install it with 'sudo apt install docker.io'"
            );
        }
        let dockerd = find_or_install("Docker's engine", || find_in_path("dockerd"), "docker.io").await?;
        step(format!("Starting Docker's engine in {}", folder.display()));
        fs::create_dir_all(folder)?;
        let host = format!("unix://{}", folder.join("docker.sock").display());
        let log_file = folder.join("dockerd.log");
        let log = fs::File::create(&log_file)?;
        let mut command = Command::new(dockerd);
        command.args(["--host", &host]);
        for (option, file) in [("--data-root", "data"), ("--exec-root", "run"), ("--pidfile", "dockerd.pid")] {
            command.arg(option).arg(folder.join(file));
        }
        // Containers reach this machine, and nothing else: no rule of the firewall and no setting of the kernel changes.
        command.args(["--iptables=false", "--ip-masq=false", "--ip-forward=false"]);
        command.args(["--bip", GATEWAY, "--log-level=warn"]);
        let bridge = if Path::new("/sys/class/net").join(BRIDGE).exists() { None } else { Some(Bridge) };
        let process = Running::start(command.stdout(log.try_clone()?).stderr(log), Signal::SIGTERM)?;
        let mut engine = Engine { process, _bridge: bridge };
        self.host = Some(host);
        let until = Instant::now() + Duration::from_secs(START_TIMEOUT_S);
        while !self.is_running().await {
            engine
                .process
                .check()
                .with_context(|| format!("Docker's engine did not start: see {}", log_file.display()))?;
            ensure!(Instant::now() < until, "Docker's engine is not ready: see {}", log_file.display());
            sleep(Duration::from_millis(100)).await;
        }
        self._engine = Some(engine);
        Ok(())
    }

    async fn is_running(&self) -> bool {
        let mut command = self.command(&["version", "--format", "{{.Server.Version}}"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().await.is_ok_and(|status| status.success())
    }

    /// The address of this machine in the containers' network.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// Lets a command use this engine.
    pub fn pass_to<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        self.pass_to(command.args(arguments));
        command
    }

    async fn output(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).stdin(Stdio::null()).output().await?;
        ensure!(output.status.success(), "docker failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Makes the image `name` of the files in `folder`, with these environment variables. It is removed at the end.
    pub async fn import(&mut self, folder: &Path, name: &str, variables: &[(&str, &str)]) -> Result<()> {
        let archive = folder.with_extension("tar");
        run_command(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(folder).args([
            "--owner=0",
            "--group=0",
            ".",
        ]))
        .await?;
        let mut command = self.command(&["import"]);
        for (name, value) in variables {
            command.args(["--change", &format!("ENV {name}={value}")]);
        }
        run_command(command.arg(&archive).arg(name).stdout(Stdio::null())).await?;
        self.remove_at_end(name);
        Ok(fs::remove_file(archive)?)
    }

    /// Removes an image when this is dropped.
    pub fn remove_at_end(&mut self, image: &str) {
        self.images.push(image.to_owned());
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(&self.program);
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command.args(["image", "rm", "--force"]).args(&self.images);
        if !self.images.is_empty() {
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(find_in_path("ip").unwrap_or_else(|| "ip".into()));
        let _ = command.args(["link", "delete", BRIDGE]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
