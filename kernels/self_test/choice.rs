//! The largest elements, and the choice of tokens.

use super::Bench;
use crate::{
    Result, Tensor,
    sampling::{Row, Sampler, Sequence, Settings},
    top_k,
};

pub(super) fn top_k(bench: &mut Bench) -> Result<()> {
    for (rows, columns, k) in
        [(1, 1, 1), (3, 7, 9), (1, 2048, 3), (2, 2049, 5), (1, 4100, 1), (1, 70, 20), (1, 151_936, 20)]
    {
        if !bench.has_time(100 * rows * columns) {
            continue;
        }
        // Coarse numbers have equals, which their places tell apart.
        for steps in [f32::INFINITY, 3.0] {
            let values = bench.values(&[rows, columns], 1.0);
            let values = if steps.is_finite() {
                values.into_iter().map(|x| (x * steps).round()).collect()
            } else {
                values
            };
            let x = bench.put(values, &[rows, columns])?;
            let bits = |rows: Vec<Vec<top_k::Entry>>| -> Vec<(u32, u32)> {
                rows.into_iter().flatten().map(|entry| (entry.index, entry.value.to_bits())).collect()
            };
            let expected = bits(top_k::reference(&x.host, k)?);
            let found = top_k::forward(&x.device, k).map(bits);
            bench.equal(format_args!("{k} of {columns}"), found, &expected);
            let expected: Vec<u32> =
                top_k::reference(&x.host, 1)?.iter().flatten().map(|entry| entry.index).collect();
            bench.equal(format_args!("likeliest of {columns}"), top_k::argmax(&x.device), &expected);
        }
    }
    Ok(())
}

pub(super) fn sampling(bench: &mut Bench) -> Result<()> {
    for (vocabulary, sequences) in
        [(1, 1), (2, 2), (33, 5), (130, 1), (1500, 4), (2049, 16), (10_000, 3), (151_936, 2)]
    {
        if !bench.has_time(40 * vocabulary * sequences) {
            continue;
        }
        let all: Vec<Settings> = (0..sequences).map(|_| settings(bench)).collect();
        let mut expected = Sampler::new(sequences, vocabulary, &bench.host)?;
        let found = Sampler::new(sequences, vocabulary, &bench.device);
        let mut found = match found {
            Ok(found) => found,
            Err(error) => {
                bench.fault(format_args!("{vocabulary} tokens"), error);
                continue;
            }
        };
        for (slot, &settings) in all.iter().enumerate() {
            let mut id = || bench.numbers.below(vocabulary) as u32;
            let (prompt, answer) = ([id(), id()], [id()]);
            let biases = [(id(), 2.0)];
            let biases = if slot % 3 == 1 { &biases[..] } else { &[] };
            let sequence = Sequence { settings, biases, prompt: &prompt, answer: &answer };
            expected.assign(slot, &sequence)?;
            if let Err(error) = found.assign(slot, &sequence) {
                bench.fault(format_args!("a sequence of {vocabulary} tokens"), error);
            }
        }
        // What is chosen counts as seen in the next step.
        for step in 0..3 {
            let logits = bench.values(&[sequences, vocabulary], 8.0);
            let mask: Vec<u32> = (0..vocabulary.div_ceil(32)).map(|_| bench.numbers.bits() as u32).collect();
            let rows: Vec<Row<'_>> = (0..sequences)
                .map(|i| Row {
                    slot: sequences - 1 - i,
                    number: bench.numbers.bits(),
                    allowed: (i % 4 == 2).then_some(&mask[..]),
                })
                .collect();
            let shape = [sequences, vocabulary];
            let on_host = Tensor::from_f32(logits.clone(), &shape, &bench.host)?;
            let chosen = Tensor::from_f32(logits, &shape, &bench.device)
                .and_then(|logits| found.choose(&logits, &rows));
            let case = format!("step {step}, {sequences} of {vocabulary} tokens, {all:?}");
            bench.equal(case, chosen, &expected.choose(&on_host, &rows)?);
        }
    }
    Ok(())
}

fn settings(bench: &mut Bench) -> Settings {
    let mut pick = |values: &[f32]| values[bench.numbers.below(values.len())];
    Settings {
        temperature: pick(&[0.0, 0.01, 0.7, 1.0, 3.0]),
        top_k: pick(&[0.0, 0.0, 1.0, 3.0, 50.0, 129.0]) as usize,
        top_p: pick(&[1.0, 1.0, 0.001, 0.3, 0.813, 0.9991]),
        min_p: pick(&[0.0, 0.0, 0.0503, 0.71]),
        repetition_penalty: pick(&[1.0, 1.0, 1.05, 1.7]),
        presence_penalty: pick(&[0.0, 0.0, 1.5, -0.7]),
        frequency_penalty: pick(&[0.0, 0.0, 0.4, -1.3]),
    }
}
