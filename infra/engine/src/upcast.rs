//! Upcasting: what was said stays said, but is read in today's words. Stored payloads are never rewritten; a chain of
//! steps, each from one schema version to the next, turns an old payload into the newest when it is read. A chain with a
//! gap is refused when it is built, not when the first old event turns up.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::event::UnreadableEvent;

/// From one schema version of a payload to the next; says what is wrong if the payload is not of its version. Pure.
pub type Step = fn(Value) -> Result<Value, String>;

/// Every event type, its newest schema version and the steps that lead there.
#[derive(Clone, Debug, Default)]
pub struct Upcasters {
    chains: BTreeMap<&'static str, Vec<Step>>,
}

/// Gathers types and steps.
#[derive(Clone, Debug, Default)]
pub struct UpcastersBuilder {
    newest: Vec<(&'static str, u16)>,
    steps: Vec<(&'static str, u16, Step)>,
}

/// Why steps make no chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChain {
    /// Nothing leads from this version to the next.
    #[error("nothing leads from {event_type} v{from} to the next version")]
    Gap {
        /// The type.
        event_type: &'static str,
        /// The version that cannot be left.
        from: u16,
    },
    /// Two steps leave this version.
    #[error("two steps lead from {event_type} v{from}")]
    Doubled {
        /// The type.
        event_type: &'static str,
        /// The version that two leave.
        from: u16,
    },
    /// A step leaves a version that is the newest, or later, or 0, or whose type was not named.
    #[error("a step leads from {event_type} v{from}, which is no older version of a known type")]
    Stray {
        /// The type.
        event_type: &'static str,
        /// The version that it leaves.
        from: u16,
    },
    /// The type was named twice, or with newest version 0.
    #[error("{event_type} must be named once, with a newest version of at least 1")]
    Misnamed {
        /// The type.
        event_type: &'static str,
    },
}

impl Upcasters {
    /// Starts with no types.
    pub fn builder() -> UpcastersBuilder {
        UpcastersBuilder::default()
    }

    /// The newest schema version of a type; `None` if the type is not known.
    pub fn newest(&self, event_type: &str) -> Option<u16> {
        let steps = self.chains.get(event_type)?;
        Some(u16::try_from(steps.len()).expect("there are fewer steps than schema versions") + 1)
    }

    /// Every type with its newest schema version, by name.
    pub fn types(&self) -> impl Iterator<Item = (&'static str, u16)> + '_ {
        self.chains.keys().filter_map(|&event_type| Some((event_type, self.newest(event_type)?)))
    }

    /// The payload in its newest version.
    pub fn upcast(&self, event_type: &str, schema_version: u16, payload: Value) -> Result<Value, UnreadableEvent> {
        let unreadable = |why: String| UnreadableEvent { event_type: event_type.to_owned(), schema_version, why };
        let steps = self.chains.get(event_type).ok_or_else(|| unreadable("no such type is known".to_owned()))?;
        let newest = steps.len() + 1;
        if schema_version == 0 || usize::from(schema_version) > newest {
            return Err(unreadable(format!("versions 1 to {newest} are known")));
        }
        steps.iter().zip(1_usize..).skip(usize::from(schema_version) - 1).try_fold(payload, |payload, (step, from)| {
            step(payload).map_err(|why| unreadable(format!("from v{from} to v{}: {why}", from + 1)))
        })
    }
}

impl UpcastersBuilder {
    /// Names a type and its newest schema version, from 1.
    #[must_use]
    pub fn event(mut self, event_type: &'static str, newest: u16) -> Self {
        self.newest.push((event_type, newest));
        self
    }

    /// The step that leads from schema version `from` of a type to `from + 1`.
    #[must_use]
    pub fn step(mut self, event_type: &'static str, from: u16, step: Step) -> Self {
        self.steps.push((event_type, from, step));
        self
    }

    /// The chains, if they have neither gaps nor strays.
    pub fn build(self) -> Result<Upcasters, InvalidChain> {
        let mut newest = BTreeMap::new();
        for (event_type, version) in self.newest {
            if version == 0 || newest.insert(event_type, version).is_some() {
                return Err(InvalidChain::Misnamed { event_type });
            }
        }
        let mut steps = BTreeMap::new();
        for (event_type, from, step) in self.steps {
            if from == 0 || newest.get(event_type).is_none_or(|&newest| from >= newest) {
                return Err(InvalidChain::Stray { event_type, from });
            }
            if steps.insert((event_type, from), step).is_some() {
                return Err(InvalidChain::Doubled { event_type, from });
            }
        }
        let mut chains = BTreeMap::new();
        for (event_type, newest) in newest {
            let chain = (1..newest)
                .map(|from| steps.get(&(event_type, from)).copied().ok_or(InvalidChain::Gap { event_type, from }))
                .collect::<Result<Vec<_>, _>>()?;
            chains.insert(event_type, chain);
        }
        Ok(Upcasters { chains })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]
mod tests {
    use serde_json::json;

