//! Bounds of an exploration, and its faults.

/// A rule of the protocol that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    /// Slots are handed over without closing them: new work starts while they are drained.
    GrantWithoutDrain,
    /// The end of work is confirmed while work is in flight.
    ConfirmWhileInFlight,
    /// The validity of the Lease is counted from the arrival of responses.
    RightFromAnswer,
    /// A fence has no precondition on the version.
    FenceWithoutVersion,
    /// A write has no precondition on the version.
    WriteWithoutVersion,
}

impl Broken {
    pub(crate) const EVERY: [Self; 5] = [
        Self::GrantWithoutDrain,
        Self::ConfirmWhileInFlight,
        Self::RightFromAnswer,
        Self::FenceWithoutVersion,
        Self::WriteWithoutVersion,
    ];
}

/// Bounds of an exploration.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) members: usize,
    pub(crate) slots: u16,
    /// Faults in one history.
    pub(crate) faults: u8,
    /// Clean stops in one history.
    pub(crate) stops: u8,
    /// Units of work in one history.
    pub(crate) works: u8,
    pub(crate) ticks: u8,
    /// Possible faults of a request.
    pub(crate) mishaps: &'static [Mishap],
    pub(crate) broken: Option<Broken>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { members: 2, slots: 1, faults: 1, stops: 1, works: 2, ticks: 12, mishaps: Mishap::SILENT, broken: None }
    }
}

/// A fault of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mishap {
    /// It never arrives.
    Lost,
    /// It is delayed while time passes.
    Held,
    /// It arrives, but its response is lost.
    AnswerLost,
    /// It arrives, but its response is delayed.
    AnswerHeld,
    /// It never arrives, and the sender gets an error with an unknown outcome at once.
    Broken,
    /// It arrives, and the sender gets an error with an unknown outcome at once.
    AnswerBroken,
    /// The sender gets an error with an unknown outcome at once, and the request is delayed while time passes.
    HeldBroken,
}

impl Mishap {
    /// Faults after which the sender gets no response or a late one.
    pub(crate) const SILENT: &'static [Self] = &[Self::Lost, Self::Held, Self::AnswerLost, Self::AnswerHeld];

    /// Faults after which the sender gets an error with an unknown outcome.
    pub(crate) const REPORTED: &'static [Self] = &[Self::Broken, Self::AnswerBroken, Self::HeldBroken];
}
