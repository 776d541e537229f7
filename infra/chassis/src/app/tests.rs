//! Apps without a socket.
