//! Histories from a Prometheus server: each trigger's own query, as range queries.

use std::sync::Arc;

use kube::ResourceExt;
use scalers::{Context, Offline};
use serde::Deserialize;
use simulate::{
    Input, Manifest, Options, Problem,
    history::{History, Sample},
};
use tandem_core::api::keda::{ScaleTrigger, ScaledObject};

use super::{SimulateArgs, credentials};

/// Seconds between samples, when nothing says: the rhythm of the HPA.
const STEP: u32 = 15;

/// Puts the histories of all prometheus triggers that have none into the input.
pub(super) fn fetch(
    input: &mut Input,
    options: &Options,
    url: &str,
    args: &SimulateArgs,
) -> Result<(), Vec<Problem>> {
    let failed = |problem: String| vec![Problem::new(problem)];
    let (Some(start), Some(end)) = (options.start, options.end) else {
        return Err(failed("--prometheus needs --start and --end".to_owned()));
    };
    let range = scalers::Range { start, end, step: args.step.unwrap_or(STEP) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(format!("no runtime: {error}")))?;
    let context = Context::without_cluster().map_err(|error| failed(error.to_string()))?;
    let mut problems = Vec::new();
    for manifest in input.manifests.clone() {
        if manifest.kind() != "ScaledObject" {
            continue;
        }
        let Ok(object) = ScaledObject::deserialize(&*manifest.value) else { continue };
        for (index, trigger) in object.spec.triggers.iter().enumerate() {
            let key = (manifest.key(), format!("s{index}-prometheus"));
            let names = [Some(index.to_string()), trigger.name.clone(), Some(key.1.clone())];
            let known = |name: String| input.histories.contains_key(&(manifest.key(), name));
            if trigger.type_ != "prometheus" || names.into_iter().flatten().any(known) {
                continue;
            }
            let asked = history(&context, input, (&manifest, &object), (index, trigger), url, range);
            match runtime.block_on(asked) {
                Ok((history, note)) => {
                    input.notes.extend(note);
                    input.histories.insert(key, Arc::new(history));
                }
                Err(message) => {
                    let place = manifest.place(&format!("spec.triggers[{index}].metadata.query"));
                    problems.push(Problem::at(place, message));
                }
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// The history of a trigger, asked for as its scaler asks for a value; and what was left out.
async fn history(
    context: &Context,
    world: &Input,
    (manifest, object): (&Manifest, &ScaledObject),
    (index, trigger): (usize, &ScaleTrigger),
    url: &str,
    range: scalers::Range,
) -> Result<(History, Option<String>), String> {
    let mut input = triggers::input(object, index, trigger);
    input.metric_type = triggers::metric_type(trigger).map_err(|error| error.to_string())?;
    input.metadata.insert("serverAddress".to_owned(), url.to_owned());
    input.namespace = manifest.namespace().to_owned();
    let mut note = None;
    if let Some(reference) = &trigger.authentication_ref {
        let found = credentials::of(world, manifest.namespace(), reference).await;
        if let Some(authentication) = found.map_err(|error| error.to_string())? {
            (input.auth_params, input.pod_identity) = (authentication.params, authentication.identity);
        } else {
            let (key, name) = (manifest.key(), &reference.name);
            note = Some(format!(
                "{key} trigger {index}: {name} is not among the manifests, and {url} was asked without its credentials"
            ));
        }
    }
    let offline = Offline { auth: note.is_some(), env: true };
    let replay = scalers::replay(&input, offline, context).map_err(|error| error.to_string())?;
    let values = replay.scaler.history(context, range).await.map_err(|error| error.to_string())?;
    if values.is_empty() {
        return Err(format!("{url} has no data from {} to {}", range.start, range.end));
    }
    // A step without a result is an empty answer, which the trigger may take for 0.
    let mut answers = values.into_iter().peekable();
    let mut samples = Vec::new();
    let mut at = range.start.as_second();
    while at <= range.end.as_second() {
        let answer = answers.next_if(|(time, _)| *time <= at);
        samples.push(Sample { at, value: Some(answer.map_or(f64::NAN, |(_, value)| value)) });
        at += i64::from(range.step.max(1));
    }
    let name = format!("{url} {}/{} trigger {index}", manifest.namespace(), object.name_any());
    let history = History::new(&name, &samples).map_err(|problem| problem.to_string())?;
    Ok((history, note))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        thread::{self, JoinHandle},
    };

    use serde_json::{Value, json};

    use super::*;

    /// A server that answers one range query with the value 7, and the header by which it was asked, if it was.
    fn server() -> (String, JoinHandle<Option<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let series = json!({"metric": {}, "values": [[0, "7"]]});
            let body = json!({"status": "success", "data": {"resultType": "matrix", "result": [series]}})
                .to_string();
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            )
            .unwrap();
            headers.into_iter().find(|line| line.to_lowercase().starts_with("authorization:"))
        });
        (url, answer)
    }

    #[tokio::test]
    async fn a_server_is_asked_with_the_credentials_of_the_manifests() {
        let manifest = |value: Value| Manifest { file: "test".into(), line: 1, value: Arc::new(value) };
        let object = manifest(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"scaleTargetRef": {"name": "web"}, "triggers": [{
                "type": "prometheus", "authenticationRef": {"name": "login"},
                "metadata": {"serverAddress": "https://far.example", "query": "x", "threshold": "1", "authModes": "bearer"},
            }]},
        }));
        let login = manifest(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication",
            "metadata": {"name": "login", "namespace": "shop"},
            "spec": {"secretTargetRef": [{"parameter": "bearerToken", "name": "token", "key": "token"}]},
        }));
        let secret = manifest(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token", "namespace": "shop"},
            "stringData": {"token": "open"},
        }));
        let context = Context::without_cluster().unwrap();
        let range =
            scalers::Range { start: jiff::Timestamp::UNIX_EPOCH, end: jiff::Timestamp::UNIX_EPOCH, step: 15 };
        let parsed = ScaledObject::deserialize(&*object.value).unwrap();
        let trigger = &parsed.spec.triggers[0];
        for (manifests, sent, notes) in [
            (vec![object.clone(), login.clone(), secret], Some("authorization: Bearer open"), 0),
            (vec![object.clone()], None, 1),
        ] {
            let (url, asked) = server();
            let input = Input { manifests, ..Input::default() };
            let (found, note) =
                history(&context, &input, (&object, &parsed), (0, trigger), &url, range).await.unwrap();
            assert_eq!(found.start(), range.start);
            assert_eq!(asked.join().unwrap().as_deref(), sent);
            assert_eq!(note.iter().count(), notes, "{note:?}");
        }
        let input = Input { manifests: vec![object.clone(), login], ..Input::default() };
        let nobody = "http://127.0.0.1:1";
        let absent =
            history(&context, &input, (&object, &parsed), (0, trigger), nobody, range).await.unwrap_err();
        assert!(absent.starts_with("Secret shop/token has no key \"token\""), "{absent}");
    }
}
