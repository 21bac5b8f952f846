//! Linear layer: `y = x · Wᵀ + b`, alone or with what follows it in the model.
//!
//! `x: (tokens, in)` f32, `W: (out, in)`, `b: (out)` f32, `y: (tokens, out)` f32. How the weight is held decides
//! the arithmetic ([`Format`]): as stored, products and sums are f32; packed for the processor, the factors are
//! narrower and the sums are f32. On CUDA activations and, unless the caller asks for more, results are bf16.

mod bf16;
mod cuda;
mod exact;
mod product;
mod quantized;
mod reference;

pub(crate) use cuda::{CudaWeight, Kind};
pub use product::Order;
pub use quantized::Scheme;
pub use reference::forward as reference;

use self::{
    bf16::PackedBf16,
    product::{Finish, GROUP_ROWS, PANEL, Product, Source},
    quantized::PackedInt,
};
use crate::{
    DType, Device, Error, HostBytes, HostMatrix, Precision, Result, Storage, Tensor, add, cuda::CudaTensor,
    error::argument, gelu, pages, silu_mul,
};

const OP: &str = "linear";

/// How a weight is held in memory, and so what a product with it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As it is stored; nothing is copied, narrow types are widened exactly, all arithmetic is f32.
    Exact,
    /// Packed as bf16. Both factors of a product are rounded to bf16, sums are f32.
    Bf16,
    /// The same numbers and products, on the host in twelve bits where the processor has a fast way for that and the
    /// weights allow it: for layers that mostly see a few tokens at a time, and read their weights for each of them. Such a
    /// weight has no [`Weight::packed_bytes`].
    Bf16Squeezed,
    /// Packed as integers with a scale for each group. Inputs are rounded to 8-bit integers, token by token and group
    /// by group; sums within a group are exact, over groups f32.
    Quantized(Scheme),
}

impl Format {
    /// The format in which a weight has [`Weight::packed_bytes`], if it has any.
    pub fn in_files(self) -> Self {
        if self == Self::Bf16Squeezed { Self::Bf16 } else { self }
    }
}

/// The weight of a linear layer or of an embedding, `(out, in)`, prepared for a device. Clones share it.
#[derive(Clone, Debug)]
pub struct Weight {
    pub(crate) storage: WeightStorage,
    order: Order,
    rows: usize,
    cols: usize,
    size_in_bytes: usize,
}

/// Bytes that a weight of `rows` outputs and `cols` inputs takes in a CUDA device's memory. The rows of a gate and an up
/// projection come in groups of eight of each.
pub fn device_bytes(rows: usize, cols: usize, format: Format) -> usize {
    cuda::bytes(rows, cols, format)
}

/// Where the weight lies.
#[derive(Clone, Debug)]
pub(crate) enum WeightStorage {
    /// Host memory, often a mapped file: the parts as they were given.
    Host(Vec<HostMatrix>),
    /// A tensor on candle's device, in the stored type, its parts one below the other.
    Candle(candle_core::Tensor),
    /// See [`Format::Bf16`]; on the host.
    Bf16(PackedBf16),
    /// See [`Format::Quantized`]; on the host.
    Quantized(PackedInt),
    /// In a CUDA device's memory, in bf16 or quantized.
    Cuda(CudaWeight),
}

