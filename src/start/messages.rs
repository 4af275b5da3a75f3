//! Started messages.
