//! Breaks the build when the core, or anything it depends on, links std: std has a panic handler
//! of its own, and two are an error (E0152).
#![no_std]

extern crate alloc;

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;
use core::ptr;

use roundel_core::wire::{Decoder, encode, encode_hello};
use roundel_core::{Config, FromWorker, Input, Primary, Time};

struct NoMemory;

// SAFETY: never returns memory, which every caller must be ready for.
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: NoMemory = NoMemory;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// Uses the machine and the codec, so that they are really linked. Nobody calls it.
#[unsafe(no_mangle)]
pub extern "C" fn probe(now: u64) -> u64 {
    let mut bytes = Vec::new();
    encode_hello(&mut bytes);
    if encode(&FromWorker::Online, 1_024, &mut bytes).is_err() {
        return 0;
    }
    let mut decoder = Decoder::<FromWorker>::new(1_024);
    decoder.feed(&bytes);
    let decoded = matches!(decoder.poll(), Ok(Some(_)));
    let Ok(config) = Config::builder().build() else { return 0 };
    let mut primary = Primary::new(config);
    let woken = primary.handle_input(Time::from_nanos(now), Input::Wake).is_ok();
    u64::from(decoded && woken && primary.poll_output().is_some())
}
