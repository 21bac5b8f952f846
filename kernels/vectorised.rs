//! Plain Rust that the compiler vectorises, compiled once for each instruction set, and the exponential in that form.

/// Defines `fn name(isa, arguments…)`, which calls the inlined `body::<FUSED>(arguments…)` compiled for `isa`.
/// `FUSED` says whether a multiplication and an addition become one instruction; see [`multiply_add`].
macro_rules! for_each_isa {
    ($(#[$attribute:meta])* fn $name:ident = $body:ident($($argument:ident: $type:ty),* $(,)?)) => {
        $(#[$attribute])*
        #[allow(unsafe_code)]
        fn $name(isa: $crate::processor::Isa, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($argument: $type),*) {
                    $body::<true>($($argument),*);
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
                fn avx512($($argument: $type),*) {
                    $body::<true>($($argument),*);
                }
                match isa.min($crate::processor::Isa::detect()) {
                    // SAFETY: the processor was just found to have these features.
                    $crate::processor::Isa::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    $crate::processor::Isa::Avx2 => return unsafe { avx2($($argument),*) },
                    $crate::processor::Isa::Portable => {}
                }
            }
            let _ = isa;
            $body::<false>($($argument),*);
        }
    };
}
pub(crate) use for_each_isa;

/// Elementwise work on fewer elements than this is done by the calling thread: less than a fork costs.
const ELEMENTS_PER_TASK: usize = 16 << 10;

/// `a · b + c`, rounded once where the processor can and twice where that would be a call into a library.
#[inline(always)]
pub(crate) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// `eˣ` to two units in the last place, without branches; inputs below -87 and above 88 give what those give.
#[inline(always)]
pub(crate) fn exponential<const FUSED: bool>(x: f32) -> f32 {
    // ln 2 in two parts, the first with few enough bits that its multiples are exact.
    const LN_2: [f32; 2] = [0.693_145_75, 1.428_606_8e-6];
    let limited = x.clamp(-87.0, 88.0);
    let shifted = multiply_add::<FUSED>(limited, std::f32::consts::LOG2_E, ROUNDS);
    let whole = shifted - ROUNDS;
    let rest = multiply_add::<FUSED>(whole, -LN_2[1], multiply_add::<FUSED>(whole, -LN_2[0], limited));
    let power = power_of_two::<FUSED>(rest * std::f32::consts::LOG2_E, shifted);
    if x.is_nan() { x } else { power }
}

/// `2ˣ` for `x` of at most 0, exactly 0 from -126 down.
#[inline(always)]
pub(crate) fn power_of_two_below_one<const FUSED: bool>(x: f32) -> f32 {
    let shifted = x.clamp(-126.0, 0.0) + ROUNDS;
    let power = power_of_two::<FUSED>(x.clamp(-126.0, 0.0) - (shifted - ROUNDS), shifted);
    let power = if x <= -126.0 { 0.0 } else { power };
    if x.is_nan() { x } else { power }
}

/// Added to a number of moderate size, it leaves the nearest integer in the low bits.
const ROUNDS: f32 = 12_582_912.0;

/// `2^(fraction + n)` for a fraction within ±½ and `shifted = n + ROUNDS`, `n` within -126..=127.
/// The polynomial is a minimax fit of relative error 2e-9 whose value at 0 is exactly 1.
#[inline(always)]
fn power_of_two<const FUSED: bool>(fraction: f32, shifted: f32) -> f32 {
    const P: [f32; 6] = [
        std::f32::consts::LN_2,
        0.240_226_48,
        0.055_503_324,
        0.009_618_437,
        0.001_339_887_5,
        0.000_153_533_62,
    ];
    let mut sum = P[5];
    for p in [P[4], P[3], P[2], P[1], P[0], 1.0] {
        sum = multiply_add::<FUSED>(sum, fraction, p);
    }
    f32::from_bits(sum.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// How `rows` rows of `width` elements are cut for threads: rows in a task, and the number of tasks.
pub(crate) fn cut(rows: usize, width: usize) -> (usize, usize) {
    let least = (ELEMENTS_PER_TASK / width.max(1)).max(1);
    let even = rows.div_ceil(4 * crate::pool::threads());
    let rows_per_task = least.max(even);
    (rows_per_task, rows.div_ceil(rows_per_task))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::Isa;

    #[inline(always)]
    fn all<const FUSED: bool>(x: &[f32], y: &mut [f32]) {
        x.iter().zip(y).for_each(|(&x, y)| *y = exponential::<FUSED>(x));
    }
    for_each_isa!(fn exponentials = all(x: &[f32], y: &mut [f32]));

    #[test]
    fn the_exponential_is_exact_to_two_units() {
        let x: Vec<f32> = (-87_000..=88_000).map(|i| i as f32 / 1000.0).collect();
        for isa in Isa::available() {
            let mut y = vec![0.0; x.len()];
            exponentials(isa, &x, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                let expected = f64::from(x).exp();
                assert!(
                    (f64::from(y) / expected - 1.0).abs() < 2.4e-7,
                    "{isa}: e^{x} is {y}, not {expected}"
                );
            }
            let extreme = [f32::NEG_INFINITY, f32::INFINITY, 0.0, f32::NAN, f32::from_bits(0xFFC0_0001)];
            let mut y = [0.0; 5];
            exponentials(isa, &extreme, &mut y);
            assert!(y[0] < 2e-38 && y[1] > 1e38 && y[2] == 1.0, "{isa}: {y:?}");
            assert!(y[3].is_nan() && y[4].is_nan(), "{isa}: {y:?}");
        }
    }

    #[inline(always)]
    fn all_powers<const FUSED: bool>(x: &[f32], y: &mut [f32]) {
        x.iter().zip(y).for_each(|(&x, y)| *y = power_of_two_below_one::<FUSED>(x));
    }
    for_each_isa!(fn powers = all_powers(x: &[f32], y: &mut [f32]));

    #[test]
    fn powers_of_two_begin_at_an_exact_zero_and_end_at_an_exact_one() {
        let x: Vec<f32> = (-125_999..=0).map(|i| i as f32 / 1000.0).collect();
        for isa in Isa::available() {
            let mut y = vec![0.0; x.len()];
            powers(isa, &x, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                let expected = f64::from(x).exp2();
                assert!((f64::from(y) / expected - 1.0).abs() < 1.2e-7, "{isa}: 2^{x} is {y}");
            }
            let mut y = [1.0; 6];
            powers(isa, &[-126.0, f32::MIN, f32::NEG_INFINITY, 0.0, -0.0, f32::NAN], &mut y);
            assert!(y[..3] == [0.0; 3] && y[3..5] == [1.0; 2] && y[5].is_nan(), "{isa}: {y:?}");
        }
    }
}
