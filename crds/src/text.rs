//! Text of a fixed form in specs.

/// Declares text of at most so many characters, whose form the API server checks: a type that is written and read as a string.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $bounds:tt, $rule:literal, $message:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub String);

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut schema = schemars::json_schema!($bounds);
                schema.insert("type".to_owned(), "string".into());
                let rule = serde_json::json!([{"rule": $rule, "message": $message}]);
                schema.insert("x-kubernetes-validations".to_owned(), rule);
                schema
            }
        }
    };
}

pub(crate) use text;