    use super::*;

    /// Kettles had a volume in litres, then in millilitres, then a list of marks besides.
    fn kettles() -> UpcastersBuilder {
        Upcasters::builder()
            .event("KettleBoiled", 3)
            .event("KettleFilled", 1)
            .step("KettleBoiled", 2, |mut payload| {
                payload["marks"] = json!([]);
                Ok(payload)
            })
            .step("KettleBoiled", 1, |payload| {
                let litres = payload["litres"].as_u64().ok_or("litres are missing")?;
                Ok(json!({ "millilitres": litres * 1_000 }))
            })
    }

    fn why(result: Result<Value, UnreadableEvent>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn an_old_payload_is_read_in_the_newest_words() {
        let upcasters = kettles().build().unwrap();
        let newest = json!({ "millilitres": 2_000, "marks": [] });
        assert_eq!(upcasters.upcast("KettleBoiled", 1, json!({ "litres": 2 })), Ok(newest.clone()));
        assert_eq!(upcasters.upcast("KettleBoiled", 2, json!({ "millilitres": 2_000 })), Ok(newest.clone()));
        assert_eq!(upcasters.upcast("KettleBoiled", 3, newest.clone()), Ok(newest));
    }

    #[test]
    fn what_is_newest_is_not_touched() {
        let upcasters = kettles().build().unwrap();
        assert_eq!(upcasters.upcast("KettleFilled", 1, json!("anything")), Ok(json!("anything")));
    }

    #[test]
    fn types_and_versions_nobody_knows_are_refused() {
        let upcasters = kettles().build().unwrap();
        assert!(why(upcasters.upcast("KettleSold", 1, json!({}))).contains("no such type"));
        assert!(why(upcasters.upcast("KettleBoiled", 4, json!({}))).contains("versions 1 to 3"));
        assert!(why(upcasters.upcast("KettleBoiled", 0, json!({}))).contains("versions 1 to 3"));
    }

    #[test]
    fn a_payload_that_is_not_of_its_version_says_where_it_stopped() {
        let upcasters = kettles().build().unwrap();
        let told = why(upcasters.upcast("KettleBoiled", 1, json!({})));
        assert_eq!(told, "cannot read event KettleBoiled v1: from v1 to v2: litres are missing");
    }

    #[test]
    fn a_chain_with_a_gap_is_refused_when_built() {
        let gap = Upcasters::builder().event("KettleBoiled", 3).step("KettleBoiled", 2, Ok).build();
        assert_eq!(gap.unwrap_err(), InvalidChain::Gap { event_type: "KettleBoiled", from: 1 });
        let gap = Upcasters::builder().event("KettleBoiled", 3).step("KettleBoiled", 1, Ok).build();
        assert_eq!(gap.unwrap_err(), InvalidChain::Gap { event_type: "KettleBoiled", from: 2 });
    }

    #[test]
    fn steps_that_lead_nowhere_or_twice_are_refused_when_built() {
        let stray = |event_type, from| Err(InvalidChain::Stray { event_type, from });
        let doubled = |event_type, from| Err(InvalidChain::Doubled { event_type, from });
        let built = |builder: UpcastersBuilder| builder.build().map(drop);
        assert_eq!(built(kettles().step("KettleBoiled", 3, Ok)), stray("KettleBoiled", 3));
        assert_eq!(built(kettles().step("KettleBoiled", 0, Ok)), stray("KettleBoiled", 0));
        assert_eq!(built(kettles().step("KettleSold", 1, Ok)), stray("KettleSold", 1));
        assert_eq!(built(kettles().step("KettleBoiled", 1, Ok)), doubled("KettleBoiled", 1));
        let misnamed = Err(InvalidChain::Misnamed { event_type: "KettleBoiled" });
        assert_eq!(built(kettles().event("KettleBoiled", 3)), misnamed);
        assert_eq!(built(Upcasters::builder().event("KettleBoiled", 0)), misnamed);
    }

    #[test]
    fn the_types_are_told_with_their_newest_versions() {
        let upcasters = kettles().build().unwrap();
        assert_eq!(upcasters.types().collect::<Vec<_>>(), [("KettleBoiled", 3), ("KettleFilled", 1)]);
        assert_eq!(upcasters.newest("KettleSold"), None);
    }
}
