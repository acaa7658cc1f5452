//! What a frame claims to hold is not allocated before it is there.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use roundel_core::wire::{Decoder, MAX_FRAME_DEFAULT, Message, encode_hello};
use roundel_core::{FromWorker, ToWorker};

/// The largest single request so far.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Watching;

// SAFETY: passes every call on to the system's allocator as it came.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// The only test here: the allocator is one for the process.
#[test]
fn a_short_frame_allocates_little_whatever_it_claims() {
    for (target, name, bytes) in roundel_fuzz::seeds::all() {
        if target == "native_decoder" && name.starts_with("claim-") {
            let refused = decode::<FromWorker>(&name, &bytes) | decode::<ToWorker>(&name, &bytes);
            assert!(refused, "{name} claims nothing in either direction");
        }
    }
}

/// Whether the body was refused.
fn decode<M: Message>(name: &str, body: &[u8]) -> bool {
    let mut stream = Vec::new();
    encode_hello(&mut stream);
    stream.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    stream.extend_from_slice(body);
    let mut decoder = Decoder::<M>::new(MAX_FRAME_DEFAULT);
    LARGEST.store(0, Ordering::Relaxed);
    decoder.feed(&stream);
    let refused = decoder.poll().is_err();
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest <= 1_024, "{name}: {largest} bytes for a frame of {}", body.len());
    refused
}
