//! Configuration from four places, each over the one before: defaults, a TOML file, the environment, `--set` on the command
//! line. Whoever uses it brings a table of [`Key`]s, which says of every key what it is for and what it may be. All faults
//! are told at once, and each names the place that set the value; an unknown key is refused and told its nearest known one.
//! Secrets are never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

mod key;
mod nearest;

pub use key::{Key, Kind};

/// The place of values that nobody set.
pub const DEFAULT: &str = "default";
/// The place of values from the command line.
const SET: &str = "--set";

/// What is wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{what}{}", .key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default(), .place.as_ref().map(|place| format!(" (set by {place})")).unwrap_or_default())]
pub struct ConfigFault {
    /// Which key; none if the fault is a whole file's.
    pub key: Option<String>,
    /// What is wrong with it.
    pub what: String,
    /// What set it.
    pub place: Option<String>,
}

/// Where values are looked for.
#[derive(Clone, Debug, Default)]
pub struct Places<'a> {
    /// A TOML file.
    pub file: Option<&'a Path>,
    /// What environment variables of ours begin with, such as `DOCKET_`; `__` separates tables.
    pub prefix: &'a str,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Variables with our prefix that are somebody else's: those whose name after it begins with one of these.
    pub not_ours: &'a [&'a str],
    /// `key=value`, from the command line.
    pub set: &'a [String],
}

/// The settings as they came together.
#[derive(Clone, Debug)]
pub struct Settings {
    keys: &'static [Key],
    prefix: String,
    figment: Figment,
}

/// One key as it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// Its name, with dots.
    pub key: &'static str,
    /// Its value, or what may be shown of it; null where there is none.
    pub value: serde_json::Value,
    /// What set it.
    pub source: String,
}

/// Values of one place.
struct Layer {
    name: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

impl Settings {
    /// Reads all places. `defaults` has a value for every key that has a default.
    ///
    /// # Errors
    /// With every fault of every place.
    pub fn load(
        keys: &'static [Key],
        defaults: &impl Serialize,
        places: &Places<'_>,
    ) -> Result<Self, Vec<ConfigFault>> {
        let mut faults = Vec::new();
        let mut layers = Vec::new();
        if let Some(file) = places.file {
            match read_file(file) {
                Ok(layer) => layers.push(layer),
                Err(fault) => faults.push(fault),
            }
        }
        layers.push(Layer { name: "environment".to_owned(), values: environment(keys, places, &mut faults) });
        layers.push(Layer { name: SET.to_owned(), values: command_line(keys, places.set, &mut faults) });
        let mut figment = Figment::from(Serialized::defaults(defaults));
        for layer in layers {
            for (path, value) in leaves(&layer.values, keys) {
                let place = place(&layer.name, places.prefix, &path);
                match keys.iter().find(|key| key.path == path) {
                    Some(key) => faults.extend(key.refuse(&value, place)),
                    None => faults.push(unknown(keys, &path, place)),
                }
            }
            figment = figment.merge(layer);
        }
        let settings = Self { keys, prefix: places.prefix.to_owned(), figment };
        if faults.is_empty() { Ok(settings) } else { Err(faults) }
    }

    /// The settings as the type that the table describes.
    ///
    /// # Errors
    /// If type and table do not agree; what the table allows is checked by [`load`](Self::load).
    pub fn extract<T: DeserializeOwned>(&self) -> Result<T, Vec<ConfigFault>> {
        self.figment.extract().map_err(|errors| {
            let told = errors.into_iter().map(|error| {
                let key = error.path.join(".");
                let place = error.metadata.as_ref().map(|metadata| place(&metadata.name, &self.prefix, &key));
                ConfigFault { key: Some(key), what: error.kind.to_string(), place }
            });
            told.collect()
        })
    }

    /// What set a key: `default`, a file, a variable, `--set`.
    pub fn source(&self, path: &str) -> String {
        match self.figment.find_metadata(path) {
            Some(metadata) if metadata.name.starts_with("file ") => metadata.name.clone().into_owned(),
            Some(metadata) if metadata.name == SET || metadata.name == "environment" => {
                place(&metadata.name, &self.prefix, path)
            }
            _ => DEFAULT.to_owned(),
        }
    }

    /// A fault of a key that is only seen beside others, told with what set it.
    pub fn fault(&self, path: &str, what: impl Into<String>) -> ConfigFault {
        ConfigFault { key: Some(path.to_owned()), what: what.into(), place: Some(self.source(path)) }
    }

