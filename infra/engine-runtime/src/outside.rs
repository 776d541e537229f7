//! The door to the outside world: calls that are not commands, such as to a payment gateway. The saga runner makes them
//! under the errand's id, again and again until one is answered, so whoever implements this must treat the id as a key:
//! the same id asks for the same thing and takes effect once.

use engine::message::CommandId;
use futures::future::BoxFuture;

/// Makes calls to the outside world.
pub trait Outside<C, Ret>: Send + Sync + 'static {
    /// Makes `call` under the key `id`. `Ok` is a definite answer; `Err` says in a sentence why there was none, for a
    /// reason that may pass: the call is made again under the same key.
    fn call(&self, id: CommandId, call: C) -> BoxFuture<'static, Result<Ret, String>>;
}

/// The outside of a business that never calls out.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOutside;

impl<C: Send + 'static, Ret: Send + 'static> Outside<C, Ret> for NoOutside {
    fn call(&self, _id: CommandId, _call: C) -> BoxFuture<'static, Result<Ret, String>> {
        Box::pin(std::future::ready(Err("there is no outside".to_owned())))
    }
}
