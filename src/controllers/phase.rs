//! The phases of a plan: each looks at what is known by itself, and the plan is what they say one after the other. Pure.

use super::model::{Plan, Reconciled, Step};

/// What a phase says.
pub enum Next<K: Reconciled> {
    /// This, and the next phase.
    Go(Plan<K>),
    /// This, and no further phase.
    End(Plan<K>),
}

impl<K: Reconciled> Next<K> {
    /// Nothing, and the next phase.
    pub fn go() -> Self {
        Self::Go(Plan::default())
    }

    /// These writes, and the next phase.
    pub fn write(steps: impl IntoIterator<Item = Step<K>>) -> Self {
        Self::Go(Plan { steps: steps.into_iter().collect(), ..Plan::default() })
    }
}

/// A plan, and the phase that it ends in.
pub struct Planned<K: Reconciled> {
    /// Name of the phase.
    pub phase: &'static str,
    /// The plan.
    pub plan: Plan<K>,
}

/// A phase: its name, and what it says of what is known.
pub type Phase<I, K> = (&'static str, fn(&I) -> Next<K>);

/// What the phases say of what is known, up to the one that ends the plan.
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
