//! What a store in PostgreSQL promises beyond the suite.
