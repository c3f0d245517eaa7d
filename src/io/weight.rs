//! What an object takes in memory, which may be a hundred times its JSON: `{"":0}` is seven bytes of text, and a node
//! of a map with room for eleven entries.

use std::fmt;

use serde::ser::{self, Serialize};

/// A value, beside its text.
const VALUE: usize = 32;
/// A map: its first node.
const MAP: usize = 640;
/// The name of an entry, beside its text.
const NAME: usize = 24;
/// Room that a list has beside its first item: it begins with room for four.
const LIST: usize = 96;
/// A struct beside its fields, also where these are omitted: the larger of those that lists of a spec have.
const STRUCT: usize = 160;

/// Bytes that a value takes in memory, nearly.
pub(super) fn of(value: &impl Serialize) -> usize {
    let mut weight = Weight(0);
    // What cannot be written can be of any size.
    value.serialize(&mut weight).map_or(usize::MAX, |()| weight.0)
}

struct Weight(usize);

impl Weight {
    #[allow(clippy::unnecessary_wraps, reason = "the form that a serializer has")]
    fn add(&mut self, bytes: usize) -> Result<(), fmt::Error> {
        self.0 = self.0.saturating_add(bytes);
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps, reason = "the form that a serializer has")]
    fn begin(&mut self, bytes: usize) -> Result<&mut Self, fmt::Error> {
        self.0 = self.0.saturating_add(bytes);
        Ok(self)
    }
}

/// Values that have no text of their own.
macro_rules! plain {
    ($($method:ident: $type:ty,)*) => {$(
        fn $method(self, _: $type) -> Result<(), fmt::Error> {
            self.add(VALUE)
        }
    )*};
}

impl ser::Serializer for &mut Weight {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    plain! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_unit_struct: &'static str,
    }

    fn serialize_str(self, text: &str) -> Result<(), fmt::Error> {
        self.add(VALUE + text.len())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), fmt::Error> {
        self.add(VALUE + bytes.len())
    }

    fn serialize_none(self) -> Result<(), fmt::Error> {
        self.add(VALUE)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), fmt::Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), fmt::Error> {
        self.add(VALUE)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), fmt::Error> {
        self.add(VALUE)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), fmt::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, fmt::Error> {
        self.begin(VALUE + LIST)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, fmt::Error> {
        self.begin(VALUE)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        self.begin(VALUE)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        self.begin(VALUE)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, fmt::Error> {
        self.begin(VALUE + MAP)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        self.begin(STRUCT)
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        self.begin(STRUCT)
    }
}

/// A list, or a struct, whose field names take no memory.
macro_rules! parts {
    ($($kind:ident, $method:ident $(, $name:ty)?;)*) => {$(
        impl ser::$kind for &mut Weight {
            type Ok = ();
            type Error = fmt::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Result<(), fmt::Error> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), fmt::Error> {
                Ok(())
            }
        }
    )*};
}

parts! {
    SerializeSeq, serialize_element;
    SerializeTuple, serialize_element;
    SerializeTupleStruct, serialize_field;
    SerializeTupleVariant, serialize_field;
    SerializeStruct, serialize_field, &'static str;
    SerializeStructVariant, serialize_field, &'static str;
}

impl ser::SerializeMap for &mut Weight {
    type Ok = ();
    type Error = fmt::Error;

    /// A name is text too, and in a value's place counts less than one.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), fmt::Error> {
        key.serialize(&mut **self)?;
        self.0 = self.0.saturating_sub(VALUE - NAME);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), fmt::Error> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), fmt::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_weigh_more_than_their_text() {
        assert_eq!(of(&json!(0)), VALUE);
        assert_eq!(of(&json!("four")), VALUE + 4);
        assert_eq!(of(&json!({"key": 0})), VALUE + MAP + NAME + 3 + VALUE);
        assert_eq!(of(&json!([0, "a"])), VALUE + LIST + 2 * VALUE + 1);
        let small = json!(vec![json!({"": 0}); 1000]);
        assert!(of(&small) > 70 * small.to_string().len(), "{}", of(&small));
    }
}
