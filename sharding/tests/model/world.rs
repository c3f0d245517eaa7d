//! The explored model: members, their work, requests in flight, the server, and faults.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube_sharding::{
    Incarnation,
    map::{Content, Entry, Holding, SlotMap},
    member::Version,
    step::{Effect, Input, Member, Setup},
    timing::{Now, Timing},
};
use stateright::{Model, Property};

use crate::{
    bounds::{Bounds, Broken, Mishap},
    server::{IgnoredPreconditions, Request, Sender, Server},
};

/// Seconds of the model's Lease. A member may act for 8 of them, so that clock rates may differ by one tick in ten.
const LEASE: Duration = Duration::from_secs(10);

/// Most changes of the map in one history: with more, members would move the same slot endlessly.
const MAP_CHANGES_MAX: u64 = 20;

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    member: Member,
    sender: Sender,
    crashed: bool,
    paused: bool,
    /// Ticks by which its clock is ahead.
    ahead: u8,
    /// Whether its watch of the map has a new event.
    news: bool,
    /// Fault: its watches are stalled.
    cut: bool,
    /// Fault of its next request.
    armed: Option<Mishap>,
    /// Work in flight: its epoch, and the version of the object that was read.
    work: BTreeMap<Entry, (i64, u64)>,
    /// Drains whose work has not ended.
    drains: BTreeMap<u64, Vec<Entry>>,
    /// When the last responses to a renewal and a read of the map arrived.
    answered: Option<Duration>,
}

/// A request in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flight {
    from: usize,
    request: Request,
    /// It may be delayed while time passes.
    held: bool,
    /// Its sender already has an error with an unknown outcome: the response is dropped.
    forgotten: bool,
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    time: u8,
    faults: u8,
    stops: u8,
    works: u8,
    server: Server,
    processes: Vec<Process>,
    flights: Vec<Flight>,
    /// Delayed responses.
    answers: Vec<(usize, Input)>,
}

/// A transition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Tick,
    Apply(usize),
    /// Fault: the next request of the process has this fault.
    Arm(usize, Mishap),
    Answer(usize),
    Sync(usize),
    Begin(usize, Entry),
    /// Work sends its write and ends.
    Finish(usize, Entry),
    Stop(usize),
    /// Fault: the process is killed.
    Crash(usize),
    /// Fault: it is paused.
    Pause(usize),
    Resume(usize),
    /// Fault: its clock gains a tick.
    Gain(usize),
    /// Fault: its watches are stalled.
    Cut(usize),
}

/// The model.
pub(crate) struct World {
    pub(crate) bounds: Bounds,
}

impl State {
    fn now(&self, process: usize) -> Now {
        let at = Duration::from_secs(u64::from(self.time + self.processes[process].ahead));
        Now { certain: at, possible: at }
    }

    fn acts(&self, process: usize, broken: Option<Broken>) -> bool {
        let one = &self.processes[process];
        if one.crashed || !one.member.joined() {
            return false;
        }
        if broken == Some(Broken::RightFromAnswer) {
            return one.answered.is_some_and(|at| self.now(process).possible < at + LEASE * 12 / 15);
        }
        one.member.acts(self.now(process))
    }

    fn open(&self, process: usize, broken: Option<Broken>) -> Vec<(Entry, i64)> {
        let member = &self.processes[process].member;
        let mut open = member.open();
        if broken == Some(Broken::GrantWithoutDrain)
            && let Some(map) = member.map()
        {
            open = map.owned_by(member.incarnation()).collect();
        }
        open
    }

    /// The number of processes that may act on an entry now: with work in flight, or by starting work.
    fn actors(&self, entry: Entry, broken: Option<Broken>) -> usize {
        (0..self.processes.len())
            .filter(|process| {
                let works = self.processes[*process].work.contains_key(&entry);
                self.acts(*process, broken)
                    && (works || self.open(*process, broken).iter().any(|(open, _)| *open == entry))
            })
            .count()
    }

    /// Gives an input to a member, and executes its effects.
    fn input(&mut self, process: usize, input: Input, broken: Option<Broken>) {
        let now = self.now(process);
        if matches!(input, Input::Renewed(_, Ok(_))) {
            self.processes[process].answered = Some(now.possible);
        }
        let effects = self.processes[process].member.step(input, now);
        for effect in effects {
            match effect {
                Effect::Drain(drain, entries) => {
                    self.processes[process].drains.insert(drain, entries.into_iter().collect());
                }
                Effect::End(_) => {
                    // Work is dropped; requests in flight remain.
                    self.processes[process].crashed = true;
                    self.processes[process].work.clear();
                }
                Effect::Elect => {}
                effect => self.send(process, Request::Protocol(effect), broken),
            }
        }
        self.confirm(process, broken);
    }

