//! Nothing but examples of how to embed Roundel in other event loops, and a test that runs them:
//!
//! - `examples/poll_loop.rs`: a whole primary, the core driven by a loop around poll(2);
//! - `examples/tokio_worker.rs`: a worker on tokio, with hyper.
