//! A real server and raw clients.