impl Weight {
    /// Prepares `parts`, which share their input, for `device`: matrices `(rows, in)` of which the outputs come to
    /// lie side by side, or, [`Order::Interleaved`], the gate and the up projection of [`swiglu`]. On CUDA activations
    /// are bf16 whatever the format, and [`Format::Exact`] is for weights that are stored in bf16; other devices than
    /// these two take [`Format::Exact`] whatever is asked for.
    ///
    /// # Errors
    /// When there is no part, widths differ, a type is not a floating point one or not one that the device computes with,
    /// or the device has no room.
    pub fn new(parts: Vec<HostMatrix>, order: Order, format: Format, device: &Device) -> Result<Self> {
        let [first, ..] = &*parts else {
            return Err(argument(OP, "parts", parts.len(), "at least one"));
        };
        let cols = first.cols();
        if let Some(other) = parts.iter().find(|part| part.cols() != cols) {
            return Err(argument(OP, "parts", other.cols(), format!("{cols} features")));
        }
        if order == Order::Interleaved && (parts.len() != 2 || parts[0].rows() != parts[1].rows()) {
            let rows: Vec<usize> = parts.iter().map(HostMatrix::rows).collect();
            return Err(argument(OP, "parts", rows, "a gate and an up projection of one size"));
        }
        parts.iter().try_for_each(|part| part.elements().map(|_| ()))?;
        let rows = parts.iter().map(HostMatrix::rows).sum();
        let storage = match (format, device.gpu()) {
            (Format::Exact, _) if device.is_host() => WeightStorage::Host(parts),
            (Format::Bf16, _) if device.is_host() => {
                let packed = PackedBf16::pack(&Source::new(&parts, order), "a weight in bf16")?;
                parts.iter().for_each(HostMatrix::release);
                WeightStorage::Bf16(packed)
            }
            (Format::Bf16Squeezed, _) if device.is_host() => {
                let source = Source::new(&parts, order);
                let packed = PackedBf16::pack_squeezed(&source, "a weight in bf16")?;
                parts.iter().for_each(HostMatrix::release);
                WeightStorage::Bf16(packed)
            }
            (Format::Quantized(scheme), _) if device.is_host() => {
                let packed = PackedInt::pack(&Source::new(&parts, order), scheme, "a quantized weight")?;
                parts.iter().for_each(HostMatrix::release);
                WeightStorage::Quantized(packed)
            }
            (_, Some(gpu)) => {
                let weight = match format {
                    Format::Quantized(scheme) => CudaWeight::quantize(&parts, order, scheme, gpu)?,
                    Format::Bf16 | Format::Bf16Squeezed => CudaWeight::upload(&parts, order, gpu)?,
                    Format::Exact => match parts.iter().find(|part| part.dtype() != DType::BF16) {
                        None => CudaWeight::upload(&parts, order, gpu)?,
                        Some(wider) => {
                            let expected = "BF16, the widest type that CUDA devices multiply here";
                            return Err(argument(OP, "dtype", wider.dtype(), expected));
                        }
                    },
                };
                parts.iter().for_each(HostMatrix::release);
                WeightStorage::Cuda(weight)
            }
            _ => {
                let parts: Vec<_> = parts
                    .iter()
                    .map(|part| reference::candle_matrix(part, &device.candle()))
                    .collect::<Result<_>>()?;
                WeightStorage::Candle(candle_core::Tensor::cat(&parts, 0)?)
            }
        };
        let size_in_bytes = match &storage {
            WeightStorage::Host(parts) => parts.iter().map(HostMatrix::size_in_bytes).sum(),
            WeightStorage::Candle(weight) => weight.elem_count() * weight.dtype().size_in_bytes(),
            WeightStorage::Bf16(packed) => packed.size_in_bytes(),
            WeightStorage::Quantized(packed) => packed.size_in_bytes(),
            WeightStorage::Cuda(weight) => weight.size_in_bytes(),
        };
        Ok(Self { storage, order, rows, cols, size_in_bytes })
    }

    /// The packed bytes, for a file that [`Weight::from_packed`] reads; `None` when the weight is not packed.
    pub fn packed_bytes(&self) -> Option<&[u8]> {
        match &self.storage {
            WeightStorage::Host(_) | WeightStorage::Candle(_) | WeightStorage::Cuda(_) => None,
            WeightStorage::Bf16(packed) => packed.bytes(),
            WeightStorage::Quantized(packed) => Some(packed.bytes()),
        }
    }

