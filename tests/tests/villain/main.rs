//! What a member can do with its real keys, and what honest members make of it.

mod away;
mod crashes;
mod faults;
mod room;
mod table;
mod tools;
