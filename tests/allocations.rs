//! Nothing is allocated on the path of a connection once the tables are warm.

#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use roundel_tests::core_path::CorePath;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_warm_core_allocates_nothing_for_a_connection() {
    for (workers, pending) in [(1, 0), (4, 0), (100, 0), (4, 1), (4, 1_000)] {
        let mut path = CorePath::new(workers, pending);
        // Every worker has had its turn, and the queues have grown to their size.
        path.run(2_000);
        let before = COUNT.with(Cell::get);
        path.run(10_000);
        path.wake(100);
        let during = COUNT.with(Cell::get) - before;
        assert_eq!(during, 0, "{workers} workers, {pending} pending");
    }
}
