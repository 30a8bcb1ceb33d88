//! What `config_exec` printed, read as Go reads JSON: keys in any case, `null` is nothing, the last one wins.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// The answer of `config_exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConfigOutput {
    pub(crate) driver_name: Option<String>,
    pub(crate) driver_version: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) builds_dir: Option<String>,
    pub(crate) cache_dir: Option<String>,
    pub(crate) builds_dir_is_shared: Option<bool>,
    pub(crate) shell: Option<String>,
    pub(crate) job_env: Option<BTreeMap<String, String>>,
}

/// An object with its members in the order of the text, or anything else.
enum Top {
    Object(Vec<(String, Value)>),
    Null,
    Other(&'static str),
}

struct TopVisitor;

impl<'de> Visitor<'de> for TopVisitor {
    type Value = Top;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry::<String, Value>()? {
            members.push(member);
        }
        Ok(Top::Object(members))
    }

    fn visit_unit<E>(self) -> Result<Top, E> {
        Ok(Top::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Top, E> {
        Ok(Top::Other("bool"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Top, E> {
        Ok(Top::Other("number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Top, E> {
        Ok(Top::Other("number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Top, E> {
        Ok(Top::Other("number"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Top, E> {
        Ok(Top::Other("string"))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Top, A::Error> {
        while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(Top::Other("array"))
    }
}

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Top, D::Error> {
        deserializer.deserialize_any(TopVisitor)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn mismatch(value: &Value, field: &str, wanted: &str) -> String {
    format!(
        "json: cannot unmarshal {} into Go struct field ConfigExecOutput.{field} of type {wanted}",
        kind(value)
    )
}

impl ConfigOutput {
    /// Reads the output; nothing at all changes nothing.
    pub(crate) fn parse(output: &[u8]) -> Result<ConfigOutput, String> {
        let mut answer = ConfigOutput::default();
        if output.is_empty() {
            return Ok(answer);
        }
        let text = String::from_utf8_lossy(output);
        let mut stream = serde_json::Deserializer::from_str(&text).into_iter::<Top>();
        let top = match stream.next() {
            None => return Err("unexpected end of JSON input".into()),
            Some(Err(error)) if error.is_eof() => return Err("unexpected end of JSON input".into()),
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(top)) => top,
        };
        let rest = text.get(stream.byte_offset()..).unwrap_or_default();
        if let Some(next) = rest.trim_start_matches([' ', '\t', '\r', '\n']).chars().next() {
            return Err(format!("invalid character '{next}' after top-level value"));
        }
        match top {
            Top::Null => Ok(answer),
            Top::Other(kind) => {
                Err(format!("json: cannot unmarshal {kind} into Go value of type custom.ConfigExecOutput"))
            }
            Top::Object(members) => {
                // Go reads on after a wrong type and reports the first one at the end.
                let mut first_error = None;
                for (key, value) in &members {
                    if let Err(error) = answer.take(key, value) {
                        first_error.get_or_insert(error);
                    }
                }
                first_error.map_or(Ok(answer), Err)
            }
        }
    }

    fn take(&mut self, key: &str, value: &Value) -> Result<(), String> {
        match key.to_lowercase().as_str() {
            "hostname" => text(&mut self.hostname, "hostname", value),
            "builds_dir" => text(&mut self.builds_dir, "builds_dir", value),
            "cache_dir" => text(&mut self.cache_dir, "cache_dir", value),
            "shell" => text(&mut self.shell, "shell", value),
            "builds_dir_is_shared" => match value {
                Value::Null => {
                    self.builds_dir_is_shared = None;
                    Ok(())
                }
                Value::Bool(shared) => {
                    self.builds_dir_is_shared = Some(*shared);
                    Ok(())
                }
                other => Err(mismatch(other, "builds_dir_is_shared", "bool")),
            },
            "driver" => self.take_driver(value),
            "job_env" => self.take_job_env(value),
            _ => Ok(()),
        }
    }

    fn take_driver(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::Null => {
                (self.driver_name, self.driver_version) = (None, None);
                Ok(())
            }
            Value::Object(members) => {
                for (key, value) in members {
                    match key.to_lowercase().as_str() {
                        "name" => text(&mut self.driver_name, "driver.name", value)?,
                        "version" => text(&mut self.driver_version, "driver.version", value)?,
                        _ => {}
                    }
                }
                Ok(())
            }
            other => Err(mismatch(other, "driver", "api.DriverInfo")),
        }
    }

    fn take_job_env(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::Null => {
                self.job_env = None;
                Ok(())
            }
            Value::Object(members) => {
                let mut result = Ok(());
                let env = self.job_env.get_or_insert_default();
                for (key, value) in members {
                    match value {
                        Value::String(text) => drop(env.insert(key.clone(), text.clone())),
                        Value::Null => drop(env.insert(key.clone(), String::new())),
                        other => result = result.and(Err(mismatch(other, "job_env", "string"))),
                    }
                }
                result
            }
            other => Err(mismatch(other, "job_env", "map[string]string")),
        }
    }
}

fn text(into: &mut Option<String>, field: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::Null => *into = None,
        Value::String(text) => *into = Some(text.clone()),
        other => return Err(mismatch(other, field, "string")),
    }
    Ok(())
}
