//! Products on CUDA: weights in the device's memory, and the launches of the kernels that multiply with them.
//!
//! Weights are bf16, or integers of 8 or 4 bits with the processor's own scales ([`layout`]); activations are bf16, sums
//! f32. Up to 64 tokens the weight streams by at the speed of the memory (`skinny.cuh`), beyond that tiles are multiplied
//! (`tiles.cuh`); [`select`] decides.
//!
//! **Company.** An output has the same bits whatever other tokens are computed with it (`product.cuh` says why).

mod layout;
mod select;

use std::sync::Arc;

use half::{bf16, slice::HalfFloatSliceExt};

use self::select::Problem;
use super::{Format, Order, Scheme, bf16::PackedBf16, product::Source, quantized::PackedInt};
use crate::{
    DType, HostElements, HostMatrix, Result,
    cuda::{Argument, CudaTensor, Failure, Gpu, Launch, Tiles},
    error::argument,
};

const OP: &str = "linear";

/// Features to a multiple of which a row of activations is filled up: 16 bytes.
pub(super) const GRAIN: usize = 8;

/// How weights are stored; the order is that of `Kind` in codes.cuh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Rows of bf16, each filled up to a multiple of 64 features.
    Bf16,
    /// Cells of 544 bytes.
    Int8,
    /// Cells of 288 bytes.
    Int4,
    /// The same with zero points.
    Int4Zero,
}

impl Kind {
    fn of(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Int8 => Self::Int8,
            Scheme::Int4Symmetric => Self::Int4,
            Scheme::Int4Asymmetric => Self::Int4Zero,
        }
    }
}

/// Bytes of a weight of `rows` arranged rows and `cols` features.
pub(super) fn bytes(rows: usize, cols: usize, format: Format) -> usize {
    match format {
        Format::Exact | Format::Bf16 | Format::Bf16Squeezed => {
            layout::pitch(cols).saturating_mul(2).saturating_mul(rows)
        }
        Format::Quantized(scheme) => {
            layout::sixteen_rows(cols, Kind::of(scheme)).saturating_mul(rows.div_ceil(16))
        }
    }
}

/// What happens to finished sums; the numbers are those of `Finish` in product.cuh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// Rounded to bf16.
    Store,
    /// Kept in f32.
    StoreF32,
    /// Added to a residual in f32.
    Add,
    /// `silu(gate) * up`, rounded to bf16.
    SwiGlu,
    /// GELU with erf, rounded to bf16.
    Gelu,
}

/// A weight in the device's memory. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct CudaWeight {
    /// bf16 `(rows, pitch)`, or the words of cells.
    data: CudaTensor,
    kind: Kind,
    order: Order,
    /// Those that fill up an alternating weight's last group included.
    rows: usize,
    cols: usize,
}

impl CudaWeight {
    /// Uploads a weight in bf16 whose parts share their width, as the caller has checked.
    ///
    /// # Errors
    /// When a part's type is not a floating point one, or the device has no room.
    pub(crate) fn upload(parts: &[HostMatrix], order: Order, gpu: &Arc<Gpu>) -> Result<Self> {
        let cols = parts.first().map_or(0, HostMatrix::cols);
        let rows = parts.iter().map(HostMatrix::rows).sum();
        if let ([part], Order::Stacked, true) = (parts, order, cols.is_multiple_of(select::BLOCK))
            && let HostElements::Bf16(values) = part.elements()?
        {
            // As it is stored: straight from the file's pages.
            let data = gpu.lasting(&[rows, cols], DType::BF16)?;
            data.write_bytes(bytemuck::cast_slice(values))?;
            return Ok(Self { data, kind: Kind::Bf16, order, rows, cols });
        }
        Self::upload_rows(order, rows, cols, gpu, |row, wide, to| {
            layout::read_row(parts, order, row, wide, to)
        })
    }

    /// Uploads what the processor has packed in bf16: `rows` outputs of all parts together, `cols` inputs.
    ///
    /// # Errors
    /// When the device has no room.
    pub(crate) fn upload_bf16(
        packed: &PackedBf16,
        order: Order,
        rows: usize,
        cols: usize,
        gpu: &Arc<Gpu>,
    ) -> Result<Self> {
        Self::upload_rows(order, rows, cols, gpu, |row, wide, to| {
            wide.resize(cols, 0.0);
            packed.read_row(layout::packed_row(order, row), wide)?;
            to.convert_from_f32_slice(wide);
            Ok(())
        })
    }

