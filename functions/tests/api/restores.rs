//! `GET /api/tasks/changes` over restores: a dump in another cluster, and a cluster that is set back to an earlier moment.
use crate::{api::Api, changes::Histories};
use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use testing::{Client, Database, SERVICES, Services};

/// How often the cluster is set back, unless `SYNC_RESTORES` is set.
const RESTORES: usize = 2;
/// Histories that each restore interrupts.
const HISTORIES_PER_RESTORE: usize = 10;

/// PostgreSQL behind PgBouncer, on data of its own.
struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    port: u16,
    pooler: std::process::Child,
    pooler_port: u16,
}

impl Cluster {
    /// Creates an empty cluster with the programs of the shared server.
    async fn create(shared: &Client) -> Self {
        let pid = "select split_part(pg_read_file('postmaster.pid'), E'\\n', 1)";
        let pid: String = shared.query_one(pid, &[]).await.expect("the server's file").get(0);
        let program = fs::read_link(format!("/proc/{pid}/exe")).expect("the server's program");
        let owner = fs::metadata(format!("/proc/{pid}")).expect("the server's user");
        let bin = program.parent().expect("a folder").to_owned();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("restores-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        std::os::unix::fs::chown(&folder, Some(owner.uid()), Some(owner.gid())).expect("the server's folder");
        let (port, pooler_port) = (free_port(), free_port());
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={port} user=tasks_api\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {pooler_port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\nserver_login_retry = 0\nignore_startup_parameters = extra_float_digits\n"
        );
        fs::write(folder.join("pgbouncer.ini"), settings).expect("the pooler's settings");
        let initdb = ["--auth", "trust", "--username", "postgres", "--no-sync", "--encoding", "UTF8"];
        run(as_owner(&folder, bin.join("initdb")).args(initdb).arg(folder.join("data")));
        let pooler =
            as_owner(&folder, "pgbouncer").arg("--quiet").arg(folder.join("pgbouncer.ini")).spawn().expect("PgBouncer");
        let cluster = Self { folder, bin, port, pooler, pooler_port };
        cluster.start();
        cluster
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn start(&self) {
        let options =
            format!("-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off", self.port);
        self.control(&["--options", &options, "--log", &self.folder.join("log").to_string_lossy(), "start"]);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&self) {
        self.control(&["--mode", "fast", "stop"]);
    }

    fn control(&self, arguments: &[&str]) {
        run(as_owner(&self.folder, self.bin.join("pg_ctl"))
            .arg("--pgdata")
            .arg(self.data())
            .args(["--wait", "--silent"])
            .args(arguments));
    }

    /// Copies the data as it is now.
    fn back_up(&self) {
        self.stop();
        run(as_owner(&self.folder, "cp").arg("-a").arg(self.data()).arg(self.folder.join("earlier")));
        self.start();
    }

    /// Sets the cluster back to the last copy.
    fn set_back(&self) {
        self.stop();
        fs::rename(self.data(), self.folder.join("lost")).expect("the newer data");
        fs::rename(self.folder.join("earlier"), self.data()).expect("the earlier data");
        fs::remove_dir_all(self.folder.join("lost")).expect("the newer data is gone");
        self.start();
    }

    fn services(&self) -> &'static Services {
        let url = format!("postgresql://postgres@127.0.0.1:{}/restored?sslmode=disable", self.port);
        let services = Services {
            postgres_port: self.port,
            pooler_port: self.pooler_port,
            owner_url: url,
            template: "restored".to_owned(),
            ..SERVICES.clone()
        };
        Box::leak(Box::new(services))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.pooler.kill();
        let _ = self.pooler.wait();
        let stop = ["--mode", "immediate", "--silent", "stop"];
        let _ = as_owner(&self.folder, self.bin.join("pg_ctl")).arg("--pgdata").arg(self.data()).args(stop).status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A command as the user who owns the folder: PostgreSQL and PgBouncer refuse to run as root.
fn as_owner(folder: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let owner = fs::metadata(folder).expect("the folder");
    let mut command = Command::new(program);
    command.current_dir(folder);
    if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command
}

fn run(command: &mut Command) {
    let log = std::env::temp_dir().join(format!("restores-{}.log", std::process::id()));
    // Not a pipe: the server keeps it open.
    let file = fs::File::create(&log).expect("a log");
    let status = command.stdout(file.try_clone().expect("a log")).stderr(file).status();
    assert!(
        status.as_ref().is_ok_and(|it| it.success()),
        "{command:?}: {status:?} {}",
        fs::read_to_string(&log).unwrap_or_default()
    );
    let _ = fs::remove_file(&log);
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).expect("a free port").local_addr().expect("its number").port()
}

#[tokio::test]
async fn over_a_dump_in_another_cluster_and_over_set_backs_every_reader_ends_with_the_table() {
    let restores = std::env::var("SYNC_RESTORES").ok().and_then(|count| count.parse().ok()).unwrap_or(RESTORES);
    let mut api = Api::start().await;
    let mut histories = Histories::begin(&mut api, HISTORIES_PER_RESTORE, 0).await;
    histories.steps(&mut api, 10).await;

    let cluster = Cluster::create(&api.database.connect().await).await;
    let services = cluster.services();
    let file = cluster.folder.join("dump").to_string_lossy().into_owned();
    run(Command::new("pg_dump").args(["--format", "custom", "--no-owner", "--file", &file, &api.database.owner_url()]));
    let admin = services.owner_url.replace("/restored", "/postgres");
    run(Command::new("psql").args([
        "--quiet",
        "--command",
        "create role tasks_api login",
        "--command",
        "create database restored",
        &admin,
    ]));
    run(Command::new("pg_restore").args(["--no-owner", "--exit-on-error", "--dbname", &services.owner_url, &file]));
    // The cluster's transactions are behind the dump's.
    let mut api = api.moved_to(Database::open(services, "restored").await, cluster.pooler_port);
    histories.steps(&mut api, 10).await;
    let lost = histories.end(&mut api).await;
    assert!(lost.is_empty(), "after the dump, readers lost changes in the histories of the seeds {lost:?}");

    // The last one without a new epoch, to show what that is for.
    for round in 1..=restores + 1 {
        let has_new_epoch = round <= restores;
        let mut histories = Histories::begin(&mut api, HISTORIES_PER_RESTORE, round as u64 * 1000).await;
        histories.steps(&mut api, 10).await;
        cluster.back_up();
        api = api.moved_to(Database::open(services, "restored").await, cluster.pooler_port);
        histories.steps(&mut api, 10).await;
        cluster.set_back();
        api = api.moved_to(Database::open(services, "restored").await, cluster.pooler_port);
        if has_new_epoch {
            api.database.batch("select migration_tools.new_epoch()").await;
        }
        // The transactions that the cluster assigns now are those of the lost time, until it is past them.
        api.database.batch("update tasks set title = 'after the restore'").await;
        api.database
            .batch("do $$ begin for n in 1..3000 loop perform pg_current_xact_id(); commit; end loop; end $$")
            .await;
        if has_new_epoch {
            histories.steps(&mut api, 10).await;
        }
        let lost = histories.end(&mut api).await;
        assert_eq!(lost.is_empty(), has_new_epoch, "after set-back {round}, readers lost changes in {lost:?}");
    }
}
