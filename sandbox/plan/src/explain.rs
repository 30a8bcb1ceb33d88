//! A plan in words, for people and as JSON.

use std::fmt;

use serde::Serialize;

use crate::{Key, Phase, Plan, Step, Without};

/// What `explain` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Name of the account.
    pub account: String,
    /// Name of the profile.
    pub profile: String,
    /// Level.
    pub level: String,
    /// Stage.
    pub stage: String,
    /// Every step, in order.
    pub steps: Vec<ExplainedStep>,
    /// Variables for the command that has none of that name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// What is missing, and why.
    pub without: Vec<Without>,
}

/// One step in words.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedStep {
    /// Phase.
    pub phase: Phase,
    /// The step.
    pub step: String,
    /// What the kernel is asked, in the words of strace(1).
    pub calls: Vec<String>,
    /// What in the profile asked for it; empty for what every job gets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

/// A key of the profile, and where it is written.
#[derive(Clone, Debug, Serialize)]
pub struct Reason {
    /// Key.
    pub key: Key,
    /// File and line.
    pub origin: String,
}

/// Puts a plan into words.
#[must_use]
pub fn explain(plan: &Plan) -> Explanation {
    let explained = |(phase, step): &(Phase, Step)| {
        let reason = |key| {
            let origin = step.origin().or_else(|| plan.origin.get(&key))?;
            Some(Reason { key, origin: origin.to_string() })
        };
        ExplainedStep {
            phase: *phase,
            step: step.to_string(),
            calls: step.calls(),
            reasons: step.keys().into_iter().filter_map(reason).collect(),
        }
    };
    Explanation {
        account: plan.account.clone(),
        profile: plan.profile.clone(),
        level: plan.level.to_string(),
        stage: plan.stage.to_string(),
        steps: plan.phased_steps().iter().map(explained).collect(),
        environment: plan.execute.environment.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        without: plan.without.clone(),
    }
}

impl Explanation {
    /// As JSON, one object, for programs.
    ///
    /// # Errors
    /// None that could occur: the type has no map with other keys than text.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// As `explain` prints it, with its last line end.
    ///
    /// # Errors
    /// As [`Explanation::to_json`].
    pub fn to_text(&self, json: bool) -> Result<String, serde_json::Error> {
        if json { Ok(self.to_json()? + "\n") } else { Ok(self.to_string()) }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} for {}, profile {}, level {}", self.stage, self.account, self.profile, self.level)?;
        for phase in Phase::ALL {
            let steps: Vec<&ExplainedStep> = self.steps.iter().filter(|step| step.phase == phase).collect();
            if steps.is_empty() {
                continue;
            }
            writeln!(f, "\n{phase}")?;
            for step in steps {
                let reason = |Reason { key, origin }: &Reason| format!("{key}, {origin}");
                let reasons: Vec<String> = step.reasons.iter().map(reason).collect();
                match reasons.as_slice() {
                    [] => writeln!(f, "  {}", step.step)?,
                    _ => writeln!(f, "  {:<72} {}", step.step, reasons.join("; "))?,
                }
            }
        }
        if !self.environment.is_empty() {
            f.write_str("\nenvironment, where the command has none\n")?;
        }
        for pair in &self.environment {
            writeln!(f, "  {pair}")?;
        }
        if !self.without.is_empty() {
            f.write_str("\n")?;
        }
        for without in &self.without {
            writeln!(f, "without {}: {}", without.what, without.reason)?;
        }
        Ok(())
    }
}
