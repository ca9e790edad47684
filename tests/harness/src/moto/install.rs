//! moto, from the Python package index.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::components::cache;

/// The version that the proxy was written against.
const VERSION: &str = "5.2.5";

/// `moto_server` in a virtual environment of ours in the cache folder, made if it is not there.
pub(super) fn server() -> Result<PathBuf> {
    let folder = cache()?.join(format!("moto-{VERSION}"));
    fs::create_dir_all(&folder)?;
    // Two installations into one folder would break both: the second one waits.
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    let program = folder.join("bin/moto_server");
    // A virtual environment cannot be renamed when it is done, hence a file that says so.
    let done = folder.join("done");
    if !done.is_file() {
        eprintln!("installing moto {VERSION} into {}", folder.display());
        let advice = "python3 cannot make a virtual environment (Debian: apt-get install python3-venv)";
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder.join("")), advice)?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        let package = format!("moto[server]=={VERSION}");
        run(Command::new(python(&folder)).args(pip).arg(package), "pip cannot install moto")?;
        File::create(done)?;
    }
    ensure!(program.is_file(), "{} is missing: remove {}", program.display(), folder.display());
    Ok(program)
}

fn python(folder: &Path) -> PathBuf {
    folder.join("bin/python")
}

fn run(command: &mut Command, advice: &'static str) -> Result<()> {
    let status = command.status().context(advice)?;
    ensure!(status.success(), "{advice}");
    Ok(())
}
