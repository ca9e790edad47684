//! Which of several groups grows: expanders, each of which narrows the choice, in a chain.
//!
//! Source: Cluster Autoscaler, `expander/`.

mod price;
mod priority;

use std::{
    cmp::{Ordering, Reverse},
    str::FromStr,
    sync::Arc,
};

use thiserror::Error;

pub use price::{Pricing, Score, preferred_cpu, score, unfitness};
pub use priority::{CONFIG_MAP, CONFIG_MAP_KEY, Priorities, PriorityError, PriorityEvent};

use crate::scheduling::Resources;

/// What a group could do for the pods that wait.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Choice {
    /// The group.
    pub group: Arc<str>,
    /// Nodes that it would get.
    pub nodes: u32,
    /// Pods that would run there.
    pub pods: u32,
    /// What these request together.
    pub requested: Resources,
    /// What one node has.
    pub capacity: Resources,
    /// Prices, where the provider knows them.
    pub pricing: Pricing,
}

/// A way to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expander {
    /// Any.
    Random,
    /// Those that run the most pods.
    MostPods,
    /// Those that leave the least cpu and memory unused.
    LeastWaste,
    /// Those that need the fewest nodes.
    LeastNodes,
    /// Those that cost the least for what they run.
    Price,
    /// Those that the user put first.
    Priority,
    /// Those that a server names: asked for outside.
    Grpc,
}

/// Every expander, with its name in `--expander`.
const NAMES: &[(&str, Expander)] = &[
    ("random", Expander::Random),
    ("most-pods", Expander::MostPods),
    ("least-waste", Expander::LeastWaste),
    ("least-nodes", Expander::LeastNodes),
    ("price", Expander::Price),
    ("priority", Expander::Priority),
    ("grpc", Expander::Grpc),
];

impl Expander {
    /// Its name in `--expander`.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, expander)| *expander == self).map_or("", |(name, _)| name)
    }
}

/// Why the text of `--expander` names no chain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    /// Nothing of that name.
    #[error(
        "expander {0:?} is not known: expected random, most-pods, least-waste, least-nodes, price, priority or grpc"
    )]
    Unknown(String),
    /// Twice the same.
    #[error("expander {0} is named twice: each may come once")]
    Twice(&'static str),
}

/// Expanders, each of which narrows what the one before it left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain(Vec<Expander>);

impl FromStr for Chain {
    type Err = ChainError;

    /// Reads names with commas between them.
    fn from_str(text: &str) -> Result<Self, ChainError> {
        let mut chain: Vec<Expander> = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let known = NAMES.iter().find(|(known, _)| *known == name);
            let (name, expander) = known.ok_or_else(|| ChainError::Unknown(name.to_owned()))?;
            if chain.contains(expander) {
                return Err(ChainError::Twice(name));
            }
            chain.push(*expander);
        }
        Ok(Self(chain))
    }
}

/// What expanders look at beside the choices.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// What the user put first; `None` if nothing can be read, which leaves every choice.
    pub priorities: Option<&'a Priorities>,
    /// Nodes of the cluster, by which the preferred size of a node is told.
    pub cluster_nodes: usize,
    /// A random number, from outside.
    pub seed: u64,
}

/// How far a chain has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// These are left, as indices into the choices; [`pick`] takes one.
    Left(Vec<usize>),
    /// A step has to be answered outside, see [`Chain::answer`].
    Ask(Question),
}

/// A step that is answered outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Which step it is.
    step: usize,
    /// What is left to choose from, as indices into the choices.
    pub left: Vec<usize>,
}

impl Chain {
    /// A chain of these.
    pub fn new(expanders: Vec<Expander>) -> Self {
        Self(expanders)
    }

    /// Whether it has such a step.
    pub fn has(&self, expander: Expander) -> bool {
        self.0.contains(&expander)
    }

    /// Narrows the choices as far as it can be done here; what expanders say is added to `events`.
    pub fn begin(
        &self,
        choices: &[Choice],
        context: &Context<'_>,
        events: &mut Vec<PriorityEvent>,
    ) -> Progress {
        self.narrow(0, (0..choices.len()).collect(), choices, context, events)
    }

    /// Goes on after a step that was answered outside: `kept` are those of the question's choices that it keeps.
    pub fn answer(
        &self,
        question: &Question,
        kept: &[usize],
        choices: &[Choice],
        context: &Context<'_>,
        events: &mut Vec<PriorityEvent>,
    ) -> Progress {
        let left = question.left.iter().copied().filter(|choice| kept.contains(choice)).collect();
        self.narrow(question.step + 1, left, choices, context, events)
    }

    fn narrow(
        &self,
        from: usize,
        mut left: Vec<usize>,
        choices: &[Choice],
        context: &Context<'_>,
        events: &mut Vec<PriorityEvent>,
    ) -> Progress {
        for (step, expander) in self.0.iter().enumerate().skip(from) {
            // What is chosen already needs no further step, but the first step may refuse a lone choice.
            if left.is_empty() || (left.len() == 1 && step > 0) {
                break;
            }
            if *expander == Expander::Grpc {
                return Progress::Ask(Question { step, left });
            }
            left = keep(*expander, left, choices, context, events);
        }
        Progress::Left(left)
    }
}

