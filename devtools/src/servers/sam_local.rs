//! AWS's `sam local start-api`: what `sam build` made, in containers, behind SAM's stand-in for API Gateway.
//!
//! The functions get their settings as on AWS: from the parameters of template.yaml, and from two secrets, which they read
//! over TLS. Their image holds what they need of this machine's system, so that nothing is pulled from a registry.
use super::{docker::Docker, moto::Moto, postgres::THIS_MACHINE};
use crate::{
    checks::sam,
    system::{process::Running, tools::free_port},
};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use reqwest::{Certificate, Client};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use testing::{SECRET, Services};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinHandle,
};
use xtask::{
    place::{find_in_path, root, target},
    step,
};

/// The image that the functions run in. SAM makes another one of it, which has the emulator too.
const IMAGE: &str = "tasks-sam-local:base";
const IMAGE_WITH_EMULATOR: &str = "tasks-sam-local:rapid-x86_64";
/// What SAM runs while it makes that image.
const PROGRAMS: [&str; 3] = ["sh", "mv", "chmod"];
/// The certificate of the tests' servers, in the image.
const CERTIFICATE: &str = "/etc/ssl/test-servers.crt";
/// The region of the secrets.
const REGION: &str = "eu-central-1";
/// Timeout of SAM's start, in seconds.
const START_TIMEOUT_S: u64 = 120;

/// The running API. Dropping it stops it, with its containers.
pub struct SamLocal {
    _sam: Running,
    _docker: Docker,
    _moto: Moto,
    _relays: [Relay; 2],
    port: u16,
    log: PathBuf,
}

impl SamLocal {
    /// Starts the API of `.aws-sam/build` on a free port, with a database of the tests' servers.
    pub async fn start(services: &Services, database: &str) -> Result<Self> {
        let folder = target().join("sam-local");
        let mut docker = Docker::start(&folder.join("docker")).await?;
        let certificate = Path::new(&services.certificate);
        let moto = Moto::start_with_tls(certificate, Path::new(&services.certificate_key)).await?;
        let gateway: IpAddr = docker.gateway().parse()?;
        // The tests' servers listen on 127.0.0.1 only.
        let relays = [Relay::start(gateway, services.pooler_port).await?, Relay::start(gateway, moto.port()).await?];
        let [pooler, secrets_manager] = [&relays[0], &relays[1]].map(|relay| relay.port);
        let database_url = format!(
            "postgresql://{}:{}@{THIS_MACHINE}:{pooler}/{database}?sslmode=verify-full&sslrootcert={CERTIFICATE}",
            migrations::API_ROLE,
            services.api_password
        );
        let secrets = SecretsManager::new(certificate, moto.port())?;
        let database_secret = secrets.create("database", &json!({"DATABASE_URL": database_url})).await?;
        let api_secret = json!({"DATABASE_URL": database_url, "BETTER_AUTH_SECRET": SECRET});
        let api_secret = secrets.create("api", &api_secret).await?;

        step("Making the image of the functions");
        let files = folder.join("image");
        write_image(&files, certificate).await?;
        let endpoint = format!("https://{THIS_MACHINE}:{secrets_manager}");
        let variables = [("AWS_ENDPOINT_URL_SECRETS_MANAGER", &*endpoint), ("AWS_CA_BUNDLE", CERTIFICATE)];
        docker.import(&files, IMAGE, &variables).await?;
        docker.remove_at_end(IMAGE_WITH_EMULATOR);

        let (port, log) = (free_port()?, Path::new(&services.logs).join("sam-local"));
        step(format!("Starting 'sam local start-api' on 127.0.0.1:{port}"));
        let output_file = folder.join("sam.log");
        let output = fs::File::create(&output_file)?;
        let mut command = sam::local("start-api").await?;
        command
            .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--region", REGION])
            .args(["--warm-containers", "LAZY", "--skip-pull-image", "--force-image-build", "--invoke-image", IMAGE])
            .args(["--add-host", &format!("{THIS_MACHINE}:{gateway}")])
            .arg("--layer-cache-basedir")
            .arg(folder.join("layers"))
            .arg("--log-file")
            .arg(&log)
            .arg("--parameter-overrides")
            .args([
                format!("ApiSecretArn={api_secret}"),
                format!("DatabaseSecretArn={database_secret}"),
                format!("OwnerSecretArn={database_secret}"),
                // The default of the tests' settings, which is Better Auth's.
                "BetterAuthUrl=http://localhost:3000".to_owned(),
                "TrustedOrigins=https://app.example.com".to_owned(),
            ])
            .envs([("AWS_ACCESS_KEY_ID", "testing"), ("AWS_SECRET_ACCESS_KEY", "testing")])
            .env("AWS_SESSION_TOKEN", "the-session-token-of-the-functions-role")
            .stdout(output.try_clone()?)
            .stderr(output);
        let mut running = Running::start(docker.pass_to(&mut command), Signal::SIGINT)?;
        let started = running.wait_for_port(port, Duration::from_secs(START_TIMEOUT_S)).await;
        started.with_context(|| format!("SAM did not start: see {}", output_file.display()))?;
        Ok(Self { _sam: running, _docker: docker, _moto: moto, _relays: relays, port, log })
    }

