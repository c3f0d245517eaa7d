//! Phases of a plan: each is a function of the observed state, and the plan is their results in order. Pure.

use super::model::{Plan, Reconciled, Step};

/// Result of a phase.
pub enum Next<K: Reconciled> {
    /// These writes; the next phase follows.
    Go(Plan<K>),
    /// These writes; no further phase follows.
    End(Plan<K>),
}

impl<K: Reconciled> Next<K> {
    /// No writes; the next phase follows.
    pub fn go() -> Self {
        Self::Go(Plan::default())
    }

    /// These steps; the next phase follows.
    pub fn write(steps: impl IntoIterator<Item = Step<K>>) -> Self {
        Self::Go(Plan { steps: steps.into_iter().collect(), ..Plan::default() })
    }
}

/// A plan, with the phase that ended it.
pub struct Planned<K: Reconciled> {
    /// Name of the phase.
    pub phase: &'static str,
    /// The plan.
    pub plan: Plan<K>,
}

/// A phase: its name and its function.
pub type Phase<I, K> = (&'static str, fn(&I) -> Next<K>);

/// Runs the phases in order, up to the one that ends the plan.
pub fn fold<I, K: Reconciled>(phases: &[Phase<I, K>], known: &I) -> Planned<K> {
    let mut plan = Plan::default();
    for (phase, says) in phases {
        match says(known) {
            Next::Go(next) => plan = plan.then(next),
            Next::End(last) => return Planned { phase, plan: plan.then(last) },
        }
    }
    Planned { phase: "none", plan }
}

#[cfg(test)]
mod tests {
    use frappe_crds::FrappeSite;
    use serde_json::json;

    use super::*;
    use crate::domain::{
        key::Key,
        object::{Desired, Kind},
    };

    fn step(name: &str) -> Step<FrappeSite> {
        Step::Ensure(Desired { kind: Kind::Secret, key: Key::new("a", name), body: json!({}) })
    }

    #[test]
    fn a_plan_has_the_writes_of_each_phase_up_to_the_one_that_ends_it() {
        const PHASES: [Phase<bool, FrappeSite>; 3] = [
            ("first", |_| Next::write([step("first")])),
            ("second", |ends| {
                if *ends { Next::End(Plan { steps: vec![step("end")], ..Plan::default() }) } else { Next::go() }
            }),
            ("third", |_| Next::write([step("third")])),
        ];
        let ended = fold(&PHASES, &true);
        assert_eq!((ended.phase, ended.plan.steps), ("second", vec![step("first"), step("end")]));
        let whole = fold(&PHASES, &false);
        assert_eq!(whole.plan, Plan { steps: vec![step("first"), step("third")], ..Plan::default() });
    }
}
