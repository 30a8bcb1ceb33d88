//! Lines of ours in the job log. Whoever closed it reads no message, and the exit code says the same.

use std::io::Write;

use jacamar_contract::joblog::message;
use jacamar_plan::Refusal;

/// A "no", on descriptor 2.
pub(super) fn refusal(refusal: &Refusal, support_contact: &str) {
    error(&message(refusal, support_contact));
}

/// One line on descriptor 2.
pub(super) fn line(text: &str) {
    error(&format!("jacamar: {text}\n"));
}

fn error(text: &str) {
    match std::io::stderr().write_all(text.as_bytes()) {
        Ok(()) | Err(_) => {}
    }
}

/// Text on descriptor 1.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) | Err(_) => {}
    }
}
