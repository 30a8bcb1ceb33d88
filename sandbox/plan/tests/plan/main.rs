//! The planner and the checker, for hosts and profiles of every kind. Pure: no privilege, no kernel.

mod any;
mod checker;
mod deaths;
mod limits;
mod planner;
mod sample;