    /// The weight that [`Weight::packed_bytes`] came from, for `device`: the outputs of each of its parts, its inputs, its
    /// order and format. On the host the bytes go to huge pages, those of a mapped file that lies in memory while they are
    /// computed with ([`crate::settle`]), others at once, and their own pages are given back; for a CUDA device they are
    /// uploaded.
    ///
    /// # Errors
    /// When the bytes are not as many as such a weight has, or there is no room.
    pub fn from_packed(
        parts: &[usize],
        cols: usize,
        order: Order,
        format: Format,
        bytes: &HostBytes,
        device: &Device,
    ) -> Result<Self> {
        let rows = parts.iter().fold(0, |sum: usize, rows| sum.saturating_add(*rows));
        let packed_rows = match order {
            Order::Stacked => rows,
            Order::Interleaved => (rows / 2).div_ceil(GROUP_ROWS).saturating_mul(PANEL),
        };
        let what = "packed weights";
        let frozen = || {
            let aligned = bytes.as_ref().as_ptr().align_offset(pages::ALIGNMENT) == 0;
            match device.gpu() {
                Some(_) if aligned => Ok(pages::Frozen::in_place(bytes, what)),
                None if pages::Frozen::can_settle(bytes) => Ok(pages::Frozen::settling(bytes, what)),
                _ => pages::Frozen::copy_of(bytes, what),
            }
        };
        let storage = match format {
            Format::Exact => return Err(argument(OP, "format", format, "a packed one")),
            Format::Bf16 => WeightStorage::Bf16(PackedBf16::from_bytes(packed_rows, cols, frozen()?)?),
            Format::Bf16Squeezed => {
                WeightStorage::Bf16(PackedBf16::squeeze_bytes(packed_rows, cols, bytes, what)?)
            }
            Format::Quantized(scheme) => {
                WeightStorage::Quantized(PackedInt::from_bytes(scheme, packed_rows, cols, frozen()?)?)
            }
        };
        let size_in_bytes = match &storage {
            WeightStorage::Bf16(packed) => packed.size_in_bytes(),
            _ => bytes.as_ref().len(),
        };
        Self { storage, order, rows, cols, size_in_bytes }.on(device)
    }

