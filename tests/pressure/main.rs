//! The real binary under clients that ask too much, too slowly, too often, or nothing that makes sense. Each test has a
//! server of its own and takes its turn, because most look at the whole process: its memory, its open files, how long a
//! well-behaved client waits meanwhile. What is compared is compared within one run; times have generous bounds, so that a
//! busy machine fails nothing.

mod clients;
mod hostile;
mod hot_stock;
mod many;
mod overload;
mod patient;
mod sagas;
mod storms;
