//! Sixteen tokens' keys and values of one head, as the attention kernels read them: in pairs of bf16, because the
//! dot product instruction adds up two neighbouring products.
//!
//! - Keys `[padded / 2][16][2]`: a vector holds two neighbouring features of all sixteen tokens, so that one
//!   vector of scores grows by a pair of features with each instruction.
//! - Values `[8][padded][2]`: a vector holds sixteen features of two neighbouring tokens, so that a part of the
//!   output grows by a pair of tokens.
//!
//! Words are `u32`: the first of a pair is the lower half. `padded` is the width of a head rounded up to sixteen;
//! what fills it up is zero.

/// Tokens in a group.
pub(crate) const TOKENS: usize = 16;

/// The width of a head, rounded up.
pub(crate) fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(16)
}

/// Words of the keys alone, and of the values alone.
pub(crate) fn half(head_dim: usize) -> usize {
    padded(head_dim) * TOKENS / 2
}

/// Words of a group: its keys, then its values.
pub(crate) fn words(head_dim: usize) -> usize {
    2 * half(head_dim)
}

/// To bf16, to nearest, ties to even; what is not a number stays so.
#[inline(always)]
pub(crate) fn narrow(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7FFF + ((bits >> 16) & 1))) >> 16;
    if x.is_nan() { 0x7FC0 } else { rounded }
}

/// Two neighbours as a word.
#[inline(always)]
pub(crate) fn pair(first: f32, second: f32) -> u32 {
    narrow(first) | narrow(second) << 16
}

/// The two numbers of a word.
#[inline(always)]
pub(crate) fn widen(pair: u32) -> (f32, f32) {
    (f32::from_bits(pair << 16), f32::from_bits(pair & 0xFFFF_0000))
}

/// Writes one token's `key` and `value`, `(head_dim)` each, to place `token` of a group of [`words`] words.
///
/// A masked token counts with weight 0, and 0 times what is not finite would spoil everybody's sum. So values are
/// kept finite: where one is not, the token's key becomes NaN in its place, which spoils those who see the token
/// and nobody else.
///
/// # Panics
/// When the group is too small or the token outside.
#[inline(always)]
pub(crate) fn write(group: &mut [u32], token: usize, key: &[f32], value: &[f32]) {
    let padded = padded(key.len());
    assert!(token < TOKENS && value.len() == key.len() && group.len() == padded * TOKENS, "group: sizes");
    let (keys, values) = group.split_at_mut(padded * TOKENS / 2);
    for (i, lanes) in keys.chunks_exact_mut(TOKENS).take(key.len().div_ceil(2)).enumerate() {
        lanes[token] = pair(key[2 * i], key.get(2 * i + 1).copied().unwrap_or(0.0));
    }
    let row = &mut values[token / 2 * padded..][..value.len()];
    let (shift, other) = if token.is_multiple_of(2) { (0, 0xFFFF_0000) } else { (16, 0x0000_FFFF) };
    let mut spoiled = 0u32;
    for (word, &value) in row.iter_mut().zip(value) {
        let narrowed = narrow(value);
        let finite = narrowed & 0x7F80 != 0x7F80;
        spoiled |= u32::from(!finite);
        *word = (*word & other) | (if finite { narrowed } else { 0 }) << shift;
    }
    if spoiled != 0 {
        keys[token] = 0x7FC0_7FC0;
    }
}

/// Copies place `from.1` of the group `from.0` to place `to.1` of `to.0`, both of heads of `head_dim`.
pub(crate) fn copy(from: (&[u32], usize), to: (&mut [u32], usize), head_dim: usize) {
    let (padded, half) = (padded(head_dim), half(head_dim));
    for i in 0..padded / 2 {
        to.0[i * TOKENS + to.1] = from.0[i * TOKENS + from.1];
    }
    let (source, target) = (&from.0[half + from.1 / 2 * padded..], &mut to.0[half + to.1 / 2 * padded..]);
    let other = if to.1.is_multiple_of(2) { 0xFFFF_0000 } else { 0x0000_FFFF };
    for (&source, target) in source.iter().zip(target).take(padded) {
        let value = (source >> (16 * (from.1 % 2))) & 0xFFFF;
        *target = (*target & other) | value << (16 * (to.1 % 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_rounds_to_even_and_keeps_what_is_no_number() {
        for x in [0.0, -0.0, 1.0, 1.003_906_2, 1.011_718_8, -3.3e38, f32::MAX, 1e-40, f32::INFINITY] {
            assert_eq!(narrow(x), u32::from(half::bf16::from_f32(x).to_bits()), "{x}");
        }
        assert!(f32::from_bits(narrow(f32::from_bits(0x7F80_0001)) << 16).is_nan());
    }

    #[test]
    fn tokens_lie_where_they_were_written_and_copied_to() {
        for head_dim in [2, 6, 16, 20, 80] {
            let padded = padded(head_dim);
            let number = |token: usize, i: usize| (token * 100 + i) as f32 / 64.0;
            let mut group = vec![0; words(head_dim)];
            for token in (0..TOKENS).rev() {
                let key: Vec<f32> = (0..head_dim).map(|i| number(token, i)).collect();
                let value: Vec<f32> = key.iter().map(|x| -x).collect();
                write(&mut group, token, &key, &value);
            }
            let mut copied = vec![0; words(head_dim)];
            for token in 0..TOKENS {
                copy((&group, token), (&mut copied, (token + 5) % TOKENS), head_dim);
            }
            for (group, shift) in [(group, 0), (copied, 5)] {
                for token in 0..TOKENS {
                    let place = (token + shift) % TOKENS;
                    for i in 0..padded {
                        let expected = if i < head_dim { narrow(number(token, i)) } else { 0 };
                        let key = group[i / 2 * TOKENS + place] >> (16 * (i % 2)) & 0xFFFF;
                        assert_eq!(key, expected, "key {token}, {i} of {head_dim}");
                        let value = group[padded * 8 + place / 2 * padded + i] >> (16 * (place % 2)) & 0xFFFF;
                        assert_eq!(value & 0x7FFF, expected, "value {token}, {i} of {head_dim}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_value_that_is_not_finite_spoils_its_own_key_only() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let mut group = vec![0; words(16)];
            write(&mut group, 3, &[1.0; 16], &[1.0; 16]);
            write(&mut group, 2, &[1.0; 16], &[1.0, bad, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0].repeat(2));
            assert_eq!(group[2], 0x7FC0_7FC0);
            assert_eq!(group[3], pair(1.0, 1.0));
            assert_eq!(group[half(16) + 16 + 1], pair(0.0, 1.0));
        }
    }
}