    /// The same weight for `device`: what is packed on the host is uploaded where `device` is a CUDA device, and all else
    /// stays as it is.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn on(self, device: &Device) -> Result<Self> {
        let Self { ref storage, order, rows, cols, .. } = self;
        let weight = match (storage, device.gpu()) {
            (WeightStorage::Bf16(packed), Some(gpu)) => {
                CudaWeight::upload_bf16(packed, order, rows, cols, gpu)?
            }
            (WeightStorage::Quantized(packed), Some(gpu)) => {
                CudaWeight::upload_packed(packed, order, rows, cols, gpu)?
            }
            _ => return Ok(self),
        };
        let size_in_bytes = weight.size_in_bytes();
        Ok(Self { storage: WeightStorage::Cuda(weight), order, rows, cols, size_in_bytes })
    }

    /// The number of output features, those of all parts together.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The size of the weight in memory, in bytes: what a product with a single row has to read.
    pub fn size_in_bytes(&self) -> usize {
        match &self.storage {
            // It may shrink while it is used.
            WeightStorage::Bf16(packed) => packed.size_in_bytes(),
            _ => self.size_in_bytes,
        }
    }

    /// The arithmetic that fits a layer with this weight: what surrounds a narrow product need not be exact.
    pub fn precision(&self) -> Precision {
        match &self.storage {
            WeightStorage::Host(_) | WeightStorage::Candle(_) => Precision::Exact,
            WeightStorage::Bf16(_) | WeightStorage::Quantized(_) | WeightStorage::Cuda(_) => Precision::Bf16,
        }
    }

    /// `bias`, given for the outputs of all parts one after the other, in the order that products with this weight
    /// want it.
    pub fn arrange_bias(&self, bias: Vec<f32>) -> Vec<f32> {
        match &self.storage {
            WeightStorage::Host(_) | WeightStorage::Candle(_) => bias,
            WeightStorage::Bf16(_) | WeightStorage::Quantized(_) => self.order.arrange(bias),
            WeightStorage::Cuda(weight) => weight.arrange_bias(bias),
        }
    }

    /// Widens row `row` to `values: (cols)`, for embeddings.
    pub(crate) fn read_row(&self, row: usize, values: &mut [f32]) -> Result<()> {
        if row >= self.rows {
            return Err(Error::Index { op: OP, index: row, len: self.rows });
        }
        match &self.storage {
            WeightStorage::Host(parts) => {
                let [matrix] = &**parts else {
                    return Err(argument(OP, "table", parts.len(), "one part"));
                };
                matrix.read_row(row, values)?;
            }
            WeightStorage::Bf16(packed) => packed.read_row(row, values)?,
            WeightStorage::Quantized(packed) => packed.read_row(row, values),
            WeightStorage::Candle(_) | WeightStorage::Cuda(_) => {
                return Err(argument(OP, "table", "on a device", "on the host"));
            }
        }
        Ok(())
    }

    fn check(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<usize> {
        let [tokens, features] = x.dims(OP, "x")?;
        // A packed SwiGLU fills its outputs up, and the next layer's packed rows are filled up as well.
        let widest = match &self.storage {
            WeightStorage::Host(_) | WeightStorage::Candle(_) => self.cols,
            WeightStorage::Bf16(_) | WeightStorage::Quantized(_) => self.cols.next_multiple_of(GROUP_ROWS),
            WeightStorage::Cuda(_) => self.cols.next_multiple_of(cuda::GRAIN),
        };
        if !(self.cols..=widest).contains(&features) {
            return Err(argument(OP, "x", x.shape(), format!("(tokens, {})", self.cols)));
        }
        if let Some(bias) = bias {
            let arranged = match &self.storage {
                WeightStorage::Host(_) | WeightStorage::Candle(_) => self.rows,
                WeightStorage::Bf16(packed) => packed.rows(),
                WeightStorage::Quantized(packed) => packed.rows(),
                WeightStorage::Cuda(weight) => weight.arranged_rows(),
            };
            bias.expect_shape(OP, "bias", &[arranged])?;
        }
        Ok(tokens)
    }

    /// Computes `product` when the weight is packed; says whether it was.
    fn multiply_packed(&self, product: Product<'_>) -> Result<bool> {
        match &self.storage {
            WeightStorage::Bf16(packed) => packed.multiply(product)?,
            WeightStorage::Quantized(packed) => packed.multiply(product),
            WeightStorage::Host(_) | WeightStorage::Candle(_) | WeightStorage::Cuda(_) => return Ok(false),
        }
        Ok(true)
    }

    fn is_packed(&self) -> bool {
        matches!(self.storage, WeightStorage::Bf16(_) | WeightStorage::Quantized(_))
    }

    /// The weight, `x` and the bias when the weight lies in a CUDA device's memory.
    ///
    /// # Errors
    /// When the others do not.
    fn on_cuda<'a>(
        &'a self,
        x: &'a Tensor,
        bias: Option<&'a Tensor>,
    ) -> Result<Option<(&'a CudaWeight, &'a CudaTensor, Option<&'a CudaTensor>)>> {
        let WeightStorage::Cuda(weight) = &self.storage else { return Ok(None) };
        let elsewhere = |what: &'static str, tensor: &Tensor| {
            argument(OP, what, tensor.device().name(), "where the weight is")
        };
        let cuda_x = x.as_cuda().ok_or_else(|| elsewhere("x", x))?;
        let bias = match bias {
            None => None,
            Some(bias) => Some(bias.as_cuda().ok_or_else(|| elsewhere("bias", bias))?),
        };
        Ok(Some((weight, cuda_x, bias)))
    }

    /// The product that fills `y` with `outputs` columns.
    fn packed(&self, input: Input<'_>, finish: Finish, outputs: usize) -> Result<Tensor> {
        let mut outcome = Ok(true);
        let y = Tensor::host(&[input.tokens, outputs], |y| {
            outcome = self.multiply_packed(input.product(finish, y));
        })?;
        outcome.map(|_| y)
    }
}

/// The factors of a packed product besides the weight.
#[derive(Clone, Copy)]
struct Input<'a> {
    x: &'a [f32],
    tokens: usize,
    features: usize,
    bias: Option<&'a [f32]>,
}

impl<'a> Input<'a> {
    /// Of what lies on the host; `None` elsewhere.
    fn new(x: &'a Tensor, bias: Option<&'a Tensor>) -> Option<Self> {
        let bias = match bias {
            None => None,
            Some(bias) => Some(bias.as_host()?),
        };
        Some(Self { x: x.as_host()?, tokens: x.dim(0), features: x.dim(1), bias })
    }

