//! Ordinals, interned strings and bit sets: what the simulation computes with instead of strings.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::Arc,
};

use foldhash::fast::RandomState;

/// A class of pods that the scheduler cannot tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassId(pub(super) u32);

/// Pods that the scheduler treats alike but for what they request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FamilyId(pub(super) u32);

impl FamilyId {
    /// Its ordinal.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A node of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) u32);

impl ClassId {
    /// Its ordinal: classes are numbered from zero in the order in which they came.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl NodeId {
    /// Its ordinal: nodes are numbered from zero, and numbers of nodes that left are given again.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// As [`NodeId::index`], as the number that it is.
    pub(crate) fn ordinal(self) -> u32 {
        self.0
    }

    /// The node of an ordinal.
    pub(crate) const fn at(ordinal: u32) -> Self {
        Self(ordinal)
    }
}

/// The ordinal that the next element of a list gets.
pub(super) fn ordinal(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// An interned string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Symbol(u32);

/// A key and a value, interned.
pub(super) type Label = (Symbol, Symbol);

/// The value of a key among labels sorted by key.
pub(super) fn value_of(labels: &[Label], key: Symbol) -> Option<Symbol> {
    labels.binary_search_by_key(&key, |(key, _)| *key).ok().map(|at| labels[at].1)
}

/// The strings that have been interned.
#[derive(Debug, Clone, Default)]
pub(super) struct Strings {
    by_name: HashMap<Arc<str>, Symbol, RandomState>,
    names: Vec<Arc<str>>,
    /// Each as a decimal integer, for the operators that compare.
    integers: Vec<Option<i64>>,
}

impl Strings {
    pub(super) fn intern(&mut self, name: &str) -> Symbol {
        if let Some(symbol) = self.by_name.get(name) {
            return *symbol;
        }
        let symbol = Symbol(ordinal(self.names.len()));
        let name: Arc<str> = name.into();
        self.integers.push(name.parse().ok());
        self.names.push(name.clone());
        self.by_name.insert(name, symbol);
        symbol
    }

    pub(super) fn name(&self, symbol: Symbol) -> &Arc<str> {
        &self.names[symbol.0 as usize]
    }

    pub(super) fn integer(&self, symbol: Symbol) -> Option<i64> {
        self.integers[symbol.0 as usize]
    }

    /// Labels, sorted by key.
    pub(super) fn labels<'a>(
        &mut self,
        labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Vec<Label> {
        let mut labels: Vec<_> =
            labels.into_iter().map(|(key, value)| (self.intern(key), self.intern(value))).collect();
        labels.sort_unstable();
        labels
    }
}

/// Hashes ordinals: one multiplication each. Not for what users choose the value of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OrdinalHasher(u64);

/// 2^64 divided by the golden ratio: spreads consecutive numbers over the whole range.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

impl Hasher for OrdinalHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(SPREAD);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

/// A map by ordinals; never iterated where the order could reach a decision.
pub(super) type OrdinalMap<K, V> = HashMap<K, V, BuildHasherDefault<OrdinalHasher>>;

/// Values that get an ordinal each, equal ones the same.
#[derive(Debug, Clone)]
pub(super) struct Interned<T> {
    /// Ordinals by hash; a value whose hash another has is found under the next free number.
    by_hash: OrdinalMap<u64, u32>,
    values: Vec<Arc<T>>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { by_hash: OrdinalMap::default(), values: Vec::new() }
    }
}

impl<T: Hash + Eq> Interned<T> {
    /// The ordinal of a value, and whether it is new.
    pub(super) fn intern(&mut self, value: T) -> (u32, bool) {
        let mut hasher = OrdinalHasher::default();
        value.hash(&mut hasher);
        let mut hash = hasher.finish();
        while let Some(known) = self.by_hash.get(&hash) {
            if *self.values[*known as usize] == value {
                return (*known, false);
            }
            hash = hash.wrapping_add(1);
        }
        let id = ordinal(self.values.len());
        self.by_hash.insert(hash, id);
        self.values.push(Arc::new(value));
        (id, true)
    }

    pub(super) fn get(&self, id: u32) -> &Arc<T> {
        &self.values[id as usize]
    }

    /// How many there are.
    pub(super) fn len(&self) -> u32 {
        ordinal(self.values.len())
    }
}

/// Bits in one word of a [`BitSet`].
pub(super) const WORD_BITS: usize = 64;

/// A set of ordinals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BitSet(Vec<u64>);

impl BitSet {
    pub(super) fn set(&mut self, at: usize, to: bool) {
        let word = at / WORD_BITS;
        if word >= self.0.len() {
            if !to {
                return;
            }
            self.0.resize(word + 1, 0);
        }
        let bit = 1 << (at % WORD_BITS);
        if to {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }

    pub(super) fn contains(&self, at: usize) -> bool {
        self.word(at / WORD_BITS) >> (at % WORD_BITS) & 1 == 1
    }

    pub(super) fn word(&self, word: usize) -> u64 {
        self.0.get(word).copied().unwrap_or(0)
    }

    pub(super) fn words(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(word, bits)| ones(*bits).map(move |bit| word * WORD_BITS + bit))
    }
}

/// The places of the ones in a word, from the lowest.
pub(super) fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (lowest < u64::BITS).then_some(lowest as usize)
    })
}