    /// Uploads rows, filled up, each of which `read` writes with room for it in f32; on all threads, while the device
    /// fetches those before.
    fn upload_rows(
        order: Order,
        rows: usize,
        cols: usize,
        gpu: &Arc<Gpu>,
        read: impl Fn(usize, &mut Vec<f32>, &mut [bf16]) -> Result<()> + Sync,
    ) -> Result<Self> {
        let rows = layout::arranged_rows(order, rows);
        let pitch = layout::pitch(cols);
        let data = gpu.lasting(&[rows, pitch], DType::BF16)?;
        let mut outcome = Ok(());
        data.write_with(2 * pitch, &mut |start, piece| {
            if outcome.is_ok() {
                outcome = layout::fill_rows(start / (2 * pitch), pitch, cols, piece, &read);
            }
        })?;
        outcome.map(|()| Self { data, kind: Kind::Bf16, order, rows, cols })
    }

    /// Quantizes the parts on the processor and uploads them.
    ///
    /// # Errors
    /// As [`CudaWeight::upload`], and when a weight is too large for its scheme.
    pub(crate) fn quantize(
        parts: &[HostMatrix],
        order: Order,
        scheme: Scheme,
        gpu: &Arc<Gpu>,
    ) -> Result<Self> {
        let packed = PackedInt::pack(&Source::new(parts, order), scheme, "a quantized weight")?;
        let rows = parts.iter().map(HostMatrix::rows).sum();
        let cols = parts.first().map_or(0, HostMatrix::cols);
        Self::upload_packed(&packed, order, rows, cols, gpu)
    }

    /// Uploads what the processor has packed: `rows` outputs of all parts together, `cols` inputs.
    ///
    /// # Errors
    /// When the device has no room.
    pub(crate) fn upload_packed(
        packed: &PackedInt,
        order: Order,
        rows: usize,
        cols: usize,
        gpu: &Arc<Gpu>,
    ) -> Result<Self> {
        let kind = Kind::of(packed.scheme());
        let rows = layout::arranged_rows(order, rows);
        let sixteen = layout::sixteen_rows(cols, kind);
        let indices = rows.div_ceil(16);
        let data = gpu.lasting(&[indices, sixteen / 4], DType::U32)?;
        data.write_with(sixteen, &mut |start, piece| {
            piece.fill(0);
            layout::write_all_cells(packed, order, kind, start / sixteen, sixteen, piece);
        })?;
        Ok(Self { data, kind, order, rows, cols })
    }

    /// What it takes in the device's memory.
    pub(crate) fn size_in_bytes(&self) -> usize {
        self.data.size_in_bytes()
    }

    /// How many biases a product with it wants.
    pub(crate) fn arranged_rows(&self) -> usize {
        self.rows
    }

    /// `bias`, given for the outputs of all parts one after the other, in the order that products want it.
    pub(crate) fn arrange_bias(&self, bias: Vec<f32>) -> Vec<f32> {
        layout::arrange(self.order, bias)
    }

    /// The stored numbers, for kernels that read rows: bf16 `(rows, pitch)`, or cells as codes.cuh describes them.
    pub(crate) fn data(&self) -> (&CudaTensor, Kind) {
        (&self.data, self.kind)
    }

    /// The elements of a row of the result.
    fn outputs(&self, finish: Finish) -> usize {
        if finish == Finish::SwiGlu { self.rows / 2 } else { self.rows }
    }

    /// `x · Wᵀ + b`, finished, as a new tensor `(tokens, outputs)`; `x: (tokens, features)` f32 or bf16.
    ///
    /// # Errors
    /// When `x` lies elsewhere, or the device has no room.
    pub(crate) fn forward(
        &self,
        x: &CudaTensor,
        bias: Option<&CudaTensor>,
        finish: Finish,
    ) -> Result<CudaTensor> {
        let tokens = x.shape().first().copied().unwrap_or(0);
        let dtype = if finish == Finish::StoreF32 { DType::F32 } else { DType::BF16 };
        let y = x.gpu().uninitialised(&[tokens, self.outputs(finish)], dtype)?;
        self.multiply(x, bias, finish, &y)?;
        Ok(y)
    }

