//! The fixed list of reasons in conditions and Events of SiteJobs.

use frappe_crds::job::JobOutcomeState;

use crate::controllers::reason::{self, Class};

/// A reason. Its name is shown to users and tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString)]
#[cfg_attr(test, derive(strum::VariantArray))]
pub enum Reason {
    /// It ended with exit code 0.
    JobSucceeded,
    /// Its Job is running.
    JobRunning,
    /// The Job's pod cannot be created, or does not start.
    JobNotStarting,
    /// It failed. It is not run again.
    JobFailed,
    /// It does not start while it is suspended.
    JobSuspended,
    /// The site does not exist.
    SiteNotFound,
    /// The site is not initialized, is suspended, or has another operation.
    SiteBusy,
    /// The bench is at its limit of concurrent site Jobs.
    WaitingForJobSlot,
    /// The command is not allowed.
    CommandRefused,
    /// A method or script of a site whose bench is in another namespace.
    CodeRefused,
    /// The arguments of the method are no JSON.
    ArgumentsInvalid,
}

impl Reason {
    /// The reason of an outcome.
    pub fn of_end(state: JobOutcomeState) -> Self {
        match state {
            JobOutcomeState::Succeeded => Self::JobSucceeded,
            JobOutcomeState::Failed => Self::JobFailed,
        }
    }

    /// The metric label `result` for a reason's name.
    pub fn counted(word: &str) -> Option<&'static str> {
        let known = [(Self::JobSucceeded, "succeeded"), (Self::JobFailed, "failed")];
        known.into_iter().find(|(it, _)| it.to_string() == word).map(|(_, counted)| counted)
    }
}

impl reason::Reason for Reason {
    fn class(self) -> Class {
        match self {
            Self::JobSucceeded => Class::Done,
            Self::JobRunning => Class::Working,
            Self::JobSuspended | Self::SiteBusy | Self::WaitingForJobSlot => Class::Waiting,
            Self::SiteNotFound | Self::CommandRefused | Self::CodeRefused | Self::ArgumentsInvalid => Class::Refused,
            Self::JobNotStarting | Self::JobFailed => Class::Failed,
        }
    }
}
