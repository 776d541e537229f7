//! Every header, as it should be and as nobody should send it.
