//! The texts to check: files, folders and standard input.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where a text of standard input is said to be from.
pub const STDIN: &str = "<stdin>";

/// The endings of files that are looked for in folders.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// A text with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Its path as given, or [`STDIN`].
    pub name: String,
    /// Its content.
    pub content: String,
}

/// A file or folder that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}")]
pub struct ReadError {
    /// As given, or found in a folder.
    pub path: String,
    /// Why.
    pub source: io::Error,
}

/// Reads every argument: `-` is standard input, a folder is all YAML and JSON below it in the order of their names, a
/// file is itself whatever it is called. What cannot be read is an error beside the rest.
pub fn read(arguments: &[PathBuf], stdin: &mut dyn io::Read) -> Vec<Result<Text, ReadError>> {
    let mut texts = Vec::new();
    for argument in arguments {
        if argument == Path::new("-") {
            let mut content = String::new();
            let read = stdin.read_to_string(&mut content).map(|_| Text { name: STDIN.to_owned(), content });
            texts.push(read.map_err(|source| ReadError { path: STDIN.to_owned(), source }));
        } else if argument.is_dir() {
            folder(argument, &mut texts);
        } else {
            texts.push(file(argument));
        }
    }
    texts
}

fn file(path: &Path) -> Result<Text, ReadError> {
    let name = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(content) => Ok(Text { name, content }),
        Err(source) => Err(ReadError { path: name, source }),
    }
}

/// Hidden files and folders are left out: a `.git` holds no manifests.
fn folder(path: &Path, texts: &mut Vec<Result<Text, ReadError>>) {
    let listed = fs::read_dir(path).and_then(|entries| {
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<io::Result<Vec<_>>>()
    });
    let mut paths = match listed {
        Ok(paths) => paths,
        Err(source) => return texts.push(Err(ReadError { path: path.display().to_string(), source })),
    };
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let manifest = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
        // A link to a folder could lead back to where it stands.
        match path.is_dir() {
            _ if hidden => {}
            true if path.is_symlink() => {}
            true => folder(&path, texts),
            false if manifest => texts.push(file(&path)),
            false => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_files_and_standard_input() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        fs::create_dir_all(root.join("b/.git")).unwrap();
        for (path, content) in [
            ("b/2.yml", "two"),
            ("b/1.json", "one"),
            ("a.yaml", "a"),
            ("b/.git/x.yaml", "no"),
            ("c.txt", "text"),
        ] {
            fs::write(root.join(path), content).unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("b/loop")).unwrap();
        let arguments = [root.to_path_buf(), root.join("c.txt"), "-".into(), root.join("missing.yaml")];
        let read = read(&arguments, &mut "typed".as_bytes());
        let contents: Vec<_> =
            read.iter().map(|text| text.as_ref().map_or("error", |text| text.content.as_str())).collect();
        assert_eq!(contents, ["a", "one", "two", "text", "typed", "error"]);
        assert_eq!(read[4].as_ref().unwrap().name, STDIN);
        let error = read[5].as_ref().unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.contains("missing.yaml"), "{error}");
    }
}
