//! Durations in specs.

use crate::text::text;

text! {
    /// A duration of hours, minutes and seconds, for example `1h30m`.
    Duration, {"maxLength": 16},
    "self.matches('^([0-9]{1,5}[hms]){1,3}$')",
    "must be hours, minutes and seconds, such as 1h30m or 300s"
}
