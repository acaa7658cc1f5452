//! The page of metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use roundel_core::{Life, Time, Totals};

use super::histogram::Histogram;
use super::meter::Meter;

/// The states that a worker can be seen in.
const STATES: [Life; 5] =
    [Life::Starting, Life::Online, Life::Ready, Life::Draining, Life::Leaving];

/// Everything that is on the page.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The name of the binary.
    pub(crate) binary: &'static str,
    pub(crate) now: Time,
    pub(crate) meter: Meter,
    /// What the machine has counted.
    pub(crate) totals: Totals,
    /// Messages of programs that were skipped.
    pub(crate) skipped: u64,
    /// By address: several listeners may have one socket, if it was inherited twice.
    pub(crate) listeners: BTreeMap<String, ListenerNow>,
    /// Connections that the workers have open, by the number of their slot, where they tell it.
    pub(crate) open: BTreeMap<u32, u32>,
    /// The states of the workers.
    pub(crate) workers: Vec<Life>,
    /// How many workers there should be.
    pub(crate) wanted: u32,
    pub(crate) process: ProcessNow,
}

/// A listener at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ListenerNow {
    /// Connections pending.
    pub(crate) pending: u32,
    /// Connections in the kernel's queue, and its limit. A unix socket does not tell.
    pub(crate) queue: Option<(u32, u32)>,
}

/// The process of the primary at the moment; what can't be found out is left out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessNow {
    /// Its start in seconds since 1970.
    pub(crate) started: f64,
    /// The CPU time that it used.
    pub(crate) cpu: Option<Duration>,
    /// Its resident memory in bytes.
    pub(crate) resident: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: u64,
}

