//! Identical pods share one [`Shape`]: 150,000 pods of 500 Deployments keep 500 of them.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tandem_core::scheduling::pod::Shape;

/// The shapes that pods hold now.
#[derive(Default)]
pub struct Shapes(Mutex<HashMap<u64, Vec<Weak<Shape>>>>);

impl Shapes {
    /// The shape that is equal to this one, kept by some pod or from now on.
    pub fn share(&self, shape: Shape) -> Arc<Shape> {
        let mut buckets = self.0.lock();
        let bucket = buckets.entry(digest(&shape)).or_default();
        bucket.retain(|kept| kept.strong_count() > 0);
        if let Some(kept) = bucket.iter().filter_map(Weak::upgrade).find(|kept| **kept == shape) {
            return kept;
        }
        let shape = Arc::new(shape);
        bucket.push(Arc::downgrade(&shape));
        shape
    }
}

/// Over what tells shapes apart almost always; equality decides.
fn digest(shape: &Shape) -> u64 {
    let mut hasher = DefaultHasher::new();
    shape.namespace.hash(&mut hasher);
    shape.owner.hash(&mut hasher);
    shape.labels.hash(&mut hasher);
    shape.requests.hash(&mut hasher);
    shape.node_selector.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_shapes_are_one() {
        let shapes = Shapes::default();
        let of = |namespace: &str| Shape { namespace: namespace.into(), ..Shape::default() };
        let first = shapes.share(of("a"));
        assert!(Arc::ptr_eq(&first, &shapes.share(of("a"))));
        assert!(!Arc::ptr_eq(&first, &shapes.share(of("b"))));
        drop(first);
        let kept: usize = shapes.0.lock().values().map(Vec::len).sum();
        assert_eq!(kept, 2, "a weak reference goes with the next that falls into its bucket");
        shapes.share(of("a"));
        assert_eq!(shapes.0.lock().values().map(Vec::len).sum::<usize>(), 2);
    }
}
