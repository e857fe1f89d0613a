//! The cases of the hot path, in time.

use criterion::{Criterion, criterion_group, criterion_main};
use skywave_hot_path::cases;
use std::time::{Duration, Instant};

/// What so many rounds need is made at once.
const AT_ONCE: u64 = 1000;

fn hot_path(criterion: &mut Criterion) {
    for case in cases() {
        criterion.bench_function(case.name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut elapsed = Duration::ZERO;
                for done in (0..rounds).step_by(AT_ONCE as usize) {
                    let count = AT_ONCE.min(rounds - done) as usize;
                    let mut run = case.begin(count);
                    let begin = Instant::now();
                    run(count);
                    elapsed += begin.elapsed();
                }
                elapsed
            });
        });
    }
}

criterion_group!(benches, hot_path);
criterion_main!(benches);