    /// Executes most requests at once, since they are ordered by the steps that sent them. Requests that change the map or another
    /// member's Lease are executed in any order; so are those that a fault delays.
    fn send(&mut self, from: usize, request: Request, broken: Option<Broken>) {
        let contested =
            matches!(&request, Request::Protocol(Effect::WriteMap { .. } | Effect::Fence(_) | Effect::DeleteLease(..)));
        let flight = |held| Flight { from, request: request.clone(), held, forgotten: false };
        match self.processes[from].armed.take() {
            Some(Mishap::Lost) => {}
            Some(Mishap::Held) => self.flights.push(flight(true)),
            Some(Mishap::AnswerLost) => drop(self.carry_out(from, &request, broken)),
            Some(Mishap::AnswerHeld) => {
                let answer = self.carry_out(from, &request, broken);
                self.answers.extend(answer.map(|answer| (from, answer)));
            }
            Some(Mishap::Broken) => self.fail_with_unknown_outcome(from, &request, broken),
            Some(Mishap::AnswerBroken) => {
                self.carry_out(from, &request, broken);
                self.fail_with_unknown_outcome(from, &request, broken);
            }
            Some(Mishap::HeldBroken) => {
                self.flights.push(Flight { forgotten: true, ..flight(true) });
                self.fail_with_unknown_outcome(from, &request, broken);
            }
            None if contested => self.flights.push(flight(false)),
            None => {
                if let Some(answer) = self.carry_out(from, &request, broken) {
                    self.input(from, answer, broken);
                }
            }
        }
    }

    /// Gives the sender an error with an unknown outcome.
    fn fail_with_unknown_outcome(&mut self, from: usize, request: &Request, broken: Option<Broken>) {
        if let Some(answer) = request.unknown_outcome() {
            self.input(from, answer, broken);
        }
    }

    fn carry_out(&mut self, from: usize, request: &Request, broken: Option<Broken>) -> Option<Input> {
        let ignored = IgnoredPreconditions {
            fence: broken == Some(Broken::FenceWithoutVersion),
            write: broken == Some(Broken::WriteWithoutVersion),
        };
        let sender = self.processes[from].sender.clone();
        let before = self.server.map.as_ref().map(|map| map.version.number);
        let answer = self.server.apply(&sender, request, ignored);
        if self.server.map.as_ref().map(|map| map.version.number) != before {
            self.processes.iter_mut().for_each(|one| one.news = true);
        }
        answer
    }

    fn apply(&mut self, index: usize, broken: Option<Broken>) {
        let flight = self.flights.remove(index);
        let answer = self.carry_out(flight.from, &flight.request, broken);
        let one = &self.processes[flight.from];
        match answer {
            _ if flight.forgotten => {}
            Some(answer) if one.paused => self.answers.push((flight.from, answer)),
            Some(answer) if !one.crashed => self.input(flight.from, answer, broken),
            _ => {}
        }
    }

    fn confirm(&mut self, process: usize, broken: Option<Broken>) {
        let one = &self.processes[process];
        let unchecked = matches!(broken, Some(Broken::ConfirmWhileInFlight | Broken::GrantWithoutDrain));
        let done = |entries: &Vec<Entry>| unchecked || entries.iter().all(|it| !one.work.contains_key(it));
        let ended: Vec<u64> = one.drains.iter().filter(|(_, entries)| done(entries)).map(|(drain, _)| *drain).collect();
        for drain in ended {
            self.processes[process].drains.remove(&drain);
            self.input(process, Input::Drained(drain), broken);
        }
    }

    fn sync_map(&mut self, process: usize, broken: Option<Broken>) {
        self.processes[process].news = false;
        let map = self.server.map.clone();
        let told = map.map_or(Input::MapGone(self.server.map_version), Input::MapSeen);
        self.input(process, told, broken);
    }

    /// Watches are at most one tick late, unless they are stalled.
    fn sync(&mut self, process: usize, broken: Option<Broken>) {
        let leases = self.server.leases.values().cloned().collect();
        self.input(process, Input::LeasesListed(leases), broken);
        self.sync_map(process, broken);
    }
}

impl World {
    fn member(&self, index: usize) -> Process {
        let incarnation = Incarnation::new(&format!("pod-{index}"), "1");
        let lease: Arc<str> = format!("member-{index}").into();
        let timing = Timing {
            lease_duration: LEASE,
            renew_interval: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(1),
            drain_max: Duration::from_secs(20),
            debounce: Duration::ZERO,
            coordinator_tenure: Duration::from_secs(100),
        };
        let setup = Setup {
            incarnation: incarnation.clone(),
            lease_name: Arc::clone(&lease),
            template: String::new(),
            slots: self.bounds.slots,
            timing,
        };
        Process {
            member: Member::new(setup),
            sender: Sender { incarnation, lease },
            crashed: false,
            paused: false,
            ahead: 0,
            news: false,
            cut: false,
            armed: None,
            work: BTreeMap::new(),
            drains: BTreeMap::new(),
            answered: None,
        }
    }
}