/// What an expander keeps of what is left.
fn keep(
    expander: Expander,
    left: Vec<usize>,
    choices: &[Choice],
    context: &Context<'_>,
    events: &mut Vec<PriorityEvent>,
) -> Vec<usize> {
    match expander {
        Expander::Random => pick(&left, context.seed).into_iter().collect(),
        Expander::MostPods => least(&left, |choice| Some(Reverse(choices[choice].pods))),
        Expander::LeastNodes => {
            let nodes = |choice: usize| Some(choices[choice].nodes).filter(|nodes| *nodes > 0);
            least(&left, nodes)
        }
        Expander::LeastWaste => least(&left, |choice| Some(waste(&choices[choice]).total())),
        Expander::Price => {
            let preferred = preferred_cpu(context.cluster_nodes);
            let price = |choice: usize| Some(score(&choices[choice], preferred)?.total);
            least(&left, price)
        }
        Expander::Priority => match context.priorities {
            Some(priorities) => priorities.keep(left, choices, events),
            None => left,
        },
        Expander::Grpc => left,
    }
}

/// Those of the least value; those without a value are dropped.
fn least<T: PartialOrd>(left: &[usize], value: impl Fn(usize) -> Option<T>) -> Vec<usize> {
    let mut best: Option<T> = None;
    let mut kept = Vec::new();
    for choice in left.iter().copied() {
        let Some(value) = value(choice) else { continue };
        let order = best.as_ref().and_then(|best| value.partial_cmp(best));
        match order {
            Some(Ordering::Greater) => {}
            Some(Ordering::Equal) => kept.push(choice),
            Some(Ordering::Less) | None => {
                kept = vec![choice];
                best = Some(value);
            }
        }
    }
    kept
}

/// One of what is left, by a random number; `None` if nothing is.
pub fn pick(left: &[usize], seed: u64) -> Option<usize> {
    let count = u64::try_from(left.len()).ok().filter(|count| *count > 0)?;
    left.get(usize::try_from(seed % count).ok()?).copied()
}

/// What of new nodes stays unused, shares of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waste {
    /// Of cpu.
    pub cpu: f64,
    /// Of memory.
    pub memory: f64,
}

impl Waste {
    /// Both together.
    pub fn total(self) -> f64 {
        self.cpu + self.memory
    }
}

/// What of the new nodes the pods would leave unused.
pub fn waste(choice: &Choice) -> Waste {
    let nodes = i64::from(choice.nodes);
    Waste {
        cpu: unused(choice.capacity.cpu.saturating_mul(nodes), choice.requested.cpu),
        memory: unused(choice.capacity.memory.saturating_mul(nodes), choice.requested.memory),
    }
}

/// A node of unknown capacity is all waste.
#[allow(clippy::cast_precision_loss, reason = "a ratio of amounts: 53 bits are plenty")]
fn unused(available: i64, requested: i64) -> f64 {
    if available == 0 { 1.0 } else { (available - requested) as f64 / available as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(group: &str, nodes: u32, pods: u32) -> Choice {
        Choice { group: group.into(), nodes, pods, ..Choice::default() }
    }

    fn left(chain: &str, choices: &[Choice]) -> Progress {
        chain.parse::<Chain>().unwrap().begin(choices, &Context::default(), &mut Vec::new())
    }

    #[test]
    fn each_step_narrows_what_the_last_one_left() {
        let choices = [choice("a", 3, 9), choice("b", 2, 9), choice("c", 1, 5)];
        assert_eq!(left("most-pods", &choices), Progress::Left(vec![0, 1]));
        assert_eq!(left("most-pods,least-nodes", &choices), Progress::Left(vec![1]));
        assert_eq!(left("least-nodes", &choices), Progress::Left(vec![2]));
        assert_eq!(left("", &choices), Progress::Left(vec![0, 1, 2]));
    }

    #[test]
    fn a_step_outside_is_asked_and_answered() {
        let choices = [choice("a", 3, 9), choice("b", 2, 9), choice("c", 1, 5)];
        let chain: Chain = "most-pods,grpc,least-nodes".parse().unwrap();
        let (context, mut events) = (Context::default(), Vec::new());
        let Progress::Ask(question) = chain.begin(&choices, &context, &mut events) else {
            panic!("not asked")
        };
        assert_eq!(question.left, [0, 1]);
        let answered = |kept: &[usize]| chain.answer(&question, kept, &choices, &context, &mut Vec::new());
        assert_eq!(answered(&[0]), Progress::Left(vec![0]));
        assert_eq!(answered(&[0, 1, 2]), Progress::Left(vec![1]), "what was not asked for is not taken");
        assert_eq!(answered(&[]), Progress::Left(vec![]));
    }

    #[test]
    fn bad_chains_say_what_is_wrong() {
        assert_eq!("random,random".parse::<Chain>(), Err(ChainError::Twice("random")));
        let unknown = "cheapest".parse::<Chain>().unwrap_err().to_string();
        assert!(unknown.starts_with("expander \"cheapest\" is not known"), "{unknown}");
    }

    proptest::proptest! {
        #[test]
        fn a_pick_is_one_of_what_is_left(count in 0usize..9, seed: u64) {
            let left: Vec<usize> = (10..10 + count).collect();
            let picked = pick(&left, seed);
            proptest::prop_assert_eq!(picked.is_none(), count == 0);
            proptest::prop_assert!(picked.is_none_or(|picked| left.contains(&picked)));
        }
    }
}
