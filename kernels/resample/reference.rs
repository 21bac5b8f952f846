//! The definition: whole pictures, one pass after another.

use super::{Axis, CHANNELS, HALF, PRECISION_BITS, Resample};

/// See [`super::resample`]; sizes have to fit.
pub(super) fn resample(frame: &Resample<'_>, values: &mut [f32]) {
    let width = frame.across.windows.len();
    let narrow = along(&frame.across, frame.down.input, &|row, column, channel| {
        frame.rgb[(row * frame.across.input + column) * CHANNELS + channel]
    });
    // Lines are columns here: `(column, row, channel)`.
    let resized = along(&frame.down, width, &|column, row, channel| {
        narrow[(row * width + column) * CHANNELS + channel]
    });

    let (cut, scaling) = (frame.cut, frame.scaling);
    let (rows, merge, patch) = (frame.down.windows.len(), cut.merge, cut.patch);
    let mut index = 0;
    for (square_row, square_column) in pairs(rows / cut.side(), width / cut.side()) {
        for (patch_row, patch_column) in pairs(merge, merge) {
            for (channel, time) in pairs(CHANNELS, cut.temporal) {
                for (y, x) in pairs(patch, patch) {
                    if frame.times.contains(&time) {
                        let row = (square_row * merge + patch_row) * patch + y;
                        let column = (square_column * merge + patch_column) * patch + x;
                        let level = resized[(column * rows + row) * CHANNELS + channel];
                        values[index] =
                            (f32::from(level) * scaling.scale - scaling.mean[channel]) / scaling.std[channel];
                    }
                    index += 1;
                }
            }
        }
    }
}

/// One pass: `(lines, outputs, 3)`.
fn along(axis: &Axis<'_>, lines: usize, pixel: &dyn Fn(usize, usize, usize) -> u8) -> Vec<u8> {
    let mut result = Vec::new();
    for (line, output) in pairs(lines, axis.windows.len()) {
        for channel in 0..CHANNELS {
            let window = axis.windows[output].clone().zip(axis.weights_of(output));
            let sum = window.fold(i64::from(HALF), |sum, (input, &weight)| {
                sum + i64::from(pixel(line, input, channel)) * i64::from(weight)
            });
            result.push((sum >> PRECISION_BITS).clamp(0, 255) as u8);
        }
    }
    result
}

fn pairs(first: usize, second: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..first).flat_map(move |a| (0..second).map(move |b| (a, b)))
}
