//! Authorities of the user's own, from the folders of `--ca-dir`.

use std::{fs, io, path::PathBuf};

/// Why the authorities cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path} of --ca-dir cannot be read: {source}")]
pub(crate) struct AuthorityError {
    path: PathBuf,
    source: io::Error,
}

/// The PEM bundles in `folders`. A folder that does not exist holds none (KEDA mounts its default, `/custom/ca`, on
/// demand), and neither do folders within it, which is where a mounted Secret keeps its versions.
///
/// # Errors
/// A folder or file is there and cannot be read.
pub(crate) fn read(folders: &[PathBuf]) -> Result<Vec<String>, AuthorityError> {
    let mut bundles = Vec::new();
    for folder in folders {
        let failed = |path: &PathBuf| {
            let path = path.clone();
            move |source| AuthorityError { path, source }
        };
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(failed(folder))?,
        };
        let paths: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut paths = paths.map_err(failed(folder))?;
        paths.sort();
        for path in paths.into_iter().filter(|path| path.is_file()) {
            let text = fs::read_to_string(&path).map_err(failed(&path))?;
            if text.contains("-----BEGIN CERTIFICATE-----") {
                bundles.push(text);
            } else {
                tracing::warn!(path = %path.display(), "holds no PEM certificate and is left out");
            }
        }
    }
    Ok(bundles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_all_folders_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("..data")).unwrap();
        for (name, text) in [("b.crt", "b"), ("a.crt", "a")] {
            fs::write(path(name), format!("-----BEGIN CERTIFICATE-----\n{text}")).unwrap();
        }
        fs::write(path("README"), "none").unwrap();
        let bundles = read(&[path("missing"), folder.path().to_owned()]).unwrap();
        let last = |bundle: &String| bundle.lines().last().map(str::to_owned);
        assert_eq!(bundles.iter().filter_map(last).collect::<Vec<_>>(), ["a", "b"]);
        assert!(read(&[path("README")]).is_err(), "a file is no folder");
    }
}
