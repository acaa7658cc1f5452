//! Nothing but examples of how to embed Roundel in other event loops, and tests that run them:
//!
//! - `examples/poll_loop.rs`: a whole primary, the core driven by a loop around poll(2);
//! - `examples/poll_worker.rs`: a whole worker of the same kind;
//! - `examples/tokio_worker.rs`: a worker on tokio, with hyper.
