//! Bytes of a weight as they lie on the host: a slice of a mapped file, of the binary itself, or owned.

use std::{fmt, ops::Range, sync::Arc};

use half::{bf16, f16, slice::HalfFloatSliceExt};

use crate::{
    DType, Result,
    error::{Error, argument},
};

/// A shared, immutable range of bytes. Clones are cheap and keep the owner (a memory map, say) alive.
#[derive(Clone)]
pub struct HostBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
    backing: Option<Arc<dyn Backing>>,
}

/// What lies behind memory that a system fills page by page, such as a mapped file.
pub trait Backing: Send + Sync {
    /// Says that bytes `range` are not needed soon: their pages can be given back. Reading them again is slow but
    /// right.
    fn release(&self, range: Range<usize>);

    /// Copies the bytes from `start` on to `to` without touching their pages, each of which would be a fault. Says
    /// whether it did; if not, `to` holds anything.
    fn read(&self, start: usize, to: &mut [u8]) -> bool;

    /// Whether bytes `range` probably lie in memory, so that touching them waits for no disk.
    fn in_memory(&self, range: Range<usize>) -> bool;
}

impl HostBytes {
    /// All bytes of `owner`. The owner must give the same bytes at each call of `as_ref`.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Self {
        let range = 0..owner.as_ref().as_ref().len();
        Self { owner, range, backing: None }
    }

    /// The same bytes with what lies behind them; it counts from their first byte.
    pub fn with_backing(self, backing: Arc<dyn Backing>) -> Self {
        Self { backing: Some(backing), ..self }
    }

    /// Copies the bytes from `start` on to `to`: past the map where that is possible, which is faster for what is read
    /// once.
    ///
    /// # Panics
    /// When they reach outside.
    pub(crate) fn copy_to(&self, start: usize, to: &mut [u8]) {
        let bytes = &self.as_ref()[start..start + to.len()];
        let read = self.backing.as_ref().is_some_and(|backing| backing.read(self.range.start + start, to));
        if !read {
            to.copy_from_slice(bytes);
        }
    }

    /// Whether they probably lie in memory: not if nothing is known of what is behind them.
    pub(crate) fn in_memory(&self) -> bool {
        self.backing.as_ref().is_some_and(|backing| backing.in_memory(self.range.clone()))
    }

    /// Gives the pages of these bytes back where that is possible: they were copied to where they are used.
    pub fn release(&self) {
        if let Some(backing) = &self.backing {
            backing.release(self.range.clone());
        }
    }

    /// A part of these bytes, `None` if it would reach outside.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.range.len() {
            return None;
        }
        let range = self.range.start + range.start..self.range.start + range.end;
        Some(Self { owner: self.owner.clone(), range, backing: self.backing.clone() })
    }
}

impl AsRef<[u8]> for HostBytes {
    fn as_ref(&self) -> &[u8] {
        &self.owner.as_ref().as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for HostBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostBytes({} bytes)", self.range.len())
    }
}

/// A row-major matrix `(rows, cols)` of floating point numbers on the host, in the type it was stored in.
#[derive(Clone, Debug)]
pub struct HostMatrix {
    bytes: HostBytes,
    dtype: DType,
    rows: usize,
    cols: usize,
}

/// The elements of a [`HostMatrix`], by type.
#[derive(Clone, Copy, Debug)]
pub enum HostElements<'a> {
    /// Brain floating point, 8 bits of mantissa.
    Bf16(&'a [bf16]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// IEEE single precision.
    F32(&'a [f32]),
}

impl HostMatrix {
    /// Wraps `bytes` (little-endian, `rows * cols` elements of `dtype`); bytes that are not aligned for
    /// `dtype` are copied once.
    ///
    /// # Errors
    /// [`Error::Argument`] when the length does not fit the shape.
    pub fn new(bytes: HostBytes, dtype: DType, rows: usize, cols: usize) -> Result<Self> {
        let expected = rows.checked_mul(cols).and_then(|n| n.checked_mul(dtype.size_in_bytes()));
        let slice: &[u8] = bytes.as_ref();
        if expected != Some(slice.len()) {
            return Err(argument(
                "host_matrix",
                "bytes",
                slice.len(),
                format!("{rows} x {cols} elements of {dtype:?}"),
            ));
        }
        let aligned = slice.as_ptr().align_offset(dtype.size_in_bytes()) == 0;
        let bytes = if aligned { bytes } else { realigned(slice, dtype) };
        Ok(Self { bytes, dtype, rows, cols })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The type the elements are stored in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The size in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.bytes.as_ref().len()
    }

    /// Gives the pages back that the elements were read from, see [`HostBytes::release`].
    pub(crate) fn release(&self) {
        self.bytes.release();
    }

    /// The elements, row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] when the dtype is not a floating point type.
    pub fn elements(&self) -> Result<HostElements<'_>> {
        let bytes = self.bytes.as_ref();
        let wrong = |e: bytemuck::PodCastError| argument("host_matrix", "alignment", e, "aligned elements");
        match self.dtype {
            DType::BF16 => bytemuck::try_cast_slice(bytes).map(HostElements::Bf16).map_err(wrong),
            DType::F16 => bytemuck::try_cast_slice(bytes).map(HostElements::F16).map_err(wrong),
            DType::F32 => bytemuck::try_cast_slice(bytes).map(HostElements::F32).map_err(wrong),
            other => Err(argument("host_matrix", "dtype", other, "BF16, F16 or F32")),
        }
    }

    /// Rows `range`, widened to f32.
    ///
    /// # Errors
    /// [`Error::Index`] when the range reaches outside.
    pub fn rows_f32(&self, range: Range<usize>) -> Result<Vec<f32>> {
        if range.end > self.rows || range.start > range.end {
            return Err(Error::Index { op: "host_matrix", index: range.end, len: self.rows });
        }
        let range = range.start * self.cols..range.end * self.cols;
        Ok(match self.elements()? {
            HostElements::Bf16(x) => x[range].iter().map(|v| v.to_f32()).collect(),
            HostElements::F16(x) => x[range].iter().map(|v| v.to_f32()).collect(),
            HostElements::F32(x) => x[range].to_vec(),
        })
    }
}

impl HostMatrix {
    /// Writes row `row`, widened to f32, to `values: (cols)`.
    ///
    /// # Errors
    /// [`Error::Index`] when there is no such row, [`Error::Argument`] when `values` has another length.
    pub(crate) fn read_row(&self, row: usize, values: &mut [f32]) -> Result<()> {
        if row >= self.rows {
            return Err(Error::Index { op: "host_matrix", index: row, len: self.rows });
        }
        if values.len() != self.cols {
            return Err(argument("host_matrix", "values", values.len(), format!("{} elements", self.cols)));
        }
        let range = row * self.cols..(row + 1) * self.cols;
        match self.elements()? {
            HostElements::Bf16(x) => values.iter_mut().zip(&x[range]).for_each(|(v, x)| *v = x.to_f32()),
            HostElements::F16(x) => x[range].convert_to_f32_slice(values),
            HostElements::F32(x) => values.copy_from_slice(&x[range]),
        }
        Ok(())
    }
}

/// A copy whose first byte is aligned for any element type.
fn realigned(bytes: &[u8], dtype: DType) -> HostBytes {
    struct Words(Vec<u64>, usize);
    impl AsRef<[u8]> for Words {
        fn as_ref(&self) -> &[u8] {
            &bytemuck::cast_slice(&self.0)[..self.1]
        }
    }
    debug_assert!(dtype.size_in_bytes() <= 8);
    let mut words = vec![0u64; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    HostBytes::new(Arc::new(Words(words, bytes.len())))
}
