//! Identical pods share one [`Shape`]: 150,000 pods of 500 Deployments keep 500 of them. Shapes that differ share their
//! [`Traits`] where these are equal.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tandem_core::scheduling::pod::{Shape, Traits};

/// The shapes that pods hold now.
#[derive(Default)]
pub struct Shapes(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    shapes: Shared<Shape>,
    traits: Shared<Traits>,
}

impl Shapes {
    /// The shape that is equal to this one, kept by some pod or from now on.
    pub fn share(&self, mut shape: Shape) -> Arc<Shape> {
        let mut kept = self.0.lock();
        shape.traits = kept.traits.share(digest_of_traits(&shape.traits), shape.traits);
        let digest = digest((Arc::as_ptr(&shape.traits).addr(), &shape.requests));
        kept.shapes.share(digest, Arc::new(shape))
    }
}

/// Values that are kept as long as somebody holds them.
struct Shared<T> {
    by_digest: HashMap<u64, Vec<Weak<T>>>,
    /// With so many digests, those whose values nobody holds any more are swept out.
    sweep_at: usize,
}

/// Digests without a sweep at first: sweeping fewer saves nothing.
const FIRST_SWEEP: usize = 1_024;

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { by_digest: HashMap::new(), sweep_at: FIRST_SWEEP }
    }
}

impl<T: PartialEq> Shared<T> {
    /// The value that is equal to this one, if one is kept; this one from now on, if not.
    fn share(&mut self, digest: u64, value: Arc<T>) -> Arc<T> {
        if self.by_digest.len() >= self.sweep_at {
            self.by_digest.retain(|_, bucket| bucket.iter().any(|kept| kept.strong_count() > 0));
            self.sweep_at = FIRST_SWEEP.max(2 * self.by_digest.len());
        }
        let bucket = self.by_digest.entry(digest).or_default();
        bucket.retain(|kept| kept.strong_count() > 0);
        if let Some(kept) = bucket.iter().filter_map(Weak::upgrade).find(|kept| **kept == *value) {
            return kept;
        }
        bucket.push(Arc::downgrade(&value));
        value
    }
}

fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Over what tells traits apart almost always; equality decides.
fn digest_of_traits(traits: &Traits) -> u64 {
    digest((&traits.namespace, &traits.owner, &traits.labels, &traits.node_selector))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(namespace: &str) -> Shape {
        Shape::from(Traits { namespace: namespace.into(), ..Traits::default() })
    }

    #[test]
    fn equal_shapes_are_one() {
        let shapes = Shapes::default();
        let first = shapes.share(of("a"));
        assert!(Arc::ptr_eq(&first, &shapes.share(of("a"))));
        assert!(!Arc::ptr_eq(&first, &shapes.share(of("b"))));
        let mut larger = of("a");
        larger.requests.cpu = 1;
        let larger = shapes.share(larger);
        assert!(!Arc::ptr_eq(&first, &larger) && Arc::ptr_eq(&first.traits, &larger.traits));
    }

    #[test]
    fn what_nobody_holds_goes() {
        let shapes = Shapes::default();
        let held = shapes.share(of("held"));
        for number in 0..10 * FIRST_SWEEP {
            shapes.share(of(&number.to_string()));
        }
        let kept = shapes.0.lock();
        assert!(kept.shapes.by_digest.len() <= FIRST_SWEEP && kept.traits.by_digest.len() <= FIRST_SWEEP);
        drop(kept);
        assert!(Arc::ptr_eq(&held, &shapes.share(of("held"))));
    }
}
