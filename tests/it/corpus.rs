//! The corpus: requests that two servers could read in two ways, byte for byte, each followed on its connection by a
//! request that is right. Each case says what the gateway answered and what the upstream saw, and nothing reaches an
//! upstream in another way than the gateway saw it. `tests/it/attack` has cases with checks of their own.

mod format;
mod h1;
mod h2;
mod library;
mod parsers;
mod recorder;
