//! Trigger types: what each is called, which parameters it has, how it is built.

use std::fmt;

use futures::FutureExt;

use crate::context::Context;
use crate::input::Input;
use crate::metadata::{Errors, Finding, Metadata, Offline, Param, View};
use crate::nearest::nearest;
use crate::scaler::{Metric, MetricType, Scaler};

/// One trigger type.
pub struct Kind {
    /// The name, then the other names that mean the same.
    pub names: &'static [&'static str],
    /// The parameters.
    pub params: &'static [Param],
    /// What it scales on, in Markdown; the first line is a summary.
    pub docs: &'static str,
    /// A trigger that works, for the documentation.
    pub example: Example,
    /// Unknown parameters are not findings: the trigger hands all of them on.
    pub open: bool,
    /// The HPA controller reads the metric by itself, so that a target may be a percentage.
    pub resource: bool,
    /// Reads the metadata and, when nothing is wrong, makes the scaler.
    parse: fn(&mut View<'_>) -> Option<Box<dyn Scaler>>,
}

/// `metadata` and `authParams` of a trigger that works.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// `metadata`.
    pub metadata: &'static [(&'static str, &'static str)],
    /// `metricType`, when the type needs one.
    pub metric_type: Option<&'static str>,
}

/// The parameters of a trigger type, as a struct.
pub(crate) trait Trigger: Metadata {
    /// Checks what single parameters cannot tell, warns, and makes the scaler unless something is wrong. Does no I/O.
    fn build(self, view: &mut View<'_>) -> Option<Box<dyn Scaler>>;
}

impl Kind {
    /// The kind whose parameters are `T`.
    pub(crate) const fn of<T: Trigger>(
        names: &'static [&'static str],
        docs: &'static str,
        example: Example,
    ) -> Self {
        Self {
            names,
            params: T::PARAMS,
            docs,
            example,
            open: false,
            resource: false,
            parse: |view| T::read(view)?.build(view),
        }
    }

    /// A kind that takes any parameter beside its own.
    pub(crate) const fn open(self) -> Self {
        Self { open: true, ..self }
    }

    /// A kind whose metric the HPA controller reads by itself.
    pub(crate) const fn resource(self) -> Self {
        Self { resource: true, ..self }
    }

    /// The name to show.
    pub fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }

    fn read(&self, view: &mut View<'_>) -> Option<Box<dyn Scaler>> {
        if !self.resource
            && let Err(problem) = MetricType::for_external(view.input.metric_type)
        {
            view.error(Finding::of("metricType", format!("error getting scaler metric type: {problem}")));
        }
        let scaler = (self.parse)(view);
        if view.checking && !self.open {
            view.warn_unknown(self.params);
        }
        scaler
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kind").field(&self.name()).finish()
    }
}

/// The trigger type of that name.
pub fn kind(trigger_type: &str) -> Result<&'static Kind, UnknownTrigger> {
    crate::KINDS.iter().copied().find(|kind| kind.names.contains(&trigger_type)).ok_or_else(|| {
        UnknownTrigger {
            trigger_type: trigger_type.to_owned(),
            near: nearest(trigger_type, crate::KINDS.iter().flat_map(|kind| kind.names).copied()),
        }
    })
}

/// A trigger type that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown trigger type {trigger_type:?}{}", self.hint().map(|hint| format!(", {hint}")).unwrap_or_default())]
pub struct UnknownTrigger {
    /// As written.
    pub trigger_type: String,
    /// Names that are nearly that, nearest first.
    pub near: Vec<&'static str>,
}

impl UnknownTrigger {
    fn hint(&self) -> Option<String> {
        let near: Vec<_> = self.near.iter().map(|name| format!("{name:?}")).collect();
        (!near.is_empty()).then(|| format!("did you mean {}?", near.join(" or ")))
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The trigger cannot work.
    pub errors: Vec<Finding>,
    /// The trigger may not do what is wanted.
    pub warnings: Vec<Finding>,
}

/// Makes a trigger into a scaler. Does no I/O.
pub fn build(input: &Input) -> Result<Box<dyn Scaler>, Errors> {
    let kind = kind(&input.trigger_type)
        .map_err(|unknown| Errors::new(&input.trigger_type, vec![Finding::new(unknown.to_string())]))?;
    let mut view = View::building(input);
    match kind.read(&mut view) {
        Some(scaler) if view.errors.is_empty() => Ok(scaler),
        _ => Err(Errors::new(&input.trigger_type, view.errors)),
    }
}

/// The metrics of a trigger as far as its manifest tells them, for one that cannot be built since its authentication or
/// environment cannot be had: what may come from where `offline` cannot see is assumed to be there and right. `None`
/// where the manifest is wrong or a remote process would have to be asked. Does no I/O.
pub fn outline(input: &Input, offline: Offline, cx: &Context) -> Option<Vec<Metric>> {
    let kind = kind(&input.trigger_type).ok()?;
    let mut view = View { offline, ..View::building(input) };
    let scaler = kind.read(&mut view).filter(|_| view.errors.is_empty() && !kind.open)?;
    scaler.metrics(cx).now_or_never()?.ok()
}

/// A trigger for whoever replays its history.
pub struct Replay {
    /// To [`Scaler::judge`] values with.
    pub scaler: Box<dyn Scaler>,
    /// Its metrics; `None` where only a remote process knows them.
    pub metrics: Option<Vec<Metric>>,
}

/// Makes a trigger for whoever replays its history. What may come from where `offline` cannot see is assumed to be there and
/// right. Does no I/O.
///
/// # Errors
/// What is wrong with the trigger.
pub fn replay(input: &Input, offline: Offline, cx: &Context) -> Result<Replay, Errors> {
    let wrong = |findings| Errors::new(&input.trigger_type, findings);
    let kind = kind(&input.trigger_type).map_err(|unknown| wrong(vec![Finding::new(unknown.to_string())]))?;
    let mut view = View { offline, ..View::building(input) };
    let scaler = kind.read(&mut view);
    let (Some(scaler), true) = (scaler, view.errors.is_empty()) else { return Err(wrong(view.errors)) };
    let metrics = if kind.open { None } else { scaler.metrics(cx).now_or_never().and_then(Result::ok) };
    Ok(Replay { scaler, metrics })
}

/// Looks at a trigger as [`build`] does, and warns beside. What may come from where `offline` cannot see is assumed to
/// be there and right. Does no I/O.
pub fn check(input: &Input, offline: Offline) -> Findings {
    match kind(&input.trigger_type) {
        Ok(kind) => {
            let mut view = View::checking(input, offline);
            kind.read(&mut view);
            Findings { errors: view.errors, warnings: view.warnings }
        }
        Err(unknown) => {
            let error = Finding::new(unknown.to_string());
            Findings { errors: vec![error], warnings: Vec::new() }
        }
    }
}