    /// Every key with its value, or what may be shown of it, and what set it.
    pub fn all(&self) -> Vec<Setting> {
        let shown = self.keys.iter().map(|key| {
            let value = self.figment.find_value(key.path).ok().map(|value| key.shown(&value));
            Setting { key: key.path, value: value.unwrap_or_default(), source: self.source(key.path) }
        });
        shown.collect()
    }
}

fn read_file(file: &Path) -> Result<Layer, ConfigFault> {
    let fault = |what: String| ConfigFault { key: None, what, place: None };
    let text = std::fs::read_to_string(file)
        .map_err(|error| fault(format!("cannot read the configuration {}: {error}", file.display())))?;
    let mut data = Toml::string(&text).data().map_err(|error| {
        fault(format!("the configuration {} is no TOML: {}", file.display(), error.kind.to_string().trim()))
    })?;
    let values = data.remove(&Profile::Default).unwrap_or_default();
    Ok(Layer { name: format!("file {}", file.display()), values })
}

/// The variables that are ours. One whose first word is none of our tables and which has no `__` may be anybody's: only
/// those that are listed are taken for such, all others are refused like any unknown key.
fn environment(keys: &[Key], places: &Places<'_>, faults: &mut Vec<ConfigFault>) -> Dict {
    let mut values = Dict::new();
    for (name, text) in &places.environment {
        let Some(ours) = name.strip_prefix(places.prefix) else { continue };
        if places.not_ours.iter().any(|theirs| ours.starts_with(theirs)) || set_by_kubernetes(ours) {
            continue;
        }
        let path = ours.to_ascii_lowercase().replace("__", ".");
        if let Err(fault) = put(&mut values, keys, &path, text, name.clone()) {
            faults.push(fault);
        }
    }
    values
}

/// Kubernetes puts the addresses of services into the environment, with the service's name as prefix.
fn set_by_kubernetes(name: &str) -> bool {
    !name.contains("__")
        && (name.ends_with("SERVICE_HOST") || name.contains("SERVICE_PORT") || name == "PORT" || name.contains("PORT_"))
}

fn command_line(keys: &[Key], set: &[String], faults: &mut Vec<ConfigFault>) -> Dict {
    let mut values = Dict::new();
    for pair in set {
        let put = match pair.split_once('=') {
            Some((path, text)) => put(&mut values, keys, path.trim(), text.trim(), format!("--set {}", path.trim())),
            None => Err(ConfigFault { key: None, what: format!("--set takes key=value, not {pair:?}"), place: None }),
        };
        faults.extend(put.err());
    }
    values
}

/// Reads a text as its key wants it, so that a name that looks like a number stays a name.
fn put(values: &mut Dict, keys: &[Key], path: &str, text: &str, place: String) -> Result<(), ConfigFault> {
    let Some(key) = keys.iter().find(|key| key.path == path) else { return Err(unknown(keys, path, place)) };
    let value = key.read(text);
    let mut table = values;
    let mut words = path.split('.').peekable();
    while let Some(word) = words.next() {
        if words.peek().is_none() {
            table.insert(word.to_owned(), value);
            break;
        }
        let next = table.entry(word.to_owned()).or_insert_with(|| Value::from(Dict::new()));
        let Value::Dict(_, inner) = next else { break };
        table = inner;
    }
    Ok(())
}

/// All values with their paths. A table under a key that is no table stays whole, to be refused as what it is.
fn leaves(values: &Dict, keys: &[Key]) -> BTreeMap<String, Value> {
    fn walk(prefix: &str, values: &Dict, keys: &[Key], found: &mut BTreeMap<String, Value>) {
        for (name, value) in values {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                Value::Dict(_, inner) if !keys.iter().any(|key| key.path == path) => walk(&path, inner, keys, found),
                _ => drop(found.insert(path, value.clone())),
            }
        }
    }
    let mut found = BTreeMap::new();
    walk("", values, keys, &mut found);
    found
}

fn place(layer: &str, prefix: &str, path: &str) -> String {
    match layer {
        SET => format!("--set {path}"),
        "environment" => format!("{prefix}{}", path.to_ascii_uppercase().replace('.', "__")),
        other => other.to_owned(),
    }
}

fn unknown(keys: &[Key], path: &str, place: String) -> ConfigFault {
    let inside = keys.iter().filter_map(|key| key.path.strip_prefix(path)?.strip_prefix('.'));
    let inside = inside.map(|rest| rest.split('.').next().unwrap_or(rest)).collect::<BTreeSet<_>>();
    let what = if !inside.is_empty() {
        format!("is a table: set one of its keys ({})", inside.into_iter().collect::<Vec<_>>().join(", "))
    } else {
        match nearest::nearest(path, keys.iter().map(|key| key.path)) {
            Some(near) => format!("no such key; did you mean {near}?"),
            None => "no such key".to_owned(),
        }
    };
    ConfigFault { key: Some(path.to_owned()), what, place: Some(place) }
}

#[cfg(test)]
mod tests;
