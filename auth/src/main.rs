//! `jacamar-auth`: the privileged side of Jacamar CI.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    jacamar_auth::run()
}