    /// `residual + x · Wᵀ + b` over the residual, f32 `(tokens, rows)`, when nobody else has it.
    ///
    /// # Errors
    /// As [`CudaWeight::forward`], and when the residual is not f32.
    pub(crate) fn forward_add(
        &self,
        x: &CudaTensor,
        bias: Option<&CudaTensor>,
        residual: CudaTensor,
    ) -> Result<CudaTensor> {
        residual.expect_dtype(OP, "residual", DType::F32)?;
        let y = residual.into_sole()?;
        self.multiply(x, bias, Finish::Add, &y)?;
        Ok(y)
    }

    fn multiply(
        &self,
        x: &CudaTensor,
        bias: Option<&CudaTensor>,
        finish: Finish,
        y: &CudaTensor,
    ) -> Result<()> {
        let &[tokens, features] = x.shape() else {
            return Err(argument(OP, "x", x.shape(), "2 dimensions"));
        };
        if let Some(bias) = bias {
            bias.expect_dtype(OP, "bias", DType::F32)?;
        }
        if tokens == 0 || self.rows == 0 {
            return Ok(());
        }
        let (x, width) = factor(x, tokens, features)?;
        let problem = Problem {
            kind: self.kind,
            finish,
            tokens,
            rows: self.rows,
            blocks: layout::pitch(self.cols) / select::BLOCK,
        };
        let gpu = y.gpu();
        let device = gpu.driver().facts();
        let mut plan = select::plan(problem, device);
        let mut product = Product {
            x: x.address(),
            weight: self.data.address(),
            bias: bias.map_or(0, CudaTensor::address),
            y: y.address(),
            tokens: integer("tokens", tokens)?,
            width: integer("features", width)?,
            rows: integer("outputs", self.rows)?,
            blocks: integer("features", problem.blocks)?,
            outputs: integer("outputs", self.outputs(finish))?,
            finish: finish as u32,
            slices: plan.slices,
            unused: 0,
        };
        if let Some(tile_rows) = plan.copied_rows {
            match product.tile_maps(gpu, tile_rows) {
                Ok([x, weight]) => {
                    return gpu.launch(plan.kernel, plan.launch, &[Argument::of(product), x, weight]);
                }
                // A driver that has no such copies still has all else.
                Err(_) => plan = select::plan_without_copies(problem, device),
            }
        }
        product.slices = plan.slices;
        gpu.launch(plan.kernel, plan.launch, &[Argument::of(product)])
    }
}

/// `x` as kernels take it, and the elements of its rows: bf16, rows of a multiple of 16 bytes.
fn factor(x: &CudaTensor, tokens: usize, features: usize) -> Result<(CudaTensor, usize)> {
    let width = features.next_multiple_of(GRAIN);
    let aligned = width == features && x.address().is_multiple_of(16);
    if aligned {
        return Ok((x.to_dtype(DType::BF16)?, width));
    }
    let filled = x.gpu().uninitialised(&[tokens, width], DType::BF16)?;
    let kernel = if x.dtype() == DType::F32 { "linear_fill_up_f32" } else { "linear_fill_up_bf16" };
    let arguments = [
        Argument::from(x),
        Argument::from(&filled),
        Argument::u32(integer("features", features)?),
        Argument::u32(integer("features", width)?),
        Argument::of(filled.len() as u64),
    ];
    x.gpu().launch(kernel, Launch::over(filled.len()), &arguments)?;
    Ok((filled, width))
}

/// The layout is that of `Product` in product.cuh.
#[derive(Clone, Copy)]
#[repr(C)]
struct Product {
    x: u64,
    weight: u64,
    bias: u64,
    y: u64,
    tokens: u32,
    width: u32,
    rows: u32,
    blocks: u32,
    outputs: u32,
    finish: u32,
    slices: u32,
    unused: u32,
}

// SAFETY: four words of 64 bits and eight of 32 leave no gaps, and each of them is a plain integer.
#[allow(unsafe_code)]
unsafe impl bytemuck::NoUninit for Product {}

impl Product {
    /// What the hardware copies tiles of both factors by.
    fn tile_maps(&self, gpu: &Gpu, tile_rows: u32) -> std::result::Result<[Argument; 2], Failure> {
        let map = |tiles| gpu.driver().tile_map(tiles).map(Argument::of);
        let &Self { x, weight, tokens, rows, width, blocks, .. } = self;
        let columns = blocks * select::BLOCK as u32;
        let x = Tiles { address: x, rows: tokens, columns: width, tile_rows: select::COPIED_TOKENS };
        Ok([map(x)?, map(Tiles { address: weight, rows, columns, tile_rows })?])
    }
}

fn integer(what: &'static str, n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| argument(OP, what, n, "fewer than 2^32"))
}