    /// Host and port of the API.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What the functions have logged.
    pub fn log(&self) -> Result<String> {
        let log = fs::read(&self.log).with_context(|| format!("{} cannot be read", self.log.display()))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }
}

/// Writes the files of the image: the libraries of the functions, and what SAM needs while it adds the emulator.
async fn write_image(folder: &Path, certificate: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let mut needed = BTreeSet::new();
    for name in PROGRAMS {
        let program = find_in_path(name).with_context(|| format!("{name} is missing"))?;
        needed.extend(libraries(&program).await?);
        copy(&program, &folder.join("bin").join(name))?;
    }
    let build = root().join(".aws-sam/build");
    for entry in fs::read_dir(&build).with_context(|| format!("{} cannot be read", build.display()))? {
        let bootstrap = entry?.path().join("bootstrap");
        if bootstrap.is_file() {
            needed.extend(libraries(&bootstrap).await?);
        }
    }
    for library in needed {
        copy(&library, &folder.join(library.strip_prefix("/")?))?;
    }
    copy(certificate, &folder.join(CERTIFICATE.trim_start_matches('/')))?;
    fs::create_dir_all(folder.join("tmp"))?;
    fs::set_permissions(folder.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    // Where the C library looks up the name of this machine.
    Ok(fs::write(folder.join("etc/nsswitch.conf"), "hosts: files dns\n")?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a folder")?)?;
    fs::copy(from, to).with_context(|| format!("{} cannot be copied", from.display()))?;
    Ok(())
}

/// Returns the shared libraries that a program loads, and the loader.
async fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().await.context("ldd cannot be started")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && !text.contains("not found"), "ldd {}: {text}", program.display());
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// The stand-in for Secrets Manager, as somebody uses it who makes secrets.
struct SecretsManager {
    client: Client,
    url: String,
}

impl SecretsManager {
    fn new(certificate: &Path, port: u16) -> Result<Self> {
        let root = Certificate::from_pem(&fs::read(certificate)?)?;
        let client = Client::builder().add_root_certificate(root).build()?;
        Ok(Self { client, url: format!("https://127.0.0.1:{port}") })
    }

    /// Makes a secret and returns its ARN.
    async fn create(&self, name: &str, content: &Value) -> Result<String> {
        let body = json!({"Name": name, "SecretString": content.to_string()});
        // moto reads the region of the signature, and does not check it.
        let credential = format!("Credential=testing/20260101/{REGION}/secretsmanager/aws4_request");
        let request = self
            .client
            .post(&self.url)
            .header("x-amz-target", "secretsmanager.CreateSecret")
            .header("content-type", "application/x-amz-json-1.1")
            .header("authorization", format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0"));
        let answer: Value = request.body(body.to_string()).send().await?.json().await?;
        Ok(answer["ARN"].as_str().with_context(|| format!("moto made no secret: {answer}"))?.to_owned())
    }
}

/// Forwards connections from containers to a port of 127.0.0.1. Dropping it stops it.
struct Relay {
    port: u16,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens on a free port of `gateway`, this machine's address in the containers' network.
    async fn start(gateway: IpAddr, to: u16) -> Result<Self> {
        let listener = TcpListener::bind((gateway, 0)).await;
        let listener = listener.with_context(|| format!("Docker's gateway {gateway} is no address of this machine"))?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", to)).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Ok(Self { port, task })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
