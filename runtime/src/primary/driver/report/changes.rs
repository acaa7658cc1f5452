//! Events of what an operator asked for: reloads, another number of workers, a pause; and of the
//! recycling of workers.

use roundel_core::{Event, ReloadFailure};

use super::{Line, process, reload_failure, shown};

/// The rest of an event's line.
pub(super) fn fields(line: Line, event: &Event, pid: Option<i32>) -> Line {
    match event {
        Event::ReloadStarted { generation, slots } => {
            line.with("generation", *generation).with("slots", *slots)
        }
        Event::ReloadProgress { generation, done, slots } => {
            line.with("generation", *generation).with("done", *done).with("slots", *slots)
        }
        Event::ReloadDone { generation } => line.with("generation", *generation),
        Event::ReloadFailed { generation, failure } => {
            line.with("generation", *generation).with("cause", cause_of(failure))
        }
        Event::Recycling { worker, slot } | Event::Recycled { worker, slot } => {
            line.worker(*worker).slot(*slot).with("pid", pid)
        }
        Event::RecycleFailed { worker, slot, failure } => {
            line.worker(*worker).slot(*slot).with("pid", pid).with("cause", cause_of(failure))
        }
        Event::Scaled { from, to } => line.with("from", *from).with("to", *to),
        Event::Retrying { slot } => line.slot(*slot),
        // Paused and Resumed have no fields.
        _ => line,
    }
}

pub(super) fn words(event: &Event, pid: Option<i32>) -> Option<String> {
    Some(match event {
        Event::ReloadStarted { generation, slots } => {
            format!("reload: generation {generation} replaces {}", workers(*slots))
        }
        Event::ReloadProgress { generation, done, slots } => {
            format!("reload: {done}/{slots} of generation {generation} serve")
        }
        Event::ReloadDone { generation } => format!("reload done: generation {generation} serves"),
        // The later one is reported.
        Event::ReloadFailed { failure: ReloadFailure::Superseded, .. } => return None,
        Event::ReloadFailed { failure, .. } => format!("reload failed: {}", cause_of(failure)),
        Event::Recycling { worker, slot } => {
            format!("{} is replaced by a new one in slot {slot}", process(*worker, pid))
        }
        Event::RecycleFailed { worker, failure, .. } => {
            format!("{} stays for now: {}", process(*worker, pid), cause_of(failure))
        }
        Event::Scaled { from, to } => format!("{} instead of {from}", workers(*to)),
        Event::Paused => "paused: nothing is accepted or handed out".into(),
        Event::Resumed => "resumed".into(),
        Event::Retrying { slot } => format!("slot {slot}, given up before, is tried again"),
        _ => return None,
    })
}

fn cause_of(failure: &ReloadFailure) -> String {
    shown(&reload_failure(failure))
}

/// How many workers, in words.
pub(crate) fn workers(count: u32) -> String {
    if count == 1 { "1 worker".into() } else { format!("{count} workers") }
}
