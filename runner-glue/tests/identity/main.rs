//! `jacamar keys` and `jacamar verify` as they are shipped: real processes, with the descriptors of the contract.

mod call;
mod confined;
mod fetching;
mod spoiled;
mod unbelieved;
mod without_environment;
