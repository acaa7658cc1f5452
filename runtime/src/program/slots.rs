//! What differs from slot to slot.

use std::borrow::Cow;

use roundel_core::Slot;

use super::Inspect;
use crate::process::Program;

/// How the program of a slot differs from those of others.
#[derive(Clone, Debug, Default)]
pub(crate) struct PerSlot {
    /// The variable that has the slot's number.
    pub(crate) instance_var: Option<String>,
    /// The debugger, whose port is the slot's.
    pub(crate) inspect: Option<Inspect>,
}

impl PerSlot {
    /// The program for a worker in this slot.
    pub(crate) fn program<'a>(&self, program: &'a Program, slot: Slot) -> Cow<'a, Program> {
        let mut program = Cow::Borrowed(program);
        if let Some(name) = &self.instance_var {
            program.to_mut().env.push((name.into(), slot.to_string().into()));
        }
        if let Some(inspect) = self.inspect {
            let program = program.to_mut();
            let options = program.env.iter().rev().find(|(name, _)| name == "NODE_OPTIONS");
            let options = options.map(|(_, value)| value.clone());
            let inherited = options.or_else(|| std::env::var_os("NODE_OPTIONS"));
            inspect.apply(program, slot, &inherited.unwrap_or_default());
        }
        program
    }
}
