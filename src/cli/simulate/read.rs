//! Manifests and histories from files.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use simulate::{Input, Manifest, Place, Problem, history::History};

use super::SimulateArgs;
use crate::check::{
    files,
    manifests::{self, Severity},
    path,
    yaml::{self, Node},
};

/// The folder beside manifests that holds their histories.
const HISTORY: &str = "history";

/// `--metric`.
#[derive(Debug, Clone)]
pub struct MetricFile {
    /// `NAMESPACE/NAME`.
    object: String,
    /// The trigger, the first by default.
    trigger: String,
    file: PathBuf,
}

/// Reads `NAMESPACE/NAME[:TRIGGER]=FILE`.
pub(super) fn metric(text: &str) -> Result<MetricFile, String> {
    let (object, trigger, file) =
        of_trigger(text).ok_or_else(|| format!("{text:?} is not NAMESPACE/NAME[:TRIGGER]=FILE"))?;
    Ok(MetricFile { object, trigger, file: file.into() })
}

/// Reads `NAMESPACE/NAME[:TRIGGER]=VALUE`.
pub(super) fn target(text: &str) -> Result<(String, f64), String> {
    let value = |text: &str| text.parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0);
    let read = of_trigger(text)
        .and_then(|(object, trigger, number)| Some((format!("{object}:{trigger}"), value(number)?)));
    read.ok_or_else(|| format!("{text:?} is not NAMESPACE/NAME[:TRIGGER]=VALUE with a value above zero"))
}

/// The object, the trigger (the first unless it is said), and what follows the equals sign.
fn of_trigger(text: &str) -> Option<(String, String, &str)> {
    let (object, rest) = text.split_once('=').filter(|(_, rest)| !rest.is_empty())?;
    let (object, trigger) = object.split_once(':').unwrap_or((object, "0"));
    let object = if object.contains('/') { object.to_owned() } else { format!("default/{object}") };
    (!object.ends_with('/')).then(|| (object, trigger.to_owned(), rest))
}

/// Reads `[TYPE=]DURATION`.
pub(super) fn node_start(text: &str) -> Result<(Option<String>, u32), String> {
    match text.split_once('=') {
        Some((name, span)) => Ok((Some(name.to_owned()), simulate::duration(span)?)),
        None => Ok((None, simulate::duration(text)?)),
    }
}

/// What was read.
#[derive(Default)]
pub(super) struct Read {
    /// The input, as far as it could be read.
    pub(super) input: Input,
    /// Files that could not be read.
    pub(super) unreadable: Vec<String>,
    /// What is wrong in those that could.
    pub(super) errors: Vec<String>,
    /// The documents with their lines, in the order of the manifests.
    nodes: Vec<Node>,
}

impl Read {
    /// The problem at the line of its field rather than at that of its object.
    pub(super) fn locate(&self, mut problem: Problem) -> Problem {
        let place = &mut problem.place;
        let manifests = self.input.manifests.iter().zip(&self.nodes);
        let found = manifests.into_iter().find(|(manifest, _)| {
            manifest.file == place.file && manifest.line == place.line && !place.path.is_empty()
        });
        if let Some((_, node)) = found {
            place.line = node.line_of(&path::Path::parse(&place.path));
        }
        problem
    }
}

/// Reads all files of the arguments, checks the manifests by the rules of admission, and finds their histories.
pub(super) fn read(args: &SimulateArgs) -> Read {
    let mut read = Read::default();
    let mut texts = Vec::new();
    for text in files::read(&args.files, &mut io::stdin()) {
        match text {
            Ok(text) => texts.push(text),
            Err(error) => read.unreadable.push(error.to_string()),
        }
    }
    for located in manifests::check(&texts).findings {
        let line = |located: &manifests::Located| {
            format!("{}:{}: {}: {}", located.file, located.line, located.object, located.finding)
        };
        match located.severity {
            Severity::Error => read.errors.push(line(&located)),
            Severity::Warning => read.input.notes.push(line(&located)),
        }
    }
    for text in &texts {
        // What does not parse is among the findings already.
        for node in yaml::documents(&text.content).into_iter().flatten() {
            read.take(&text.name, node);
        }
    }
    let means_nothing = simulate::without_effect(&read.input).into_iter().map(|problem| read.locate(problem));
    let means_nothing: Vec<_> = means_nothing.map(|problem| problem.to_string()).collect();
    read.input.notes.extend(means_nothing);
    let names: Vec<_> = args.files.iter().map(|file| file.display().to_string()).collect();
    read.input.name = names.join(" ");
    read.find_histories(&args.files);
    for metric in &args.metrics {
        let key = (metric.object.clone(), metric.trigger.clone());
        read.history(key, &metric.file);
    }
    read
}

impl Read {
    /// Takes an object, or those of a List one by one.
    fn take(&mut self, file: &str, node: Node) {
        let value = node.to_value();
        let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        if let Some(items) = node.elements("items").filter(|_| is_list) {
            for item in items {
                self.take(file, item.clone());
            }
            return;
        }
        let manifest = Manifest { file: file.into(), line: node.line(), value: Arc::new(value) };
        self.input.manifests.push(manifest);
        self.nodes.push(node);
    }

    /// Reads the histories in the folders beside the arguments.
    fn find_histories(&mut self, arguments: &[PathBuf]) {
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        for argument in arguments {
            let folder = if argument.is_dir() { Some(argument.as_path()) } else { argument.parent() };
            let Some(entries) = folder.and_then(|folder| fs::read_dir(folder.join(HISTORY)).ok()) else {
                continue;
            };
            let paths = entries.flatten().map(|entry| entry.path());
            for path in paths.filter(|path| path.extension().is_some_and(|ending| ending == "csv")) {
                files.insert(path.display().to_string(), path);
            }
        }
        for (name, path) in files {
            match self.key(&path) {
                Some(key) => self.history(key, &path),
                None => self.input.notes.push(format!(
                    "{name}: belongs to no object of the manifests; its name should be NAMESPACE.NAME.TRIGGER.csv"
                )),
            }
        }
    }

    /// The object and trigger that a file's name tells.
    fn key(&self, path: &Path) -> Option<(String, String)> {
        let stem = path.file_stem()?.to_str()?;
        let scalers = ["ScaledObject", "HorizontalPodAutoscaler"];
        let objects = self.input.manifests.iter().filter(|manifest| scalers.contains(&manifest.kind()));
        let keys = objects.filter_map(|manifest| {
            let prefix = format!("{}.{}.", manifest.namespace(), manifest.name());
            Some((manifest.key(), stem.strip_prefix(&prefix)?.to_owned()))
        });
        // Of names that begin alike the longest is meant.
        keys.max_by_key(|(key, _)| key.len())
    }

    fn history(&mut self, key: (String, String), path: &Path) {
        let name = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => match History::parse(&name, &text) {
                Ok(history) => {
                    self.input.histories.insert(key, Arc::new(history));
                }
                Err(problems) => self.errors.extend(problems.iter().map(ToString::to_string)),
            },
            Err(error) => {
                let place = Place { file: name.into(), ..Place::default() };
                self.unreadable.push(Problem::at(place, format!("cannot be read: {error}")).to_string());
            }
        }
    }
}
