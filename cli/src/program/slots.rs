//! Differences between slots.

use roundel_core::Slot;
use roundel_runtime::unix::process::{PerSlot, Program};

use super::Inspect;
use super::inspect::node_options;

/// Gives a program the number of its slot in a variable, and its debugger the slot's port.
pub(crate) fn per_slot(instance_var: Option<String>, inspect: Option<Inspect>) -> PerSlot {
    if instance_var.is_none() && inspect.is_none() {
        return PerSlot::default();
    }
    PerSlot::new(move |program: &mut Program, slot: Slot| {
        if let Some(name) = &instance_var {
            program.env.push((name.into(), slot.to_string().into()));
        }
        if let Some(inspect) = inspect {
            let options = node_options(program);
            inspect.apply(program, slot, &options);
        }
    })
}
