//! When a reconcile that failed is retried, by the cause.

use std::{error::Error, time::Duration};

use crate::{gate::Refusal, lanes::runner::Outcome, layer::Stopped};

/// Wait before a member that may not act asks again.
pub const WAIT_FOR_RIGHT: Duration = Duration::from_secs(1);

impl Outcome {
    /// The outcome of a reconcile that failed with this error, by the first cause that says more:
    ///
    /// - refused by the gate: [`Outcome::After`] a second (if the slot was lost, it does not run again here);
    /// - 409 and 404, the object changed meanwhile: [`Outcome::Conflict`];
    /// - no response, 429 and 5xx: [`Outcome::Unavailable`];
    /// - everything else: [`Outcome::Failed`].
    pub fn of_error(error: &(dyn Error + 'static)) -> Self {
        let causes = || std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
        if let Some(stopped) = causes().find_map(|it| it.downcast_ref::<Stopped>()) {
            return match stopped {
                Stopped::Refused(Refusal::Suspended | Refusal::NotOwner) => Self::After(WAIT_FOR_RIGHT),
                Stopped::Timeout(_) => Self::Unavailable,
                Stopped::NoScope { .. } => Self::Failed,
            };
        }
        match causes().filter_map(|it| it.downcast_ref::<kube::Error>()).last() {
            Some(kube::Error::Api(status)) => match status.code {
                404 | 409 => Self::Conflict,
                429 | 500.. => Self::Unavailable,
                _ => Self::Failed,
            },
            Some(kube::Error::Service(_) | kube::Error::HyperError(_)) => Self::Unavailable,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn an_error_is_retried_by_its_cause() {
        let of = |error: kube::Error| Outcome::of_error(&error);
        let api = |code: u16| kube::Error::Api(Box::new(Status { code, ..Status::default() }));
        assert_eq!([409, 404].map(|code| of(api(code))), [Outcome::Conflict; 2]);
        assert_eq!([429, 500, 503].map(|code| of(api(code))), [Outcome::Unavailable; 3]);
        assert_eq!([400, 403, 422].map(|code| of(api(code))), [Outcome::Failed; 3]);
        assert_eq!(of(kube::Error::Service("away".into())), Outcome::Unavailable);
        let refused = || kube::Error::Service(Box::new(Stopped::Refused(Refusal::NotOwner)));
        assert_eq!(of(refused()), Outcome::After(WAIT_FOR_RIGHT));
        assert_eq!(of(kube::Error::Service(Box::new(refused()))), Outcome::After(WAIT_FOR_RIGHT), "two clients deep");
        assert_eq!(Outcome::of_error(&std::fmt::Error), Outcome::Failed);
    }
}
