//! What the benches share: how to measure ([`harness`]), what to measure ([`feeds`]), what to measure
//! against ([`baselines`], [`ceiling`]), and how to measure in a process of its own ([`fresh`]).
//!
//! Every bench is a binary of its own and uses a part of this, hence the `allow`.
#![allow(dead_code)]

pub(crate) mod baselines;
pub(crate) mod ceiling;
pub(crate) mod feeds;
pub(crate) mod fresh;
pub(crate) mod harness;
