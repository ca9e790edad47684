//! Where everything of a dry run meets: what would have been done, what is so, and one file.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::Arc,
};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::{
    fold::Fold,
    record::{Entry, Intent, Line, Nodes, Observed, Sample, Start, Told, VERSION},
};
use crate::cluster::Key;

/// No line is longer, in bytes: what it quotes is cut.
const LONGEST_LINE: u64 = 1 << 20;

/// What is written on, by every task.
pub struct Recorder(Mutex<State>);

struct State {
    file: File,
    /// Whether the file took the last line.
    is_well: bool,
    fold: Fold,
    /// What passes over ScaledObjects came to: the count they saw, and the one that they would have set.
    activations: BTreeMap<Key, (i32, Option<i32>)>,
}

impl Recorder {
    /// Begins a run at the end of a file, which is made if it is not there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(path: &Path, kubernetes: &str) -> io::Result<Arc<Self>> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        cut_last_line(&mut file)?;
        let recorder = Self(Mutex::new(State {
            file,
            is_well: true,
            fold: Fold::default(),
            activations: BTreeMap::new(),
        }));
        let (tandem, kubernetes) = (env!("CARGO_PKG_VERSION").to_owned(), kubernetes.to_owned());
        recorder
            .0
            .lock()
            .write(Timestamp::now(), Entry::Start(Start { version: VERSION, tandem, kubernetes }));
        Ok(Arc::new(recorder))
    }

    /// What would have been written.
    pub fn intent(&self, intent: Intent) {
        let now = Timestamp::now();
        let mut state = self.0.lock();
        let Intent { verb, resource, namespace, name, change } = &intent;
        if state.fold.is_new(&format!("{verb} {resource} {namespace}/{name} {change}"), now) {
            tracing::info!(verb, resource, namespace, name, change, "not done");
            state.write(now, Entry::Intent(intent));
        }
    }

    /// What would have been told.
    pub fn event(&self, event: Told) {
        let now = Timestamp::now();
        let mut state = self.0.lock();
        if state.fold.is_new(&format!("{} {} {}", event.object, event.reason, event.message), now) {
            state.write(now, Entry::Event(event));
        }
    }

    /// What somebody else did.
    pub fn observed(&self, object: String, reason: &str, message: String) {
        let observed = Observed { object, reason: reason.to_owned(), message };
        self.0.lock().write(Timestamp::now(), Entry::Observed(observed));
    }

    /// How it stands with an object.
    pub fn sample(&self, sample: Sample) {
        let now = Timestamp::now();
        let mut state = self.0.lock();
        if state.fold.is_new_sample(&sample, now) {
            state.write(now, Entry::Sample(sample));
        }
    }

    /// How it stands with a group or a pool.
    pub fn nodes(&self, nodes: Nodes) {
        let now = Timestamp::now();
        let mut state = self.0.lock();
        if state.fold.is_new_nodes(&nodes, now) {
            state.write(now, Entry::Nodes(nodes));
        }
    }

    /// Pods that the scheduler has no node for.
    pub fn pending(&self, pods: u32) {
        let now = Timestamp::now();
        let mut state = self.0.lock();
        if state.fold.is_new_pending(pods, now) {
            state.write(now, Entry::Pending { pods });
        }
    }

    /// What a pass over an object with `current` replicas came to: the count that it would have set, if any.
    pub fn activation(&self, key: &Key, current: i32, scale_to: Option<i32>) {
        self.0.lock().activations.insert(key.clone(), (current, scale_to));
    }

    /// What the last pass over an object came to: the count that it saw, and the one that it would have set.
    pub fn activation_of(&self, key: &Key) -> Option<(i32, Option<i32>)> {
        self.0.lock().activations.get(key).copied()
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, key: &Key) {
        let mut state = self.0.lock();
        state.activations.remove(key);
        state.fold.forget(&key.namespace, &key.name);
    }

    /// The run ends.
    pub fn stop(&self) {
        self.0.lock().write(Timestamp::now(), Entry::Stop);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl State {
    /// One line, in one write: a process that is killed leaves whole lines and at most one that is not.
    fn write(&mut self, at: Timestamp, entry: Entry) {
        let line = Line { at, entry };
        let written = serde_json::to_vec(&line).map_err(io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            self.file.write_all(&text)
        });
        if let Err(error) = &written
            && self.is_well
        {
            tracing::error!(%error, "the record of the dry run cannot be written; lines are lost");
        }
        self.is_well = written.is_ok();
    }
}

/// Takes away the half of a line that a killed process left.
fn cut_last_line(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LONGEST_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    let whole = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let kept = from + u64::try_from(whole).unwrap_or_default();
    if kept < length { file.set_len(kept) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::dry_run::record;

    #[test]
    fn runs_are_appended_and_half_a_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.jsonl");
        let intent = |change: &str| Intent {
            verb: "patch".to_owned(),
            resource: "nodes".to_owned(),
            namespace: String::new(),
            name: "n".to_owned(),
            change: change.to_owned(),
        };
        let first = Recorder::open(&path, "v1.37.0").unwrap();
        first.intent(intent("a"));
        first.intent(intent("a"));
        let mut text = fs::read(&path).unwrap();
        text.extend(br#"{"at":"20"#);
        fs::write(&path, text).unwrap();
        let second = Recorder::open(&path, "v1.37.0").unwrap();
        second.intent(intent("a"));
        second.stop();
        let (lines, truncated) = record::read(fs::read(&path).unwrap().as_slice()).unwrap();
        let kinds: Vec<_> = lines
            .iter()
            .map(|line| match &line.entry {
                Entry::Start(_) => "start",
                Entry::Intent(_) => "intent",
                Entry::Stop => "stop",
                _ => "another",
            })
            .collect();
        assert_eq!(
            (kinds.as_slice(), truncated),
            (&["start", "intent", "start", "intent", "stop"][..], false)
        );
    }
}
