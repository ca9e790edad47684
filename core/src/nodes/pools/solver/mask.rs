//! Sets of offers (or of values), as words of bits.

/// Bits in a word.
const WORD: usize = 64;

/// A set of ordinals below a number that all sets of one kind share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Mask(Box<[u64]>);

impl Mask {
    /// No ordinal of so many.
    pub(super) fn none(of: usize) -> Self {
        Self(vec![0; of.div_ceil(WORD)].into())
    }

    /// The ordinals of so many that satisfy the condition.
    pub(super) fn of(of: usize, holds: impl Fn(usize) -> bool) -> Self {
        let mut mask = Self::none(of);
        (0..of).filter(|at| holds(*at)).for_each(|at| mask.set(at));
        mask
    }

    pub(super) fn set(&mut self, at: usize) {
        self.0[at / WORD] |= 1 << (at % WORD);
    }

    pub(super) fn has(&self, at: usize) -> bool {
        self.0[at / WORD] >> (at % WORD) & 1 == 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn keep(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
    }

    pub(super) fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    pub(super) fn drop_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
    }

    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(word, other)| word & !other == 0)
    }

    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(word, other)| word & other != 0)
    }

    /// The words from that of an ordinal on, with their places.
    pub(super) fn word(&self, place: usize) -> u64 {
        self.0[place]
    }

    pub(super) fn words(&self) -> usize {
        self.0.len()
    }

    /// The ordinals, from the lowest.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(place, word)| {
            let mut bits = *word;
            std::iter::from_fn(move || {
                let lowest = bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                (lowest < WORD).then_some(place * WORD + lowest)
            })
        })
    }
}

/// The word that an ordinal is in.
pub(super) fn place(at: usize) -> usize {
    at / WORD
}

/// The lowest ordinal from a word on that all sets have.
pub(super) fn first_common<const N: usize>(from: usize, masks: [&Mask; N]) -> Option<usize> {
    let words = masks.first()?.words();
    (from..words).find_map(|place| {
        let common = masks.iter().fold(u64::MAX, |common, mask| common & mask.word(place));
        (common != 0).then(|| place * WORD + common.trailing_zeros() as usize)
    })
}
