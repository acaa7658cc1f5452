//! Metrics in the driver: what is counted, which clients are watched, and what they are answered.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;

use roundel_core::{Address, ConnEnd, Life, SockName, Time, WorkerId};

use super::{Change, PrimaryDriver, Source};
use crate::observe::metrics::{
    Answer, Left, ListenerNow, Meter, MetricsServer, ProcessNow, Question, Snapshot,
};
use crate::unix::limits::{self, Resident};
use crate::unix::sys;

/// How many requests of one client are answered in a turn.
const REQUESTS_PER_TURN: u32 = 4;

/// A connection in custody, and the times of its stages.
#[derive(Debug)]
pub(super) struct Held {
    fd: OwnedFd,
    received: Time,
    handed: Time,
}

impl Held {
    pub(super) fn new(fd: OwnedFd, now: Time) -> Held {
        Held { fd, received: now, handed: now }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The server and the counters, if there are any.
#[derive(Debug)]
pub(super) struct Metrics {
    server: MetricsServer,
    meter: Meter,
    /// The page that was rendered at this time, for all who ask in one turn.
    page: Option<(Time, Arc<[u8]>)>,
    /// Clients could not be accepted because descriptors ran out.
    starved: bool,
    /// The start of the primary in seconds since 1970.
    started: f64,
    resident: Option<Resident>,
}

impl Metrics {
    /// Listens at an address.
    ///
    /// # Errors
    /// The errno of the call that failed.
    pub(super) fn open(address: &Address, slots: u32) -> Result<Metrics, roundel_core::Errno> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Ok(Metrics {
            server: MetricsServer::bind(address)?,
            meter: Meter::new(slots),
            page: None,
            starved: false,
            started: since.unwrap_or_default().as_secs_f64(),
            resident: Resident::open().ok(),
        })
    }

    pub(super) fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    pub(super) fn fd(&self) -> Arc<OwnedFd> {
        self.server.fd().clone()
    }

    /// Where the page is.
    pub(super) fn place(&self) -> String {
        match self.server.address() {
            SockName::Ip(address) => format!("http://{address}/metrics"),
            other => other.to_string(),
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.server.deadline()
    }
}

impl PrimaryDriver {
    /// A connection goes to a worker.
    pub(super) fn meter_handoff(&mut self, worker: WorkerId, conn: roundel_core::ConnId) {
        let Some(metrics) = &mut self.metrics else { return };
        metrics.meter.handed_off(worker, self.now);
        if let Some(held) = self.custody.get_mut(conn) {
            held.handed = self.now;
        }
    }

    /// A connection has ended for the primary.
    pub(super) fn meter_release(&mut self, held: &Held, end: ConnEnd) {
        let Some(metrics) = &mut self.metrics else { return };
        match end {
            ConnEnd::AcceptedBy(worker) => {
                metrics.meter.accepted(worker, held.received, held.handed, self.now);
            }
            ConnEnd::Refused(why) => metrics.meter.refused(why),
        }
    }

    pub(super) fn accept_metrics(&mut self) {
        let Some(metrics) = &mut self.metrics else { return };
        let accepted = metrics.server.accept(self.now);
        match accepted.left {
            Left::None => {}
            Left::Perhaps => drop(self.ready.insert(Source::Metrics)),
            Left::Starved => {
                metrics.starved = true;
                self.retry_later();
            }
        }
        self.forget_metrics(accepted.gone);
        for client in accepted.come {
            let Some(metrics) = &self.metrics else { return };
            let Some(fd) = metrics.server.client_fd(client).cloned() else { continue };
            self.watch(Source::MetricsClient(client), fd);
            // It is heard in the next turn, before others can take its place.
            self.ready.insert(Source::MetricsClient(client));
        }
    }

    pub(super) fn retry_metrics(&mut self) {
        if let Some(metrics) = &mut self.metrics
            && std::mem::take(&mut metrics.starved)
        {
            self.ready.insert(Source::Metrics);
        }
    }

    pub(super) fn on_metrics(&mut self, client: u32) {
        let source = Source::MetricsClient(client);
        let now = self.now;
        let Some(before) = self.metrics.as_ref().and_then(|it| it.server.wants_write(client))
        else {
            return;
        };
        for answered in 0..=REQUESTS_PER_TURN {
            if answered == REQUESTS_PER_TURN {
                self.ready.insert(source);
                break;
            }
            let Some(metrics) = &mut self.metrics else { return };
            let Some(question) = metrics.server.on_ready(client, now) else { break };
            let answer = match question {
                Question::Metrics => Answer::page(self.page()),
                Question::Health => Answer::line("200 OK", "ok"),
                Question::Ready => match self.unready() {
                    None => Answer::line("200 OK", "ok"),
                    Some(why) => Answer::line("503 Service Unavailable", why),
                },
                Question::Other(why) => why.into(),
            };
            if let Some(metrics) = &mut self.metrics {
                metrics.server.answer(client, answer, now);
            }
        }
        match self.metrics.as_ref().and_then(|it| it.server.wants_write(client)) {
            None => self.changes.push_back(Change::Unwatch { source }),
            Some(writable) if writable != before => {
                self.changes.push_back(Change::Rewatch { source, writable });
            }
            Some(_) => {}
        }
    }

    pub(super) fn expire_metrics(&mut self) {
        let Some(metrics) = &mut self.metrics else { return };
        if metrics.server.deadline().is_some_and(|at| at <= self.now) {
            let late = metrics.server.expire(self.now);
            self.forget_metrics(late);
        }
    }

    fn forget_metrics(&mut self, clients: Vec<u32>) {
        let sources = clients.into_iter().map(Source::MetricsClient);
        self.changes.extend(sources.map(|source| Change::Unwatch { source }));
    }

    /// Why clients should go elsewhere, if they should.
    fn unready(&self) -> Option<&'static str> {
        if self.core.stop_deadline().is_some() || self.verdict.is_some() {
            return Some("stopping");
        }
        if self.core.is_paused() {
            return Some("paused");
        }
        let ready = self.core.workers().filter(|worker| worker.life == Life::Ready).count();
        let enough = self.core.config().min_ready().unwrap_or(1).max(1) as usize;
        match ready {
            0 => Some("no worker is ready"),
            _ => (ready < enough).then_some("too few workers are ready"),
        }
    }

    /// The page of metrics. It is rendered once a turn, however many ask for it.
    fn page(&mut self) -> Arc<[u8]> {
        // What the machine has decided is counted where it is carried out.
        self.execute_outputs();
        let now = self.now;
        let Some(metrics) = &self.metrics else { return Arc::new([]) };
        if let Some((at, page)) = &metrics.page
            && *at == now
        {
            return page.clone();
        }
        debug_assert_eq!(metrics.meter.in_flight(), self.core.in_flight());
        let page = self.snapshot(metrics).render();
        if let Some(metrics) = &mut self.metrics {
            metrics.page = Some((now, page.clone()));
        }
        page
    }

    fn snapshot(&self, metrics: &Metrics) -> Snapshot {
        let mut listeners: BTreeMap<String, ListenerNow> = BTreeMap::new();
        for listener in self.core.listeners() {
            let Some(name) = listener.sockname else { continue };
            let queue = self.sockets.get(&listener.id).map(|it| sys::accept_queue(it.as_fd()));
            let entry = listeners.entry(name.to_string()).or_default();
            entry.pending += listener.pending;
            entry.queue = queue.and_then(Result::ok);
        }
        let mut open = BTreeMap::new();
        for (slot, count) in self.core.workers().filter_map(|it| Some((it.slot.0, it.open?))) {
            *open.entry(slot).or_default() += count;
        }
        Snapshot {
            binary: self.console.name(),
            now: self.now,
            meter: metrics.meter.clone(),
            totals: self.core.totals(),
            skipped: self.skipped,
            listeners,
            open,
            workers: self.core.workers().map(|worker| worker.life).collect(),
            wanted: self.core.wanted(),
            process: ProcessNow {
                started: metrics.started,
                cpu: limits::cpu_time().ok(),
                resident: metrics.resident.as_ref().and_then(|it| it.bytes().ok()),
                open_fds: limits::open_fds_at_once().ok(),
                max_fds: self.files.soft(),
            },
        }
    }
}
