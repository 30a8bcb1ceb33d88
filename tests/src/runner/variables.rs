//! A job's variables in order; the last one of a name wins.

use super::go;
use crate::gitlab::Variable;

#[derive(Clone, Debug, Default)]
pub(crate) struct Variables(Vec<Variable>);

impl Variables {
    pub(crate) fn new(all: Vec<Variable>) -> Variables {
        Variables(all)
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Variable> {
        self.0.iter()
    }

    /// The value, also of a file variable.
    pub(crate) fn value(&self, key: &str) -> String {
        self.look_up(key, false)
    }

    /// The value; of a file variable the path of its file.
    pub(crate) fn get(&self, key: &str) -> String {
        self.look_up(key, true)
    }

    fn look_up(&self, key: &str, paths: bool) -> String {
        match key {
            "$" => return "$".into(),
            "*" | "#" | "@" | "!" | "?" | "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" => {
                return String::new();
            }
            _ => {}
        }
        match self.0.iter().rev().find(|variable| variable.key == key) {
            Some(variable) if variable.file && paths => {
                go::join(&[&self.value("RUNNER_TEMP_PROJECT_DIR"), &variable.key])
            }
            Some(variable) => variable.value.clone(),
            None => String::new(),
        }
    }

    /// References in a text, replaced once.
    pub(crate) fn expand_value(&self, text: &str) -> String {
        go::expand(text, |name| self.get(name))
    }

    /// References in all values that are not raw, replaced once by values as they stood before.
    pub(crate) fn expand(&self) -> Variables {
        let expanded = self.0.iter().map(|variable| {
            let mut variable = variable.clone();
            if !variable.raw {
                variable.value = self.expand_value(&variable.value);
            }
            variable
        });
        Variables(expanded.collect())
    }

    /// Gives the first variable of this name another value.
    pub(crate) fn overwrite(&mut self, key: &str, value: &str) {
        if let Some(variable) = self.0.iter_mut().find(|variable| variable.key == key) {
            *variable =
                Variable { key: key.into(), value: value.into(), public: true, ..Variable::default() };
        }
    }

    pub(crate) fn masked(&self) -> Vec<String> {
        self.0.iter().filter(|variable| variable.masked).map(|variable| variable.value.clone()).collect()
    }
}
