//! `core_path WORKERS PENDING CONNECTIONS [WAKES]`: run it under callgrind and count.

use roundel_tests::core_path::CorePath;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<u64>().expect("a number"));
    let mut next = || numbers.next().expect("WORKERS PENDING CONNECTIONS [WAKES]");
    let workers = u32::try_from(next()).expect("a number of workers");
    let mut path = CorePath::new(workers, next());
    path.run(next());
    path.wake(numbers.next().unwrap_or(0));
}
