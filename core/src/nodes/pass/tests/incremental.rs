//! A pass that knows the one before decides as one that knows nothing.

use proptest::prelude::*;

use super::{
    requests::{ATOMIC, CHECK, request},
    *,
};
use crate::scheduling::surroundings::Claim;

/// Something that happens between two passes; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Change {
    /// Nothing but time goes by.
    Nothing,
    Run(usize, i64),
    Wait(i64),
    Expect(i64),
    Ask(usize, i64),
    Nominate(usize, usize),
    End(usize),
    Vanish(usize),
    Terminate(usize),
    Resize(usize, i64),
    Cordon(usize),
    Relabel(usize),
    Unready(usize),
    Join(usize),
    Leave(usize),
    Lack(usize),
    Remove(usize),
    Removed,
    Budget(i32),
    Surroundings,
}

fn change() -> impl Strategy<Value = Change> {
    let any = 0usize..64;
    let cpu = 100i64..3000;
    prop_oneof![
        4 => Just(Change::Nothing),
        3 => (any.clone(), cpu.clone()).prop_map(|(node, cpu)| Change::Run(node, cpu)),
        3 => cpu.clone().prop_map(Change::Wait),
        1 => cpu.clone().prop_map(Change::Expect),
        1 => (any.clone(), cpu.clone()).prop_map(|(class, cpu)| Change::Ask(class, cpu)),
        1 => (any.clone(), any.clone()).prop_map(|(pod, node)| Change::Nominate(pod, node)),
        1 => any.clone().prop_map(Change::End),
        2 => any.clone().prop_map(Change::Vanish),
        1 => any.clone().prop_map(Change::Terminate),
        1 => (any.clone(), cpu).prop_map(|(pod, cpu)| Change::Resize(pod, cpu)),
        1 => any.clone().prop_map(Change::Cordon),
        1 => any.clone().prop_map(Change::Relabel),
        1 => any.clone().prop_map(Change::Unready),
        1 => any.clone().prop_map(Change::Join),
        1 => any.clone().prop_map(Change::Leave),
        1 => any.clone().prop_map(Change::Lack),
        1 => any.prop_map(Change::Remove),
        1 => Just(Change::Removed),
        1 => (0i32..3).prop_map(Change::Budget),
        1 => Just(Change::Surroundings),
    ]
}

/// One of a list, by a number.
fn choose<T>(list: &mut [T], number: usize) -> Option<&mut T> {
    let at = number.checked_rem(list.len())?;
    list.get_mut(at)
}

impl Cluster {
    fn change(mut self, change: &Change) -> Self {
        let name = |nodes: &[Arc<Node>], number: usize| -> Option<Arc<str>> {
            Some(nodes.get(number.checked_rem(nodes.len())?)?.name.clone())
        };
        match *change {
            Change::Nothing => {}
            Change::Run(node, cpu) => {
                if let Some(node) = name(&self.input.nodes, node) {
                    self = self.running(&node, cpu, |shape| app(shape, if cpu % 2 == 0 { "a" } else { "b" }));
                }
            }
            Change::Wait(cpu) => self = self.waiting(1, cpu),
            Change::Expect(cpu) => self.input.expected = vec![Arc::new(pod("expected", cpu))],
            Change::Ask(class, cpu) => {
                let class = [CHECK, ATOMIC][class % 2];
                self.input.requests = vec![request("asked", class, &[(3, cpu)])];
            }
            Change::Nominate(pod, node) => {
                let node = name(&self.input.nodes, node);
                self.change_pod(pod, |pod| pod.nominated = node);
            }
            Change::End(pod) => self.change_pod(pod, |pod| pod.phase = Phase::Succeeded),
            Change::Vanish(pod) => {
                let pods = &mut self.input.pods;
                if let Some(at) = pod.checked_rem(pods.len()) {
                    pods.remove(at);
                }
            }
            Change::Terminate(pod) => {
                let now = self.input.now;
                self.change_pod(pod, |pod| pod.deleting = Some(now));
            }
            Change::Resize(pod, cpu) => {
                self.change_pod(pod, |pod| Arc::make_mut(&mut pod.shape).requests.cpu = cpu);
            }
            Change::Cordon(node) => self.change_node(node, |node| node.unschedulable = !node.unschedulable),
            Change::Relabel(node) => self.change_node(node, |node| {
                node.labels.insert("more".to_owned(), "label".to_owned());
            }),
            Change::Unready(node) => self.change_node(node, |node| node.ready = !node.ready),
            Change::Join(group) => {
                if let Some(id) = choose(&mut self.input.groups, group).map(|group| group.id.clone()) {
                    let name = format!("{id}-{}", self.input.nodes.len() + 10);
                    self = self.instance(&id, &name, group % 4 > 0);
                    let created = self.input.now;
                    self = self.with_node(&name, |node| {
                        node.created = Some(created);
                        node.ready = group % 3 > 0;
                    });
                }
            }
            Change::Leave(node) => {
                let nodes = &mut self.input.nodes;
                if let Some(at) = node.checked_rem(nodes.len()) {
                    nodes.remove(at);
                }
            }
            Change::Lack(group) => {
                if let Some(group) = choose(&mut self.input.groups, group) {
                    group.instances.pop();
                }
            }
            Change::Remove(node) => {
                if let Some(node) = name(&self.input.nodes, node) {
                    self.input.removing.insert(node, true);
                }
            }
            Change::Removed => self.input.removing.clear(),
            Change::Budget(allowed) => {
                self.budgets.clear();
                self = self.budget("a", allowed);
            }
            Change::Surroundings => {
                let mut surroundings = (*self.input.surroundings).clone();
                surroundings.claims.insert(("".into(), "claim".into()), Claim::default());
                self.input.surroundings = Arc::new(surroundings);
            }
        }
        self
    }

