//! What a controller with caches of its own asks to be reconciled again, beneath the builder.

use std::{
    future::ready,
    sync::{Arc, Mutex},
};

use kube_sharding::{
    Outcome, SLOTS, Sharded, SlotSet, Work,
    controller::Controller,
    readiness::{Awaits, Source},
    session::Session,
    sharded::Again,
};
use kube_sharding_sim::{Fleet, in_virtual_time};
use tokio::{sync::watch, time::sleep};

use super::{SETTLED, names, server};

/// What a replica was told to queue.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Slots(usize),
    Coordinator,
}

/// What a test changes, and what comes of it.
#[derive(Clone)]
struct World {
    present: Arc<watch::Sender<bool>>,
    again: Arc<Mutex<Again>>,
    told: Arc<Mutex<Vec<Told>>>,
}

/// A controller whose one kind is listed, while it exists.
struct Own(World, watch::Sender<SlotSet>);

impl Work for Own {
    fn watches(self: &Arc<Self>, _: &Session) -> Vec<Source> {
        let source = Source::new(self.1.subscribe(), [Awaits::Slots, Awaits::Coordinator]);
        vec![source.while_present(self.0.present.subscribe())]
    }

    fn listed(&self) -> Again {
        *self.0.again.lock().unwrap()
    }

    fn gained(&self, slots: &SlotSet) {
        if !slots.is_empty() {
            self.0.told.lock().unwrap().push(Told::Slots(slots.len()));
        }
    }

    fn coordinates(&self) {
        self.0.told.lock().unwrap().push(Told::Coordinator);
    }
}

/// A kind comes or goes, which changes what all others mean: everything is queued again, if the controller says so.
#[test]
fn what_work_asks_for_is_queued_again() {
    in_virtual_time(7, async {
        let world = World { present: Arc::new(watch::Sender::new(true)), again: Arc::default(), told: Arc::default() };
        let given = world.clone();
        let mut fleet = Fleet::new(7, &server(0), names(), move |connection, settings| {
            let given = given.clone();
            let begin = move |_: &Session| Own(given.clone(), watch::Sender::new(SlotSet::ALL));
            let controller = Controller::new("own", 1, |_, _, _, _| ready(Outcome::Done));
            Sharded::new(connection, settings, begin).controller(controller).run()
        });
        fleet.start();
        sleep(SETTLED).await;
        let told = || std::mem::take(&mut *world.told.lock().unwrap());
        assert!(told().contains(&Told::Coordinator), "it owns everything");
        let after = async |again: Again| {
            *world.again.lock().unwrap() = again;
            world.present.send_modify(|present| *present = !*present);
            sleep(SETTLED).await;
            told()
        };
        assert_eq!(after(Again::default()).await, []);
        assert_eq!(after(Again { slots: true, coordinator: false }).await, [Told::Slots(SLOTS)]);
        assert_eq!(after(Again { slots: false, coordinator: true }).await, [Told::Coordinator]);
    });
}
