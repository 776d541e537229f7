//! A toy business: jars that are filled up to a hundred, and trips, which fill a jar, ring a bell outside, and can be
//! woken by an alarm.

use engine::decider::{Context, Decider, Decision, States};
use engine::event::{ContentType, EncodedEvent, Event, EventMeta, UnreadableEvent};
use engine::message::{CommandId, FieldError, Portable};
use engine::position::Version;
use engine::saga::{Agenda, Ask, Heard, Pending, Reactor, Timer};
use engine::stream::StreamName;
use engine::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Wish {
    Add { jar: StreamName, amount: u64 },
    Nonsense { jar: StreamName },
    Explode { jar: StreamName },
    StartTrip { trip: StreamName, jar: StreamName },
    RecordFilled { trip: StreamName },
    RecordRung { trip: StreamName, answer: String },
    SetAlarm { trip: StreamName, due: Timestamp },
    Wake { trip: StreamName },
}

impl Portable for Wish {
    const FORMAT: u32 = 1;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Happened {
    Added { amount: u64 },
    Started { jar: StreamName },
    Filled,
    Rung { answer: String },
    AlarmSet { due: Timestamp },
    Woken,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Thing {
    Jar {
        filled: u64,
    },
    Trip {
        jar: Option<StreamName>,
        filled: bool,
        rung: Option<String>,
        alarm: Option<(Timestamp, Version)>,
        woken: u64,
    },
}

impl Thing {
    pub fn filled(&self) -> u64 {
        match self {
            Self::Jar { filled } => *filled,
            Self::Trip { .. } => panic!("a trip"),
        }
    }

    pub fn rung(&self) -> Option<&str> {
        match self {
            Self::Trip { rung, .. } => rung.as_deref(),
            Self::Jar { .. } => panic!("a jar"),
        }
    }

    pub fn woken(&self) -> u64 {
        match self {
            Self::Trip { woken, .. } => *woken,
            Self::Jar { .. } => panic!("a jar"),
        }
    }
}

impl Event for Happened {
    fn encode(&self) -> EncodedEvent {
        let event_type = match self {
            Self::Added { .. } => "Added",
            Self::Started { .. } => "Started",
            Self::Filled => "Filled",
            Self::Rung { .. } => "Rung",
            Self::AlarmSet { .. } => "AlarmSet",
            Self::Woken => "Woken",
        };
        EncodedEvent {
            event_type: event_type.into(),
            schema_version: 1,
            content_type: ContentType::Json,
            payload: serde_json::to_vec(self).unwrap().into(),
        }
    }

    fn decode(stored: &EncodedEvent) -> Result<Self, UnreadableEvent> {
        serde_json::from_slice(&stored.payload).map_err(|why| UnreadableEvent {
            event_type: stored.event_type.to_string(),
            schema_version: stored.schema_version,
            why: why.to_string(),
        })
    }
}

pub struct Business;

impl Decider for Business {
    type Command = Wish;
    type Event = Happened;
    type State = Thing;

    fn version(&self) -> u32 {
        1
    }

    fn streams(&self, command: &Wish) -> Vec<StreamName> {
        let stream = match command {
            Wish::Add { jar, .. } | Wish::Nonsense { jar } | Wish::Explode { jar } => jar,
            Wish::StartTrip { trip, .. }
            | Wish::RecordFilled { trip }
            | Wish::RecordRung { trip, .. }
            | Wish::SetAlarm { trip, .. }
            | Wish::Wake { trip } => trip,
        };
        vec![stream.clone()]
    }

    fn begins(&self, command: &Wish) -> bool {
        matches!(command, Wish::StartTrip { .. })
    }

    fn decide(&self, states: &States<'_, Thing>, command: &Wish, _context: &Context) -> Decision<Happened> {
        match (command, states.at(0)) {
            (Wish::Add { amount, .. }, state) => {
                let filled = state.map_or(0, Thing::filled);
                if filled + amount > 100 {
                    return Decision::refuse("jar-full", format!("there is room for {} only", 100 - filled));
                }
                let events = vec![(0, Happened::Added { amount: *amount })];
                if state.is_none() { Decision::create(events) } else { Decision::accept(events) }
            }
            (Wish::Nonsense { .. }, _) => {
                Decision::Invalid(vec![FieldError::at("/amount", "nonsense", "amounts are numbers")])
            }
            (Wish::Explode { .. }, _) => panic!("a decider with a mistake in it"),
            (Wish::StartTrip { jar, .. }, None) => Decision::create(vec![(0, Happened::Started { jar: jar.clone() })]),
            (Wish::RecordFilled { .. }, Some(Thing::Trip { filled: false, .. })) => {
                Decision::accept(vec![(0, Happened::Filled)])
            }
            (Wish::RecordRung { answer, .. }, Some(Thing::Trip { rung: None, .. })) => {
                Decision::accept(vec![(0, Happened::Rung { answer: answer.clone() })])
            }
            (Wish::SetAlarm { due, .. }, _) => Decision::accept(vec![(0, Happened::AlarmSet { due: *due })]),
            (Wish::Wake { .. }, Some(Thing::Trip { alarm: Some(_), .. })) => {
                Decision::accept(vec![(0, Happened::Woken)])
            }
            _ => Decision::nothing(),
        }
    }

    fn evolve(&self, state: Option<Thing>, event: &Happened, meta: &EventMeta) -> Thing {
        if let Happened::Added { amount } = event {
            return Thing::Jar { filled: state.as_ref().map_or(0, Thing::filled) + amount };
        }
        let new = Thing::Trip { jar: None, filled: false, rung: None, alarm: None, woken: 0 };
        let Thing::Trip { mut jar, mut filled, mut rung, mut alarm, mut woken } = state.unwrap_or(new) else {
            panic!("a jar does not travel");
        };
        match event {
            Happened::Added { .. } => {}
            Happened::Started { jar: which } => jar = Some(which.clone()),
            Happened::Filled => filled = true,
            Happened::Rung { answer } => rung = Some(answer.clone()),
            Happened::AlarmSet { due } => alarm = Some((*due, meta.version)),
            Happened::Woken => {
                alarm = None;
                woken += 1;
            }
        }
        Thing::Trip { jar, filled, rung, alarm, woken }
    }

    fn remembers(&self, _state: &Thing, _id: CommandId) -> Option<Version> {
        None
    }
}

pub fn step(stream: &StreamName, name: &str) -> CommandId {
    CommandId(Uuid::new_v5(&Uuid::NAMESPACE_OID, stream.as_str().as_bytes())).derive(name)
}

impl Reactor for Business {
    type Call = String;
    type Returned = String;

    fn react(&self, stream: &StreamName, _version: Version, state: &Thing) -> Agenda<Wish, String> {
        let Thing::Trip { jar, filled, rung, alarm, .. } = state else { return Agenda::default() };
        let mut agenda = Agenda::default();
        if let Some(jar) = jar {
            if !filled {
                let ask = Ask::Command(Wish::Add { jar: jar.clone(), amount: 1 });
                agenda.pending.push(Pending { id: step(stream, "fill"), not_before: None, ask });
            } else if rung.is_none() {
                let ask = Ask::Call("ring".to_owned());
                agenda.pending.push(Pending { id: step(stream, "ring"), not_before: None, ask });
            }
        }
        agenda.timer = alarm.map(|(due, armed_at)| Timer { due, armed_at });
        agenda
    }

    fn heard(
        &self,
        stream: &StreamName,
        _state: &Thing,
        pending: &Pending<Wish, String>,
        heard: &Heard<String>,
        _now: Timestamp,
    ) -> Option<(CommandId, Wish)> {
        let trip = stream.clone();
        let command = match heard {
            Heard::Outcome(..) => Wish::RecordFilled { trip },
            Heard::Returned(answer) => Wish::RecordRung { trip, answer: answer.clone() },
            Heard::Invalid(_) | Heard::Unreachable(_) => return None,
        };
        Some((pending.id.derive("outcome"), command))
    }

    fn fire(&self, stream: &StreamName, _state: &Thing, _timer: &Timer) -> Wish {
        Wish::Wake { trip: stream.clone() }
    }
}
