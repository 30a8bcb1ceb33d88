//! Every rule of authorization: alone, against every other list, and for any input.
#![forbid(unsafe_code)]

mod each_rule;
mod joblog_golden;
mod lessons;
mod lists;
mod properties;
mod samples;