/// A map in which the first member owns everything: earlier states are covered by the simulation.
fn begun(slots: u16, owner: &Incarnation) -> SlotMap {
    let holding = Holding { owner: Some(owner.clone()), epoch: 1 };
    SlotMap {
        version: Version { uid: "map".into(), number: 1 },
        created_seconds: 0,
        content: Content { generation: 1, holdings: vec![holding; usize::from(slots) + 1] },
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let processes: Vec<Process> = (0..self.bounds.members).map(|index| self.member(index)).collect();
        let map = begun(self.bounds.slots, &processes[0].sender.incarnation);
        let objects = vec![(1, 1); usize::from(self.bounds.slots) + 1];
        let server = Server { map_version: 1, map: Some(map), objects, ..Server::default() };
        let mut state = State {
            time: 0,
            faults: self.bounds.faults,
            stops: self.bounds.stops,
            works: self.bounds.works,
            server,
            processes,
            flights: Vec::new(),
            answers: Vec::new(),
        };
        // The first process is a member at the start of the exploration.
        state.input(0, Input::Synced, None);
        state.sync(0, None);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let fault = state.faults > 0;
        actions.extend((0..state.flights.len()).map(Action::Apply));
        actions.extend(
            (0..state.answers.len()).filter(|it| !state.processes[state.answers[*it].0].paused).map(Action::Answer),
        );
        if state.time < self.bounds.ticks && state.flights.iter().all(|it| it.held) {
            actions.push(Action::Tick);
        }
        for (index, one) in state.processes.iter().enumerate().filter(|(_, one)| !one.crashed) {
            if one.paused {
                actions.push(Action::Resume(index));
                continue;
            }
            if one.news && !one.cut {
                actions.push(Action::Sync(index));
            }
            let acts = state.acts(index, self.bounds.broken);
            // Work is only on the first slot: the others are equivalent.
            let open = state.open(index, self.bounds.broken);
            if acts
                && state.works > 0
                && open.iter().any(|(entry, _)| entry.0 == 0)
                && !one.work.contains_key(&Entry(0))
            {
                actions.push(Action::Begin(index, Entry(0)));
            }
            actions.extend(one.work.keys().filter(|_| acts).map(|entry| Action::Finish(index, *entry)));
            if state.stops > 0 && one.member.joined() {
                actions.push(Action::Stop(index));
            }
            if fault && one.member.joined() {
                actions.extend([Action::Crash(index), Action::Pause(index)]);
                if one.armed.is_none() {
                    actions.extend(self.bounds.mishaps.iter().map(|mishap| Action::Arm(index, *mishap)));
                }
                if !one.cut {
                    actions.push(Action::Cut(index));
                }
                if one.ahead == 0 && state.time >= 10 {
                    actions.push(Action::Gain(index));
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let broken = self.bounds.broken;
        match action {
            Action::Tick => self.tick(&mut state),
            Action::Apply(index) => state.apply(index, broken),
            Action::Answer(index) => {
                let (process, input) = state.answers.remove(index);
                if !state.processes[process].crashed {
                    state.input(process, input, broken);
                }
            }
            Action::Sync(index) => state.sync_map(index, broken),
            Action::Begin(index, entry) => {
                let epoch = state.open(index, broken).iter().find(|(open, _)| *open == entry)?.1;
                state.works -= 1;
                let version = state.server.objects[usize::from(entry.0)].0;
                state.processes[index].work.insert(entry, (epoch, version));
            }
            Action::Finish(index, entry) => {
                let (epoch, on) = state.processes[index].work.remove(&entry)?;
                state.send(index, Request::Write { entry, on, epoch }, broken);
                state.confirm(index, broken);
            }
            Action::Stop(index) => {
                state.stops -= 1;
                state.input(index, Input::Stop, broken);
            }
            Action::Resume(index) => {
                state.processes[index].paused = false;
                state.input(index, Input::Tick, broken);
            }
            fault => state.fault(&fault),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one member acts", |world: &World, state: &State| {
                (0..=world.bounds.slots).all(|entry| state.actors(Entry(entry), world.bounds.broken) <= 1)
            }),
            Property::always("the map stops changing", |_: &World, state: &State| {
                state.server.map_version < MAP_CHANGES_MAX
            }),
            Property::always("late writes have no effect", |_: &World, state: &State| !state.server.overwritten),
        ]
    }
}

impl World {
    fn tick(&self, state: &mut State) {
        state.time += 1;
        for index in 0..state.processes.len() {
            let one = &state.processes[index];
            if one.crashed || one.paused {
                continue;
            }
            // The second and later members start one tick apart.
            if usize::from(state.time) < index {
                continue;
            }
            if !one.cut {
                state.sync(index, self.bounds.broken);
            }
            let input = if usize::from(state.time) == index { Input::Synced } else { Input::Tick };
            state.input(index, input, self.bounds.broken);
        }
    }
}

impl State {
    fn fault(&mut self, action: &Action) {
        self.faults -= 1;
        match *action {
            Action::Arm(index, mishap) => self.processes[index].armed = Some(mishap),
            Action::Crash(index) => {
                self.processes[index].crashed = true;
                self.processes[index].work.clear();
            }
            Action::Pause(index) => self.processes[index].paused = true,
            Action::Gain(index) => self.processes[index].ahead += 1,
            Action::Cut(index) => self.processes[index].cut = true,
            _ => {}
        }
    }
}