    fn product(self, finish: Finish, y: &'a mut [f32]) -> Product<'a> {
        let Self { x, tokens, features, bias } = self;
        Product { x, tokens, features, bias, finish, y }
    }
}

/// `x · Wᵀ + b`. `x: (tokens, in)`, `bias: (out)` as [`Weight::arrange_bias`] gives it; gives `(tokens, out)`, on CUDA in
/// bf16.
///
/// # Errors
/// [`crate::Error::Argument`] when shapes disagree.
pub fn forward(x: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Result<Tensor> {
    forward_as(x, weight, bias, cuda::Finish::Store)
}

/// The same with a result in f32 everywhere: for logits, and for what is added to in f32.
///
/// # Errors
/// As [`forward`].
pub fn forward_f32(x: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Result<Tensor> {
    forward_as(x, weight, bias, cuda::Finish::StoreF32)
}

/// `gelu(x · Wᵀ + b)` with the exact GELU of [`crate::gelu`].
///
/// # Errors
/// As [`forward`].
pub fn forward_gelu(x: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Result<Tensor> {
    match &weight.storage {
        WeightStorage::Cuda(_) => forward_as(x, weight, bias, cuda::Finish::Gelu),
        _ => gelu::forward(&forward(x, weight, bias)?),
    }
}

/// [`forward`], on CUDA with something done to the sums; nothing is done to them elsewhere.
fn forward_as(x: &Tensor, weight: &Weight, bias: Option<&Tensor>, finish: cuda::Finish) -> Result<Tensor> {
    let tokens = weight.check(x, bias)?;
    if let Some((on_cuda, x, bias)) = weight.on_cuda(x, bias)? {
        if weight.order != Order::Stacked {
            return Err(argument(OP, "weight", weight.order, "not a gate and an up projection"));
        }
        return Ok(on_cuda.forward(x, bias, finish)?.into());
    }
    match (x.as_host(), &weight.storage) {
        (Some(_), WeightStorage::Bf16(_) | WeightStorage::Quantized(_)) => {
            if weight.order != Order::Stacked {
                return Err(argument(OP, "weight", weight.order, "not a gate and an up projection"));
            }
            let input =
                Input::new(x, bias).ok_or_else(|| argument(OP, "bias", "on a device", "on the host"))?;
            weight.packed(input, Finish::Store, weight.rows)
        }
        (Some(x), WeightStorage::Host(parts)) => {
            let bias = bias.map(Tensor::to_f32_vec).transpose()?;
            let mut outcome = Ok(());
            let y = Tensor::host(&[tokens, weight.rows], |y| {
                outcome = exact::multiply(x, parts, bias.as_deref(), y);
            })?;
            outcome.map(|()| y)
        }
        _ => x.alike(OP, reference::forward(x, weight, bias)?),
    }
}

/// `residual + x · Wᵀ + b`, written over the residual when nobody else has it.
///
/// # Errors
/// [`crate::Error::Argument`] when shapes disagree.
pub fn forward_add(x: &Tensor, weight: &Weight, bias: Option<&Tensor>, residual: Tensor) -> Result<Tensor> {
    let tokens = weight.check(x, bias)?;
    residual.expect_shape(OP, "residual", &[tokens, weight.rows])?;
    if let Some((on_cuda, x, bias)) = weight.on_cuda(x, bias)? {
        if weight.order != Order::Stacked {
            return Err(argument(OP, "weight", weight.order, "not a gate and an up projection"));
        }
        let device = residual.device();
        let Storage::Cuda(residual) = residual.into_storage() else {
            return Err(argument(OP, "residual", device.name(), "where the weight is"));
        };
        return Ok(on_cuda.forward_add(x, bias, residual)?.into());
    }
    match Input::new(x, bias) {
        Some(input) if weight.is_packed() && weight.order == Order::Stacked => {
            match residual.into_storage() {
                Storage::Host(residual) => {
                    let mut y = residual.into_sole()?;
                    weight.multiply_packed(input.product(Finish::Add, y.as_mut_slice()))?;
                    Ok(y.into())
                }
                Storage::Candle(residual) => add::into(residual.into(), &forward(x, weight, bias)?),
                Storage::Cuda(residual) => add::into(residual.into(), &forward(x, weight, bias)?),
            }
        }
        _ => add::into(residual, &forward(x, weight, bias)?),
    }
}

/// `silu(x · Gᵀ + g) · (x · Uᵀ + u)` for a weight whose parts are `G` and `U`, both `(out, in)`, and a bias that holds
/// `g` and `u` as [`Weight::arrange_bias`] gives them; gives `(tokens, out)`, or, when the weight is packed, `out` filled
/// up with zeros to a multiple of 16, on CUDA of 8.
///
/// # Errors
/// [`crate::Error::Argument`] when shapes disagree or the weight is not [`Order::Interleaved`].
pub fn swiglu(x: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Result<Tensor> {
    weight.check(x, bias)?;
    if weight.order != Order::Interleaved {
        return Err(argument(OP, "weight", weight.order, "a gate and an up projection"));
    }
    if let Some((weight, x, bias)) = weight.on_cuda(x, bias)? {
        return Ok(weight.forward(x, bias, cuda::Finish::SwiGlu)?.into());
    }
    if let Some(input) = Input::new(x, bias)
        && weight.is_packed()
    {
        return weight.packed(input, Finish::SwiGlu, (weight.rows / 2).next_multiple_of(GROUP_ROWS));
    }
    let (both, out) = (forward(x, weight, bias)?, weight.rows / 2);
    silu_mul::forward(&both.narrow(1, 0, out)?, &both.narrow(1, out, out)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, HostBytes, testing};

    /// Both paths sum `features` products of numbers below 1 in f32, in different orders: the rounding error is
    /// at most `features` half units in the last place of a sum below `features`, in practice its root.
    fn tolerance(features: usize) -> f32 {
        f32::EPSILON * (features as f32).max(1.0) * 2.0
    }

    fn check(tokens: usize, features: usize, out: usize, dtype: DType, bias: bool) {
        let x = testing::tensor(1, &[tokens, features]);
        let weight = testing::weight(2, out, features, dtype);
        let bias = bias.then(|| testing::tensor(3, &[out]));
        let found = forward(&x, &weight, bias.as_ref()).unwrap();
        let expected = reference(&x, &weight, bias.as_ref()).unwrap();
        let what = format!("{tokens} tokens, {features} features, {out} outputs, {dtype:?}");
        testing::assert_close(&what, &found, &expected, tolerance(features));
    }

    #[test]
    fn equals_the_reference_on_awkward_sizes() {
        for dtype in [DType::BF16, DType::F16, DType::F32] {
            for tokens in [1, 2, 4, 5, 63, 64, 65] {
                for (features, out) in [(1, 1), (31, 65), (32, 64), (33, 63), (342, 130), (1176, 48)] {
                    check(tokens, features, out, dtype, tokens % 2 == 0);
                }
            }
        }
    }

    #[test]
    fn a_long_row_keeps_its_precision() {
        check(1, 18_944, 3, DType::BF16, true);
        check(7, 18_944, 3, DType::BF16, true);
    }

    #[test]
    fn no_tokens_give_no_rows() {
        let y = forward(&testing::tensor(1, &[0, 8]), &testing::weight(2, 5, 8, DType::BF16), None).unwrap();
        assert_eq!(y.shape(), [0, 5]);
    }

    #[test]
    fn a_view_of_a_larger_tensor_is_read_rightly() {
        let wide = testing::tensor(1, &[6, 24]);
        let x = wide.narrow(1, 8, 8).unwrap();
        let weight = testing::weight(2, 5, 8, DType::BF16);
        let found = forward(&x, &weight, None).unwrap();
        testing::assert_close("view", &found, &reference(&x, &weight, None).unwrap(), tolerance(8));
    }

    #[test]
    fn misaligned_bytes_are_read_rightly() {
        let bytes: Vec<u8> = std::iter::once(0).chain((0..12u8).flat_map(|i| [0, 0x3f + i % 2])).collect();
        let all = HostBytes::new(std::sync::Arc::new(bytes));
        let matrix = HostMatrix::new(all.slice(1..25).unwrap(), DType::BF16, 3, 4).unwrap();
        let values = matrix.rows_f32(0..3).unwrap();
        assert_eq!(values[..4], [0.5, 2.0, 0.5, 2.0]);
    }

    #[test]
    fn wrong_shapes_are_named() {
        let weight = testing::weight(2, 5, 8, DType::BF16);
        let error = forward(&testing::tensor(1, &[2, 7]), &weight, None).unwrap_err();
        assert_eq!(error.to_string(), "linear: x is [2, 7], expected (tokens, 8)");
        let bias = testing::tensor(1, &[4]);
        let error = forward(&testing::tensor(1, &[2, 8]), &weight, Some(&bias)).unwrap_err();
        assert_eq!(error.to_string(), "linear: bias is [4], expected [5]");
    }
}
