//! Data of this program as JSON, as it is sent, compared and hashed. Pure.

use serde::Serialize;
use serde_json::Value;

/// Data of this program as JSON.
///
/// # Panics
/// Never: the keys of its maps are text. Nothing is sent in its place.
pub fn json(data: &impl Serialize) -> Value {
    serde_json::to_value(data).expect("data of this program serializes")
}

/// The same as text whose keys are sorted: what is equal is equal text.
pub fn text(data: &impl Serialize) -> String {
    json(data).to_string()
}

/// The same with the keys in their own order.
///
/// # Panics
/// Never, as [`json`].
pub fn in_order(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("data of this program serializes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Data {
        second: u8,
        first: u8,
    }

    #[test]
    fn equal_objects_have_equal_text() {
        let data = Data { second: 2, first: 1 };
        assert_eq!(text(&data), r#"{"first":1,"second":2}"#);
        assert_eq!(in_order(&data), r#"{"second":2,"first":1}"#);
    }
}