impl Snapshot {
    /// The page in the OpenMetrics text format, version 1.0.0.
    pub(crate) fn render(self) -> Arc<[u8]> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Only a writer can fail, and a string does not.
        let _ = encode(&mut text, &registry);
        text.into_bytes().into()
    }

    fn connections(&self, page: &mut Families<'_>) -> fmt::Result {
        let (meter, totals) = (&self.meter, &self.totals);
        let slots = || (0..).zip(&meter.slots);
        page.counter(
            "roundel_connections_received",
            "Connections that the primary has accepted from the kernel",
            [([], meter.received)],
        )?;
        page.counter(
            "roundel_connections_handed_off",
            "Connections sent to the worker in a slot; each time counts",
            slots().map(|(slot, it)| (by_slot(slot), it.handed_off)),
        )?;
        page.counter(
            "roundel_connections_accepted",
            "Connections that the worker in a slot has accepted",
            slots().map(|(slot, it)| (by_slot(slot), it.accepted)),
        )?;
        page.counter(
            "roundel_connections_declined",
            "Connections that the worker in a slot has declined; each time counts",
            slots().map(|(slot, it)| (by_slot(slot), it.declined)),
        )?;
        page.counter(
            "roundel_connections_redispatched",
            "Connections that went back to their queue because their worker died",
            [([], totals.redispatched)],
        )?;
        page.counter(
            "roundel_connections_released",
            "Connections that the primary no longer has, by what became of them",
            [
                ([("reason", "accepted".into())], totals.accepted),
                ([("reason", "refused".into())], totals.refused),
                ([("reason", "unknown".into())], totals.unknown),
            ],
        )?;
        page.counter(
            "roundel_connections_refused",
            "Connections closed without having been served, by reason",
            meter.refused.iter().map(|(why, count)| ([("reason", (*why).into())], *count)),
        )?;
        let listeners = || self.listeners.iter();
        page.gauge(
            "roundel_connections_pending",
            "Connections that wait in the primary for a worker",
            listeners().map(|(at, it)| (by_listener(at), it.pending)),
        )?;
        page.gauge(
            "roundel_connections_in_flight",
            "Connections sent to the worker in a slot and not answered yet",
            slots().map(|(slot, it)| (by_slot(slot), it.in_flight)),
        )?;
        page.gauge(
            "roundel_connections_open",
            "Connections that the workers in a slot have accepted and not closed, as they tell it",
            self.open.iter().map(|(slot, open)| (by_slot(*slot), *open)),
        )?;
        page.histogram(
            "roundel_queue_wait",
            "From the accept of a connection to the handoff that a worker accepted",
            &meter.waits,
        )?;
        page.histogram(
            "roundel_ack_latency",
            "From the handoff of a connection to the answer of the worker that accepted it",
            &meter.acks,
        )?;
        let queues = || listeners().filter_map(|(at, it)| Some((by_listener(at), it.queue?)));
        page.gauge(
            "roundel_accept_queue_length",
            "Connections in the kernel's queue of a listener; not known of unix sockets",
            queues().map(|(labels, (length, _))| (labels, length)),
        )?;
        page.gauge(
            "roundel_accept_queue_limit",
            "How many connections the kernel's queue of a listener can hold",
            queues().map(|(labels, (_, limit))| (labels, limit)),
        )
    }

    fn workers(&self, page: &mut Families<'_>) -> fmt::Result {
        let meter = &self.meter;
        let slots = || (0..).zip(&meter.slots);
        let in_state = |state: Life| self.workers.iter().filter(|it| **it == state).count() as u32;
        page.gauge(
            "roundel_workers",
            "Workers by state",
            STATES.map(|state| ([("state", state.name().into())], in_state(state))),
        )?;
        page.gauge(
            "roundel_workers_wanted",
            "How many workers there should be",
            [([], self.wanted)],
        )?;
        page.family(
            "roundel_worker_busy",
            "How long at least one connection was in flight at the worker in a slot",
            Some(Unit::Seconds),
            slots().map(|(slot, it)| {
                (by_slot(slot), ConstCounter::new(it.busy(self.now).as_secs_f64()))
            }),
        )?;
        page.counter(
            "roundel_worker_exits",
            "Workers that have ended, by how",
            meter.exits.iter().map(|(class, count)| ([("class", (*class).into())], *count)),
        )?;
        page.counter(
            "roundel_worker_restarts",
            "Workers started in a slot after its first one",
            slots().map(|(slot, it)| (by_slot(slot), it.started.saturating_sub(1))),
        )?;
        page.gauge(
            "roundel_generation",
            "The newest generation that serves, from 1",
            [([], meter.generation)],
        )?;
        page.counter(
            "roundel_reloads",
            "Reloads by result",
            meter.reloads.iter().map(|(result, count)| ([("result", (*result).into())], *count)),
        )
    }

    fn primary(&self, page: &mut Families<'_>) -> fmt::Result {
        page.counter(
            "roundel_stalls",
            "How often a connection waited although a worker was idle, a fault of the primary",
            [([], self.totals.stalled)],
        )?;
        page.counter(
            "roundel_messages_skipped",
            "Messages of programs that were skipped because they were too large or malformed",
            [([], self.skipped)],
        )?;
        let process = &self.process;
        page.family(
            "process_start_time",
            "When the primary was started, in seconds since 1970",
            Some(Unit::Seconds),
            [([], ConstGauge::new(process.started))],
        )?;
        page.family(
            "process_cpu",
            "CPU time of the primary, in user mode and in the kernel",
            Some(Unit::Seconds),
            process.cpu.map(|time| ([], ConstCounter::new(time.as_secs_f64()))),
        )?;
        page.family(
            "process_resident_memory",
            "Resident memory of the primary",
            Some(Unit::Bytes),
            process.resident.map(|bytes| ([], ConstGauge::new(bytes))),
        )?;
        page.family(
            "process_open_fds",
            "Descriptors that the primary has open",
            None,
            process.open_fds.map(|count| ([], ConstGauge::new(count))),
        )?;
        page.family(
            "process_max_fds",
            "How many descriptors the primary may have open",
            None,
            [([], ConstGauge::new(process.max_fds))],
        )
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Families { encoder };
        page.gauge(
            "roundel_build_info",
            "The version and the name of the primary's binary",
            [(
                [("version", env!("CARGO_PKG_VERSION").into()), ("binary", self.binary.into())],
                1_u32,
            )],
        )?;
        self.connections(&mut page)?;
        self.workers(&mut page)?;
        self.primary(&mut page)
    }
}

type Labels<const N: usize> = [(&'static str, String); N];

fn by_slot(slot: u32) -> Labels<1> {
    [("slot", slot.to_string())]
}

fn by_listener(address: &str) -> Labels<1> {
    [("listener", address.to_owned())]
}

/// The families of metrics on the page.
struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Families<'_> {
    fn counter<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) -> fmt::Result {
        let rows = rows.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.family(name, help, None, rows)
    }

    fn gauge<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<N>, u32)>,
    ) -> fmt::Result {
        let rows = rows.into_iter();
        let rows = rows.map(|(labels, value)| (labels, ConstGauge::new(i64::from(value))));
        self.family(name, help, None, rows)
    }

    /// A family without a row is left out.
    fn family<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (Labels<N>, impl EncodeMetric)>,
    ) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        let Some((_, first)) = rows.peek() else { return Ok(()) };
        let kind = first.metric_type();
        let mut family = self.encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
        rows.try_for_each(|(labels, value)| value.encode(family.encode_family(&labels)?))
    }

    fn histogram(&mut self, name: &str, help: &str, it: &Histogram) -> fmt::Result {
        let (unit, kind) = (Unit::Seconds, MetricType::Histogram);
        let mut family = self.encoder.encode_descriptor(name, help, Some(&unit), kind)?;
        family.encode_histogram::<Labels<0>>(it.sum_seconds(), it.count(), &it.buckets(), None)
    }
}
