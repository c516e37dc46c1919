//! The configuration with which the CRS project runs its own tests, in our words.

/// To be loaded before the rules: all levels on, nothing blocked, the limits that tests count on.
pub const BEFORE: &str = include_str!("../crs/before.conf");

/// To be loaded after the rules: the line of the header that marks a test.
pub const AFTER: &str = include_str!("../crs/after.conf");
