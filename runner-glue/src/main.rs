//! `jacamar`: the user side of Jacamar CI.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    jacamar_runner_glue::run()
}
