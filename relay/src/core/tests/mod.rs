//! The relay's rules, each positive and negative, against a real roster and fake MLS ciphertext.

mod append_rule;
mod directory;
mod evidence;
mod fixture;
mod governance;
mod groups;
mod membership;
mod nodes;
mod orders;
mod quotas;
mod records;
mod restarts;
mod stock;
mod storage;
mod subscriptions;
mod welcomes;
