//! Makes Rust of `proto/`, without a `protoc` on the machine.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/shards.proto");
    let descriptors = protox::compile(["proto/shards.proto"], ["proto"])?;
    // Bytes as slices of the received message rather than copies.
    tonic_prost_build::configure().bytes(".").emit_rerun_if_changed(false).compile_fds(descriptors)?;
    Ok(())
}
