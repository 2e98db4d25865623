//! The examples of the README, which must compile like any other.

#[doc = include_str!("../README.md")]
struct Readme;
