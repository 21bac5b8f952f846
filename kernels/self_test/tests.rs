//! The self-test passes on the processor, and finds what is wrong.

use super::*;

#[test]
fn the_processor_passes() {
    let mut told = 0;
    let outcomes =
        run(&Device::cpu(), Options { seed: 1, rounds: 1, short: true }, &mut |_| told += 1).unwrap();
    assert_eq!(told, outcomes.len());
    for outcome in outcomes {
        assert_eq!(outcome.faults, [""; 0], "{}", outcome.operation);
        assert!(outcome.cases > 2 && outcome.numbers > 100, "{outcome:?}");
        assert_eq!(outcome.kernels, None);
    }
}

fn bench() -> Bench {
    let mut outcomes = Vec::new();
    let options = Options { seed: 1, rounds: 0, short: true };
    let none: Cases = |_| Ok(());
    outcomes.push(test(&Device::cpu(), options, (0, "test", "none"), none).unwrap());
    Bench {
        device: Device::cpu(),
        host: Device::cpu(),
        short: true,
        numbers: Numbers::new(1),
        outcome: outcomes.remove(0),
    }
}

#[test]
fn differences_are_found() {
    let expected = Tensor::from_f32(vec![1.0, -2.0, 4.0], &[3], &Device::cpu()).unwrap();
    let tolerance = Tolerance { absolute: 0.1, relative: 0.01 };
    let check = |found: Vec<f32>, faults: usize, worst: f32| {
        let mut bench = bench();
        let found = Tensor::from_f32(found, &[3], &Device::cpu());
        bench.compare("case", found, &expected, tolerance).unwrap();
        assert_eq!(bench.outcome.faults.len(), faults, "{:?}", bench.outcome);
        let found = bench.outcome.worst.unwrap().difference;
        assert!(found == worst || found.is_nan() && worst.is_nan(), "{found}, {worst}");
    };
    check(vec![1.0, -2.0, 4.0], 0, 0.0);
    check(vec![1.0625, -2.0, 4.125], 0, 0.125);
    check(vec![1.125, -2.5, 4.0], 1, 0.5);
    check(vec![1.0, f32::NAN, 4.0], 1, f32::NAN);

    let mut bench = bench();
    let short = Tensor::from_f32(vec![1.0], &[1], &Device::cpu());
    bench.compare("short", short, &expected, tolerance).unwrap();
    bench.equal("list", Ok(vec![1, 2]), &[1, 3]);
    bench.equal("shorter", Ok(vec![1]), &[1, 3]);
    let failed = Err(crate::Error::Index { op: "test", index: 1, len: 0 });
    bench.equal::<u32>("failed", failed, &[]);
    assert_eq!(bench.outcome.faults.len(), 4, "{:?}", bench.outcome.faults);
    assert_eq!(bench.outcome.faults[2], "test, shorter: entry 1 is None, expected Some(3)");
}

#[test]
fn a_seed_gives_the_same_numbers() {
    let draw = |seed| {
        let mut numbers = Numbers::new(seed);
        (numbers.signed(), numbers.shuffled(20))
    };
    assert_eq!(draw(5), draw(5));
    assert_ne!(draw(5), draw(6));
    let mut sorted = draw(7).1;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..20).collect::<Vec<_>>());
}

#[test]
fn other_devices_need_no_guard() {
    assert!(guarded(&Device::cpu()).is_host());
}
