//! ProvisioningRequests in a pass: room that is kept, room that is there, and groups that grow for all of one or not at all.

use std::sync::Arc;

use super::{
    Choose, Input, Memory, Outcome, PassSettings, ScaleUp, ScaleUpSettings, Waiting,
    pending::{by_class, fit},
    room::Room,
    scale_up,
    world::World,
};
use crate::{
    nodes::provisioning_request::{Answer, Answered, Class, Partial, Request, Shortage, Stage},
    scheduling::Pod,
};

/// A request that groups have to grow for.
pub(super) struct Wanting {
    name: Arc<str>,
    uid: Arc<str>,
    pods: Vec<Waiting>,
}

/// Keeps the room that requests have, then looks for room for those that ask, one after the other. Returns those that
/// groups have to grow for.
pub(super) fn place(
    memory: &Memory,
    world: &mut World,
    input: &Input,
    outcome: &mut Outcome,
) -> Vec<Wanting> {
    let mut wanting = Vec::new();
    for request in input.requests.iter().filter(|request| request.stage == Stage::Booked) {
        fit(world, request.pods());
    }
    let waits = |request: &&Request| memory.requests.of(&request.uid, input.now).is_some();
    let open = input.requests.iter().filter(|request| request.stage == Stage::Open);
    for request in open.filter(|request| !waits(request)) {
        let answer = match (request.class, whole(world, request.pods())) {
            (_, Ok(())) => Answer::Found(request.templates()),
            (Class::CheckCapacity(Some(partial)), Err(shortage)) => {
                in_part(world, request, partial).unwrap_or(Answer::NotFound(shortage))
            }
            (Class::CheckCapacity(None), Err(shortage)) => Answer::NotFound(shortage),
            (Class::BestEffortAtomic, Err(_)) => {
                let (name, uid) = (request.name.clone(), request.uid.clone());
                wanting.push(Wanting { name, uid, pods: by_class(world, request.pods()) });
                continue;
            }
        };
        outcome.requests.push(Answered { request: request.name.clone(), uid: request.uid.clone(), answer });
    }
    wanting
}

/// Puts all of these pods on the snapshot, or none.
fn whole(world: &mut World, pods: Vec<Arc<Pod>>) -> Result<(), Shortage> {
    let count = pods.len();
    let before = (world.snapshot.checkpoint(), world.guests.clone());
    let left: usize = fit(world, pods).iter().map(|waiting| waiting.pods.len()).sum();
    if left == 0 {
        world.snapshot.keep(before.0);
        return Ok(());
    }
    world.snapshot.rollback(before.0);
    world.guests = before.1;
    let counted = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Err(Shortage { fit: counted(count - left), pods: counted(count), refusals: Vec::new() })
}

/// The sets that fit, each as a whole, in their order; `None` if none does.
fn in_part(world: &mut World, request: &Request, partial: Partial) -> Option<Answer> {
    let before = (world.snapshot.checkpoint(), world.guests.clone());
    let sets = request.sets.iter().filter(|set| whole(world, set.pods.clone()).is_ok());
    let fitting: Vec<_> = sets.map(|set| set.template.clone()).collect();
    match partial {
        Partial::Book => world.snapshot.keep(before.0),
        Partial::CheckOnly => {
            world.snapshot.rollback(before.0);
            world.guests = before.1;
        }
    }
    (!fitting.is_empty()).then_some(Answer::PartlyFound(fitting, partial))
}

impl Wanting {
    /// Lets groups grow for it.
    pub(super) fn grow(
        &self,
        scale_up: &mut ScaleUp<'_>,
        room: &mut Room,
        settings: &ScaleUpSettings,
        choose: &mut Choose<'_>,
    ) -> Answered {
        let mut left = room.clone();
        let grown = scale_up.all_or_nothing(&self.pods, |scale_up| {
            scale_up::grow(scale_up, &mut left, settings, choose);
        });
        self.answered(match grown {
            Ok(groups) => {
                *room = left;
                // What another grew for in this pass may have been enough.
                Answer::Provisioned(groups)
            }
            Err((short, refusals)) => {
                let pods = self.count();
                Answer::NotFound(Shortage { fit: pods.saturating_sub(short), pods, refusals })
            }
        })
    }

    /// No group may grow.
    pub(super) fn refuse(&self) -> Answered {
        self.answered(Answer::NotFound(Shortage { pods: self.count(), ..Shortage::default() }))
    }

    fn count(&self) -> u32 {
        u32::try_from(self.pods.iter().map(|waiting| waiting.pods.len()).sum::<usize>()).unwrap_or(u32::MAX)
    }

    fn answered(&self, answer: Answer) -> Answered {
        Answered { request: self.name.clone(), uid: self.uid.clone(), answer }
    }
}

/// Who found no room is tried again after a while, each time a longer one.
pub(super) fn remember(memory: &mut Memory, input: &Input, settings: &PassSettings, outcome: &Outcome) {
    memory.requests.keep(|uid| input.requests.iter().any(|request| *request.uid == *uid));
    for Answered { uid, answer, .. } in &outcome.requests {
        if answer.books() {
            memory.requests.succeed(uid);
        } else {
            memory.requests.fail(uid, "CapacityIsNotFound", "", input.now, settings.requests);
        }
    }
}
