//! What a simulation found wrong, by the property that it breaks.

/// A promise of the core, as the tests name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// Every connection is in one place, and released once.
    Conservation,
    /// What is in flight at a worker that dies reaches another one, from its place in the queue.
    NoLoss,
    /// What a worker acknowledged is nobody else's.
    NoDouble,
    /// The eligible worker with the fewest in flight, among equals the one longest there.
    Fairness,
    /// Nothing waits while somebody is eligible.
    WorkConservation,
    /// A stuck worker costs at most its window, and is ended at the ack timeout.
    Stuck,
    /// Listeners outlive workers.
    Listeners,
    /// A reload replaces workers batch by batch, each as a whole or not at all; recycling and
    /// another number of workers wait for it.
    Readiness,
    /// Restarts are bounded.
    Restarts,
    /// A leaving worker is signalled only when that cuts nobody off, or its deadline is near.
    Leaving,
    /// A shutdown ends.
    Shutdown,
    /// After a wake the next deadline is later.
    Timeouts,
    /// `Primary::check` holds, and the core accepts what a correct embedder says.
    Invariants,
    /// Outputs grow at most linearly in the inputs.
    Linear,
    /// Nobody is ended for what another one sent.
    Harmless,
    /// Same inputs, same outputs: again, and from a snapshot.
    Determinism,
}

/// One thing that went wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What it breaks.
    pub property: Property,
    /// After how many inputs.
    pub step: usize,
    /// What happened.
    pub what: String,
}

impl Fault {
    /// A run that goes another way the next time.
    pub fn determinism(what: String) -> Fault {
        Fault { property: Property::Determinism, step: 0, what }
    }
}
