//! Gather and scatter of rows over slices: copies, as fast as memory.

use crate::{
    Result,
    pool::{self, SharedSlice},
    vectorised::cut,
};

/// Row `indices[i]` of `x: (rows, width)` becomes row `i` of `out: (indices, width)`.
///
/// # Errors
/// [`crate::Error::Index`] when an index is outside.
///
/// # Panics
/// When lengths disagree.
#[allow(unsafe_code)]
pub(crate) fn gather<T: Copy + Send + Sync>(
    x: &[T],
    width: usize,
    indices: &[u32],
    out: &mut [T],
) -> Result<()> {
    assert_eq!(indices.len().checked_mul(width), Some(out.len()), "rows::gather: lengths");
    if width == 0 {
        return Ok(());
    }
    super::check("rows::gather", indices, x.len() / width)?;
    let (rows_per_task, tasks) = cut(indices.len(), width);
    let out = SharedSlice::new(out);
    pool::run(tasks, |task| {
        let first = task * rows_per_task;
        let indices = &indices[first..(first + rows_per_task).min(indices.len())];
        // SAFETY: each task has rows of its own.
        let out = unsafe { out.part(first * width, indices.len() * width) };
        for (out, &index) in out.chunks_exact_mut(width).zip(indices) {
            out.copy_from_slice(&x[index as usize * width..][..width]);
        }
    });
    Ok(())
}

/// Row `i` of `values: (indices, width)` replaces row `indices[i]` of `out: (rows, width)`. Where an index comes
/// twice, the last one stays.
///
/// # Errors
/// [`crate::Error::Index`] when an index is outside; nothing was written then.
///
/// # Panics
/// When lengths disagree.
pub(crate) fn scatter<T: Copy>(values: &[T], width: usize, indices: &[u32], out: &mut [T]) -> Result<()> {
    assert_eq!(indices.len().checked_mul(width), Some(values.len()), "rows::scatter: lengths");
    if width == 0 {
        return Ok(());
    }
    super::check("rows::scatter", indices, out.len() / width)?;
    // One thread: the rows that are replaced are those of a picture in a prompt, once for each.
    for (values, &index) in values.chunks_exact(width).zip(indices) {
        out[index as usize * width..][..width].copy_from_slice(values);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn they_equal_the_reference() {
        for (rows, width, n) in [(1, 1, 0), (7, 3, 7), (40, 513, 100)] {
            let x = testing::tensor(1, &[rows, width]);
            let indices: Vec<u32> = (0..n).map(|i| (i * 5 % rows) as u32).collect();
            let expected = super::super::gather_reference(&x, &indices).unwrap().to_f32_vec().unwrap();
            let mut found = vec![f32::NAN; n * width];
            gather(&x.to_f32_vec().unwrap(), width, &indices, &mut found).unwrap();
            assert_eq!(found, expected);
        }
        let (x, values) = (testing::tensor(1, &[6, 3]), testing::tensor(2, &[2, 3]));
        let expected = super::super::scatter_reference(&x, &[4, 1], &values).unwrap().to_f32_vec().unwrap();
        let mut found = x.to_f32_vec().unwrap();
        scatter(&values.to_f32_vec().unwrap(), 3, &[4, 1], &mut found).unwrap();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_index_outside_is_named_and_nothing_written() {
        let mut out = [0.0; 4];
        assert!(gather(&[1.0; 4], 2, &[0, 2], &mut out).is_err());
        assert!(scatter(&[1.0; 4], 2, &[0, 2], &mut out).is_err());
        assert_eq!(out, [0.0; 4]);
    }
}
