//! How far an exploration goes, and what may go wrong in it.

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    /// Slots are given without closing them: new work begins while they are drained.
    GrantWithoutDrain,
    /// The end of work is confirmed while some is in flight.
    ConfirmWhileInFlight,
    /// The right is counted from when answers came.
    RightFromAnswer,
    /// A fence does not name the version that it replaces.
    FenceWithoutVersion,
    /// A write does not name the version that it is based on.
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

/// How far the exploration goes.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) members: usize,
    pub(crate) slots: u16,
    /// Things that go wrong in one history.
    pub(crate) faults: u8,
    /// Clean stops in one history.
    pub(crate) stops: u8,
    /// Pieces of work in one history.
    pub(crate) works: u8,
    pub(crate) ticks: u8,
    /// What may happen to a request.
    pub(crate) mishaps: &'static [Mishap],
    pub(crate) broken: Option<Broken>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { members: 2, slots: 1, faults: 1, stops: 1, works: 2, ticks: 12, mishaps: Mishap::SILENT, broken: None }
    }
}

/// What may happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mishap {
    /// It never arrives.
    Lost,
    /// It stays on its way while time passes.
    Held,
    /// It arrives, its answer does not.
    AnswerLost,
    /// It arrives, its answer stays on its way.
    AnswerHeld,
    /// It never arrives, and the sender is told at once that nothing is known of it.
    Broken,
    /// It arrives, and the sender is told at once that nothing is known of it.
    AnswerBroken,
    /// The sender is told at once that nothing is known of it, and it stays on its way while time passes.
    HeldBroken,
}

impl Mishap {
    /// Those of which the sender hears nothing, or hears late.
    pub(crate) const SILENT: &'static [Self] = &[Self::Lost, Self::Held, Self::AnswerLost, Self::AnswerHeld];

    /// Those of which the sender hears at once that nothing is known.
    pub(crate) const TOLD: &'static [Self] = &[Self::Broken, Self::AnswerBroken, Self::HeldBroken];
}
