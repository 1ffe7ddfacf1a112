//! `plan`: from what was measured and a target to nodes, cores, memory and bandwidth, and to the time in which
//! deliveries come back after a pub/sub node died.

mod capacity;
mod inputs;
mod saturated;
mod table;
mod target;

use anyhow::Result;

pub use capacity::{GatewayCores, Gateways, Load, Plan, Recovery, Tier};
pub use inputs::{Input, Inputs, Origin};
pub use saturated::{PerUpdate, Saturated};
pub use target::{Options, Target};

use crate::report::publish;
use table::{Shown, Sources};

/// Makes the plan and shows it. True: a plan that cannot be made is an error.
pub fn run(options: &Options) -> Result<bool> {
    let mut inputs = Inputs::read(options.inputs.as_deref(), options.engine.as_deref())?;
    if let [nobody_told, many_told] = &options.saturate[..] {
        let how = format!("loadtest saturate: {} and {}", nobody_told.display(), many_told.display());
        inputs.learn(&Saturated::read(nobody_told)?, &Saturated::read(many_told)?, &how)?;
    }
    let plan = Plan::of(&inputs, &options.target)?;
    let sources = options.show_inputs.then_some(Sources(&inputs));
    publish(&Shown { plan: &plan, sources }, &plan, options.json.as_deref())?;
    Ok(true)
}
