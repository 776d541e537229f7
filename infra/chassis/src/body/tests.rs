//! Commands and reads on their way in.