    fn change_pod(&mut self, number: usize, change: impl FnOnce(&mut Pod)) {
        if let Some(pod) = choose(&mut self.input.pods, number) {
            let mut changed = (**pod).clone();
            change(&mut changed);
            *pod = Arc::new(changed);
        }
    }

    fn change_node(&mut self, number: usize, change: impl FnOnce(&mut Node)) {
        if let Some(node) = choose(&mut self.input.nodes, number) {
            let mut changed = (**node).clone();
            change(&mut changed);
            *node = Arc::new(changed);
        }
    }

    /// As it is watched: nothing changes behind a pointer, and all is in order of names.
    fn settled(&self) -> Input {
        let mut input = self.input.clone();
        input.nodes.sort_by(|one, other| one.name.cmp(&other.name));
        input.pods.sort_by(|one, other| one.name.cmp(&other.name));
        input
    }
}

proptest! {
    #[test]
    fn a_pass_that_knows_the_one_before_decides_as_one_that_knows_nothing(
        sizes in prop::collection::vec((0u32..3, 0u32..5), 1..3),
        steps in prop::collection::vec((prop::collection::vec(change(), 0..3), 0i64..8), 1..12),
    ) {
        let mut cluster = Cluster::default().budget("a", 1);
        for (number, (min, nodes)) in sizes.into_iter().enumerate() {
            cluster = cluster.group(&format!("g{number}"), (min, 8), nodes);
        }
        let settings = settings();
        let mut model = Model::new(settings.clone());
        let (mut memory, mut minute) = (Memory::default(), 0);
        for (changes, minutes) in steps {
            for change in &changes {
                cluster = cluster.change(change);
            }
            minute += minutes;
            cluster.input.now = at(minute);
            let input = cluster.settled();
            let mut first = |_: &ScaleUp<'_>, options: &[ExpansionOption]| (!options.is_empty()).then_some(0);
            let mut fresh_memory = memory.clone();
            let fresh = run(&mut fresh_memory, &input, &settings, &mut first);
            let incremental = model.pass(&mut memory, &input, &mut first);
            prop_assert_eq!(&incremental, &fresh);
            prop_assert_eq!(&memory, &fresh_memory);
        }
    }
}

#[test]
fn a_pass_in_which_nothing_is_new_says_the_same_without_another_look() {
    let mut cluster = Cluster::default().group("g", (0, 5), 2);
    for node in ["g-0", "g-1"] {
        cluster = cluster.running(node, 3000, |_| {});
    }
    let mut model = Model::new(settings());
    let mut memory = Memory::default();
    let mut pass = |minute: i64| {
        let input = Input { now: at(minute), ..cluster.input.clone() };
        let calm = model.unchanged(&memory, &input).is_some();
        (calm, model.pass(&mut memory, &input, &mut |_, _| None))
    };
    let (calm, first) = pass(0);
    assert!(!calm);
    let (calm, second) = pass(60);
    assert!(calm);
    assert_eq!(first, second);
}
