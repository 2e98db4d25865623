//! What the benches share: how to measure ([`harness`]) and what to measure against ([`baselines`]).
//!
//! Every bench is a binary of its own and uses a part of this, hence the `allow`.
#![allow(dead_code)]

pub(crate) mod baselines;
pub(crate) mod harness;
