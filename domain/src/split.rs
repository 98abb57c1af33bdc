//! Splitting money without losing any of it.
//!
//! Give-backs are cumulative: what has been given back after a refund is a function of all refunds so far
//! (`⌊part × refunded ÷ whole⌋`), so that rounding needs no memory and the last refund returns the last unit.

use serde::{Deserialize, Serialize};

/// A share in basis points, 0 to 10000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "u16", into = "u16")]
pub struct BasisPoints(u16);

/// More than the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a share must be from 0 to 10000 basis points")]
pub struct BasisPointsError;

impl BasisPoints {
    /// The whole.
    pub const WHOLE: u16 = 10_000;

    /// `basis_points` of 10000.
    pub const fn new(basis_points: u16) -> Result<Self, BasisPointsError> {
        if basis_points <= Self::WHOLE { Ok(Self(basis_points)) } else { Err(BasisPointsError) }
    }

    /// As a number from 0 to 10000.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// `⌊minor × share⌋`.
    pub fn of(self, minor: i128) -> i128 {
        proportion(minor, i128::from(self.0), i128::from(Self::WHOLE))
    }
}

impl TryFrom<u16> for BasisPoints {
    type Error = BasisPointsError;
    fn try_from(basis_points: u16) -> Result<Self, BasisPointsError> {
        Self::new(basis_points)
    }
}

impl From<BasisPoints> for u16 {
    fn from(share: BasisPoints) -> Self {
        share.0
    }
}

/// `⌊amount × part ÷ whole⌋`; 0 where the whole is 0. With amounts of 53 bits the product fits easily.
pub const fn proportion(amount: i128, part: i128, whole: i128) -> i128 {
    if whole == 0 { 0 } else { (amount * part).div_euclid(whole) }
}

/// Shares `whole` by `weights` with the largest remainder; the first listed wins ties. The parts sum to the whole.
/// No weights, or none above zero: the first listed takes all, and with no listed part the result is empty.
pub fn allocate(whole: i128, weights: &[u64]) -> Vec<i128> {
    let total: i128 = weights.iter().copied().map(i128::from).sum();
    if total == 0 {
        return weights.iter().enumerate().map(|(index, _)| if index == 0 { whole } else { 0 }).collect();
    }
    let mut parts: Vec<i128> = weights.iter().map(|weight| (whole * i128::from(*weight)).div_euclid(total)).collect();
    let mut by_remainder: Vec<(i128, usize)> = weights
        .iter()
        .enumerate()
        .map(|(index, weight)| ((whole * i128::from(*weight)).rem_euclid(total), index))
        .collect();
    by_remainder.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let left = whole - parts.iter().sum::<i128>();
    for (_, index) in by_remainder.into_iter().take(usize::try_from(left).unwrap_or(0)) {
        if let Some(part) = parts.get_mut(index) {
            *part += 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn eighty_twenty_as_ledger_md_lists_it() {
        let share = BasisPoints::new(8000).unwrap();
        let creator: Vec<i128> = [1, 2, 7, 99, 999, 1099].into_iter().map(|net| share.of(net)).collect();
        assert_eq!(creator, [0, 1, 5, 79, 799, 879]);
    }

    #[test]
    fn refunds_in_thirds_take_266_266_267() {
        let after: Vec<i128> = [0, 333, 666, 999].into_iter().map(|refunded| proportion(799, refunded, 999)).collect();
        let taken: Vec<i128> = after.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(taken, [266, 266, 267]);
    }

    #[test]
    fn ties_go_to_the_first_listed() {
        assert_eq!(allocate(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(allocate(100, &[0, 0]), [100, 0]);
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_whole(whole in 0_i128..=9_007_199_254_740_991, weights in prop::collection::vec(0_u64..=1_000_000, 1..8)) {
            let parts = allocate(whole, &weights);
            prop_assert_eq!(parts.iter().sum::<i128>(), whole);
            prop_assert!(parts.iter().all(|part| *part >= 0));
        }

        #[test]
        fn cumulative_refunds_return_everything_and_never_go_back(whole in 1_i128..=1_000_000_000, part_bps in 0_u16..=10_000, cuts in prop::collection::vec(0_i128..=1_000_000_000, 0..6)) {
            let part = BasisPoints::new(part_bps).unwrap().of(whole);
            let mut cuts: Vec<i128> = cuts.into_iter().map(|cut| cut.min(whole)).chain([0, whole]).collect();
            cuts.sort_unstable();
            let given: Vec<i128> = cuts.iter().map(|cut| proportion(part, *cut, whole)).collect();
            prop_assert!(given.windows(2).all(|pair| pair[0] <= pair[1]));
            prop_assert_eq!(given.last().copied(), Some(part));
        }
    }
}
