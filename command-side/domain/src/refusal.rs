//! Ways to say no, from the shop's list of problem codes, so that status and name are said once.

use engine::decider::{Decision, Rejection};
use engine::message::FieldError;
use schemas::event::ShopEvent;
use schemas::problem::ShopCode;

/// What a command to the shop comes to.
pub(crate) type ShopDecision = Decision<ShopEvent>;

/// No, and why.
pub(crate) fn refuse(code: ShopCode, detail: impl Into<String>) -> ShopDecision {
    refuse_with(code, detail, Vec::new())
}

/// No, and why, fault by fault.
pub(crate) fn refuse_with(code: ShopCode, detail: impl Into<String>, errors: Vec<FieldError>) -> ShopDecision {
    Decision::Refuse(Rejection { status: code.status, code: code.name, detail: detail.into(), errors })
}

/// It can never be valid: one field is wrong in view of the resource.
pub(crate) fn invalid(pointer: &str, code: &'static str, detail: impl Into<String>) -> ShopDecision {
    Decision::Invalid(vec![FieldError::at(pointer, code, detail)])
}
