//! Sweeps: the same history under many settings, and which of them is worth its cost.

mod patch;
mod setting;
mod text;

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use setting::Dimension;

use crate::outcome::Summary;
use crate::{Input, Options, Problem, comparable, run};

/// More settings than this are a typing error rather than a question.
const MOST_SETTINGS: usize = 10_000;

/// What a sweep found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sweep {
    /// What is swept, as the user wrote it.
    pub keys: Vec<String>,
    /// What cost is measured in.
    pub unit: CostUnit,
    /// One a setting; the last key changes fastest.
    pub points: Vec<Point>,
    /// The most unserved load that the user accepts, as a share of all load.
    pub limit: Option<f64>,
    /// The cheapest point under the limit.
    pub recommended: Option<usize>,
    /// Commands that apply the recommended setting.
    pub patches: Vec<String>,
}

/// One setting and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// A value for each key.
    pub values: Vec<Value>,
    /// The world under this setting.
    pub summary: Summary,
    /// In the sweep's unit.
    pub cost: f64,
    /// Whether no other setting is cheaper without leaving more unserved, or the other way about.
    pub front: bool,
}

/// What cost is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CostUnit {
    /// Prices are known.
    Dollars,
    /// They are not: running pods × hours.
    PodHours,
}

/// What to do beside playing the settings.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Wish {
    /// Whether to name the cheapest setting.
    pub recommend: bool,
    /// The most unserved load of a setting that is named, as a share of all load; 0.1 % if absent.
    pub max_unserved: Option<f64>,
    /// Threads; as many as there are processors, if absent. The result is the same for any number.
    pub threads: Option<NonZero<usize>>,
}

/// Unserved load that is accepted unless the user says: one request in a thousand.
const MAX_UNSERVED: f64 = 0.001;

/// Plays every combination of the dimensions' values. What a replica can take is what it is meant to take in `input`, or what
/// the options say.
///
/// # Errors
/// A dimension fits no object, there are too many settings, or a setting makes a world that cannot be played; each problem
/// names the setting.
pub fn sweep(
    input: &Input,
    options: &Options,
    dimensions: &[Dimension],
    wish: &Wish,
) -> Result<Sweep, Vec<Problem>> {
    let one = |problem| vec![problem];
    let settings = combinations(dimensions).map_err(one)?;
    let fields = dimensions
        .iter()
        .map(|dimension| dimension.fields(input).map_err(one))
        .collect::<Result<Vec<_>, Vec<Problem>>>()?;
    let options = comparable(input, options)?;
    let play = |values: &Vec<Value>| {
        let world = setting::applied(input, &fields, values).map_err(|problem| vec![problem])?;
        run(&world, &options).map(|outcome| outcome.summary).map_err(|problems| {
            problems.into_iter().map(|problem| named(&setting::name(dimensions, values), problem)).collect()
        })
    };
    let summaries = parallel(&settings, threads(wish), &play)?;
    let priced = summaries.iter().all(|summary| summary.cost.is_some());
    let cost = |summary: &Summary| summary.cost.filter(|_| priced).unwrap_or(summary.pod_hours);
    let mut points: Vec<_> = settings
        .into_iter()
        .zip(summaries)
        .map(|(values, summary)| Point { values, cost: cost(&summary), summary, front: false })
        .collect();
    mark_front(&mut points);
    let limit =
        (wish.recommend || wish.max_unserved.is_some()).then(|| wish.max_unserved.unwrap_or(MAX_UNSERVED));
    let recommended = limit.filter(|_| wish.recommend).and_then(|limit| cheapest(&points, limit));
    let patches =
        recommended.map(|index| patch::commands(&fields, &points[index].values)).unwrap_or_default();
    Ok(Sweep {
        keys: dimensions.iter().map(|dimension| dimension.key.clone()).collect(),
        unit: if priced { CostUnit::Dollars } else { CostUnit::PodHours },
        points,
        limit,
        recommended,
        patches,
    })
}

/// The input under the setting of a point, to be played and drawn.
///
/// # Errors
/// As [`sweep`].
pub fn world_of(input: &Input, dimensions: &[Dimension], point: &Point) -> Result<Input, Problem> {
    let fields = dimensions.iter().map(|dimension| dimension.fields(input)).collect::<Result<Vec<_>, _>>()?;
    let mut world = setting::applied(input, &fields, &point.values)?;
    world.name = setting::name(dimensions, &point.values);
    Ok(world)
}

/// Every combination of values, the last dimension changing fastest.
fn combinations(dimensions: &[Dimension]) -> Result<Vec<Vec<Value>>, Problem> {
    let count =
        dimensions.iter().try_fold(1_usize, |count, dimension| count.checked_mul(dimension.values.len()));
    if count.is_none_or(|count| count > MOST_SETTINGS) {
        let counts: Vec<_> = dimensions.iter().map(|dimension| dimension.values.len().to_string()).collect();
        let counts = counts.join(" × ");
        return Err(Problem::new(format!(
            "{counts} settings are more than {MOST_SETTINGS}: take larger steps"
        )));
    }
    let mut all = vec![Vec::new()];
    for dimension in dimensions {
        all = all
            .iter()
            .flat_map(|begun| {
                dimension
                    .values
                    .iter()
                    .map(move |value| [begun.as_slice(), std::slice::from_ref(value)].concat())
            })
            .collect();
    }
    Ok(all)
}

fn named(setting: &str, mut problem: Problem) -> Problem {
    problem.message = format!("with {setting}: {}", problem.message);
    problem
}

fn threads(wish: &Wish) -> usize {
    wish.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get)
}

/// What `play` makes of each setting, in their order; the problems of the first that has any.
fn parallel<T: Send>(
    settings: &[Vec<Value>],
    threads: usize,
    play: &(impl Fn(&Vec<Value>) -> Result<T, Vec<Problem>> + Sync),
) -> Result<Vec<T>, Vec<Problem>> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let done = Mutex::new(Vec::with_capacity(settings.len()));
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, settings.len().max(1)) {
            scope.spawn(|| {
                // Settings are taken in order, so all before one that failed are played to their end.
                while !failed.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(setting) = settings.get(index) else { return };
                    let result = play(setting);
                    failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Marks the Pareto front; of several points that are equal in both, the first.
fn mark_front(points: &mut [Point]) {
    let mut order: Vec<_> = (0..points.len()).collect();
    let key = |index: &usize| (points[*index].cost, points[*index].summary.unserved_share);
    order.sort_by(|a, b| {
        let ((cost_a, left_a), (cost_b, left_b)) = (key(a), key(b));
        cost_a.total_cmp(&cost_b).then(left_a.total_cmp(&left_b)).then(a.cmp(b))
    });
    let mut least = f64::INFINITY;
    for index in order {
        let left = points[index].summary.unserved_share;
        points[index].front = left < least;
        least = least.min(left);
    }
}

/// The cheapest point that leaves no more than `limit` unserved; always one of the front.
fn cheapest(points: &[Point], limit: f64) -> Option<usize> {
    let fits = |index: &usize| points[*index].front && points[*index].summary.unserved_share <= limit;
    (0..points.len()).filter(fits).min_by(|a, b| points[*a].cost.total_cmp(&points[*b].cost))
}

#[cfg(test)]
mod tests;
