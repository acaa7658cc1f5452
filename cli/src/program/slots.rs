//! Differences between slots.

use roundel_core::Slot;
use roundel_runtime::unix::process::{PerSlot, Program};

use super::Inspect;

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
            let options = program.env.iter().rev().find(|(name, _)| name == "NODE_OPTIONS");
            let options = options.map(|(_, value)| value.clone());
            let inherited = options.or_else(|| std::env::var_os("NODE_OPTIONS"));
            inspect.apply(program, slot, &inherited.unwrap_or_default());
        }
    })
}
