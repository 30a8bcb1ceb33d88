//! Small C programs of tests, compiled when they are needed: raw system calls that safe Rust cannot make. A Rust
//! toolchain has a C compiler beside it, for it links with one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use super::{BIN, Host};

/// Compiles `tests/attacks/NAME.c` and installs it on a host; its path there.
///
/// # Panics
/// Without a C compiler.
#[must_use]
pub fn compile(host: &Host, name: &str) -> String {
    static DONE: LazyLock<Mutex<BTreeMap<(u32, String), ()>>> = LazyLock::new(Mutex::default);
    let target = format!("{BIN}/{name}");
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    done.entry((host.base.0.id(), name.to_owned())).or_insert_with(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks").join(name).with_extension("c");
        let text = fs::read(&source).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
        // Compiled from standard input: the source tree cannot be seen in the namespace if it lies in /home.
        let line = format!("cc -O1 -Wall -Werror -x c -o {target}.new - && mv {target}.new {target}");
        let mut command: Command = host.as_root(&["sh", "-c", &line]);
        command.stdin(Stdio::piped());
        let mut started = super::Started::new(command);
        started.feed(&text);
        let ran = started.finish();
        assert_eq!(ran.code, 0, "{ran}");
    });
    target
}
