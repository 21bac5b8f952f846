//! Samples of any colour type and depth become RGB of eight bits on white.
//!
//! Everything follows Pillow's integer arithmetic, so that pictures equal those that the models were trained on. Two
//! things are deliberately not Pillow's: 16-bit grey is scaled by its high byte, as Pillow does with 16-bit colour,
//! where Pillow cuts every value off at 255; and transparency is always laid on white, also that of palettes and grey
//! pictures.

use crate::PixelBuffer;

/// What the samples of a pixel mean, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Color {
    /// Zero is black.
    Gray,
    /// Grey and opacity.
    GrayAlpha,
    /// Red, green, blue.
    Rgb,
    /// Red, green, blue and opacity.
    Rgba,
    /// As [`Color::Rgba`], with colours already multiplied by the opacity.
    PremultipliedRgba,
    /// Amounts of the four inks.
    Cmyk,
    /// Luma and two chromas around 128, full range (JFIF).
    YCbCr,
}

impl Color {
    /// Samples per pixel.
    pub(crate) fn samples(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::GrayAlpha => 2,
            Self::Rgb | Self::YCbCr => 3,
            Self::Rgba | Self::PremultipliedRgba | Self::Cmyk => 4,
        }
    }
}

/// `(pixels, 3)` from `samples: (pixels, color.samples())` of eight bits. Works in place where the result is not longer.
pub(crate) fn to_rgb(mut samples: PixelBuffer, color: Color) -> PixelBuffer {
    match color {
        Color::Rgb => samples,
        Color::Gray => samples.iter().flat_map(|&gray| [gray; 3]).collect(),
        Color::GrayAlpha => {
            samples.as_chunks::<2>().0.iter().flat_map(|&[gray, alpha]| [on_white(gray, alpha); 3]).collect()
        }
        Color::YCbCr => {
            for pixel in samples.as_chunks_mut::<3>().0 {
                *pixel = ycbcr_to_rgb(*pixel);
            }
            samples
        }
        Color::Rgba => shorten(samples, |[red, green, blue, alpha]| {
            [on_white(red, alpha), on_white(green, alpha), on_white(blue, alpha)]
        }),
        Color::PremultipliedRgba => shorten(samples, |[red, green, blue, alpha]| {
            [red, green, blue].map(|value| on_white(divide_alpha(value, alpha), alpha))
        }),
        Color::Cmyk => shorten(samples, |[cyan, magenta, yellow, black]| {
            [cyan, magenta, yellow].map(|ink| {
                let light = 255 - black;
                light - multiply(ink, light)
            })
        }),
    }
}

/// The high byte of each sample of 16 bits in the machine's order. Pillow does the same with 16-bit colour.
pub(crate) fn high_bytes(mut samples: PixelBuffer) -> PixelBuffer {
    let count = samples.len() / 2;
    for index in 0..count {
        let value = u16::from_ne_bytes([samples[2 * index], samples[2 * index + 1]]);
        samples[index] = (value >> 8) as u8;
    }
    samples.truncate(count);
    samples
}

/// Four samples per pixel become three, from front to back, so that nothing is overwritten before it is read.
fn shorten(mut samples: PixelBuffer, convert: impl Fn([u8; 4]) -> [u8; 3]) -> PixelBuffer {
    let pixels = samples.len() / 4;
    for pixel in 0..pixels {
        let &[a, b, c, d] = &samples[4 * pixel..4 * pixel + 4] else { break };
        samples[3 * pixel..3 * pixel + 3].copy_from_slice(&convert([a, b, c, d]));
    }
    samples.truncate(3 * pixels);
    samples
}

/// `BLEND` with a white ground, as `Image.paste` with a mask does it (`ImagingUtils.h`).
fn on_white(value: u8, alpha: u8) -> u8 {
    divide_255(255 * (255 - u32::from(alpha)) + u32::from(value) * u32::from(alpha))
}

/// `MULDIV255`.
fn multiply(a: u8, b: u8) -> u8 {
    divide_255(u32::from(a) * u32::from(b))
}

/// `DIV255`: a division by 255 that rounds to the nearest, for products of two bytes and their sums up to 255 * 255.
fn divide_255(value: u32) -> u8 {
    let value = value + 128;
    (((value >> 8) + value) >> 8) as u8
}

/// The colour before it was multiplied by the opacity (`rgba2rgbA` backwards, `Convert.c`).
fn divide_alpha(value: u8, alpha: u8) -> u8 {
    match alpha {
        0 | 255 => value,
        _ => (255 * u32::from(value) / u32::from(alpha)).min(255) as u8,
    }
}

/// JFIF 1.02 in 16-bit fixed point, rounded to the nearest.
fn ycbcr_to_rgb([luma, blue, red]: [u8; 3]) -> [u8; 3] {
    let (luma, blue, red) = (i32::from(luma) << 16, i32::from(blue) - 128, i32::from(red) - 128);
    let clip = |value: i32| ((value + (1 << 15)) >> 16).clamp(0, 255) as u8;
    [clip(luma + 91_881 * red), clip(luma - 22_554 * blue - 46_802 * red), clip(luma + 116_130 * blue)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blending_and_multiplying_round_to_the_nearest() {
        for value in 0..=255u8 {
            for alpha in 0..=255u8 {
                let (v, a) = (f64::from(value), f64::from(alpha));
                // 255 is odd, so that no product of bytes lies half-way between two levels.
                assert_eq!(
                    f64::from(on_white(value, alpha)),
                    (255.0 - a + v * a / 255.0).round(),
                    "{value} {alpha}"
                );
                assert_eq!(f64::from(multiply(value, alpha)), (v * a / 255.0).round(), "{value} {alpha}");
            }
        }
    }

    #[test]
    fn every_color_type() {
        let check = |color, samples: &[u8], rgb: &[u8]| {
            assert_eq!(*to_rgb(samples.to_vec().into(), color), *rgb, "{color:?}")
        };
        check(Color::Gray, &[0, 7], &[0, 0, 0, 7, 7, 7]);
        check(Color::GrayAlpha, &[9, 255, 9, 0], &[9, 9, 9, 255, 255, 255]);
        check(Color::Rgb, &[1, 2, 3], &[1, 2, 3]);
        check(
            Color::Rgba,
            &[1, 2, 3, 255, 1, 2, 3, 0, 0, 100, 200, 51],
            &[1, 2, 3, 255, 255, 255, 204, 224, 244],
        );
        check(Color::PremultipliedRgba, &[51, 0, 20, 51, 9, 9, 9, 255], &[255, 204, 224, 9, 9, 9]);
        check(
            Color::Cmyk,
            &[0, 0, 0, 0, 255, 0, 0, 0, 0, 255, 0, 127],
            &[255, 255, 255, 0, 255, 255, 128, 0, 128],
        );
        check(Color::YCbCr, &[255, 128, 128, 76, 85, 255, 0, 128, 128], &[255, 255, 255, 254, 0, 0, 0, 0, 0]);
        check(Color::Rgb, &[], &[]);
    }

    #[test]
    fn high_bytes_of_wide_samples() {
        let samples = [0x1234u16, 0x00ff, 0xffff].map(u16::to_ne_bytes).concat();
        assert_eq!(*high_bytes(samples.into()), [0x12, 0x00, 0xff]);
    }
}
