//! Turns `profiles/system-calls.toml` into a table: it is read where it is built, not at every start of a program.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use jacamar_plan::Answer;
use serde::Deserialize;

const FILE: &str = "../../profiles/system-calls.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[expect(dead_code, reason = "for those who read the file")]
    description: String,
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    call: BTreeMap<String, Entries>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entries {
    One(Entry),
    Several(Vec<Entry>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    answer: Answer,
    argument: Option<u8>,
    equals: Option<u32>,
    #[expect(dead_code, reason = "for those who read the file")]
    why: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FILE}");
    println!("cargo::rerun-if-changed=build.rs");
    let text = std::fs::read_to_string(FILE).map_err(|e| format!("{FILE}: {e}"))?;
    let groups: BTreeMap<String, Group> = toml::from_str(&text).map_err(|e| format!("{FILE}: {e}"))?;
    let mut table = String::from("[\n");
    for (name, group) in &groups {
        writeln!(table, "Group {{ name: {name:?}, include: &{:?}, calls: &[", group.include)?;
        for (call, entries) in &group.call {
            let entries = match entries {
                Entries::One(entry) => std::slice::from_ref(entry),
                Entries::Several(entries) => entries,
            };
            for Entry { answer, argument, equals, .. } in entries {
                let when = match (argument, equals) {
                    (Some(argument), Some(equals)) => {
                        format!("Some(Condition {{ argument: {argument}, equals: {equals} }})")
                    }
                    (None, None) => "None".to_owned(),
                    (Some(_), None) | (None, Some(_)) => {
                        return Err(format!("{FILE}: {name}: {call} has half a condition").into());
                    }
                };
                writeln!(table, "({call:?}, {when}, Answer::{answer:?}),")?;
            }
        }
        table.push_str("] },\n");
    }
    table.push_str("]\n");
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    std::fs::write(Path::new(&out).join("call_groups.rs"), table)?;
    Ok(())
}
