//! Types that several kinds share: references, quantities, ports, resources, database settings.

use std::{borrow::Cow, collections::BTreeMap};

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// Reads a string or a whole number as a string.
fn string_or_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Integer(i64),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Text(text) => text,
        Either::Integer(number) => number.to_string(),
    })
}

/// A Secret that is read, with the version that counts: the one at which what is read of it last changed. A change of its metadata alone
/// is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadSecret {
    /// Name of the Secret.
    pub name: String,
    /// The version that counts.
    pub version: String,
    /// Hashes of the values that are read, by key, with a random key that only the operator has; `*` stands for the whole Secret. Empty
    /// while they are not known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub content: BTreeMap<String, String>,
}

/// A resource quantity as Kubernetes writes it, for example `500m`, `2` or `10Gi`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Quantity(pub String);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string_or_integer(deserializer).map(Self)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 32,
            "x-kubernetes-validations": [{
                "rule": "type(self) == int ? self >= 0 : (isQuantity(self) && quantity(self).compareTo(quantity('0')) >= 0)",
                "message": "must be a quantity that is not negative, such as 500m, 2 or 10Gi"
            }]
        })
    }
}

/// An app with its version and schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
pub struct AppCode {
    /// Name of the app.
    pub name: String,
    /// Version of the app's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Hash of the files of the app that define its database schema: another hash needs a migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
}

/// A TCP port, written as a number or as a string of digits (the guide writes `"3306"`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Port(pub String);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string_or_integer(deserializer).map(Self)
    }
}

impl JsonSchema for Port {
    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 5,
            "x-kubernetes-validations": [{
                "rule": "type(self) == int ? (self >= 1 && self <= 65535) : (self.matches('^[0-9]{1,5}$') && int(self) >= 1 && int(self) <= 65535)",
                "message": "must be a port number from 1 to 65535, such as \"3306\""
            }]
        })
    }
}

/// Any JSON values by name, also `null`.
pub(crate) fn any_values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 64,
        "additionalProperties": {"x-kubernetes-preserve-unknown-fields": true, "nullable": true}
    })
}

/// Resource requests and limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Reserved amount of each resource, for example `cpu: 500m`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Quantity>,
    /// Maximum amount of each resource, for example `memory: 4Gi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Quantity>,
}

/// Reference to a Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the Secret. Only the namespace of the referring object is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
}

/// Reference to a key of a Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct SecretKeyReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._A-Za-z0-9]+$')").message("key must be letters, digits, -, _ and ."))]
    pub key: String,
}

/// Reference to an object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct LocalReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Reference to an object, in the same namespace unless another is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct NamespacedReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the object. Default: the namespace of the referring object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
}

/// Provider of a site's database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseProvider {
    /// MariaDB, through the MariaDB operator's custom resources.
    #[default]
    Mariadb,
    /// An existing PostgreSQL server.
    Postgres,
    /// An existing MariaDB database and user, on any server (RDS, Cloud SQL …).
    External,
}

/// Whether a database server is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseMode {
    /// One server for many sites, each with its own database and user.
    #[default]
    Shared,
    /// A dedicated server for this site.
    Dedicated,
}

/// Database of a site, or of a bench's sites.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseConfig {
    /// Provider of the database. Default: `mariadb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<DatabaseProvider>,
    /// `shared` (default) or `dedicated`; for `mariadb` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<DatabaseMode>,
    /// The MariaDB object that serves the shared databases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mariadb_ref: Option<NamespacedReference>,
    /// Host name of an external or PostgreSQL server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$')").message("host must be a host name or an IP address, without a scheme or a path"))]
    pub host: Option<String>,
    /// Port of an external or PostgreSQL server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// Secret with `username` and `password` (and optionally `host`, `port`, `database`) of an existing database user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_secret_ref: Option<SecretReference>,
    /// Volume size of a dedicated server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_size: Option<Quantity>,
    /// Resource requests and limits of a dedicated server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Image of a dedicated server. Default: the operator's `defaultMariaDBImage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_read_from_text_and_from_a_number() {
        let read: Vec<Quantity> = serde_json::from_str(r#"["500m", 2]"#).expect("both forms are allowed");
        assert_eq!(read, [Quantity("500m".into()), Quantity("2".into())]);
    }

    #[test]
    fn a_port_is_read_from_text_and_from_a_number() {
        let read: Vec<Port> = serde_json::from_str(r#"["3306", 5432]"#).expect("both forms are allowed");
        assert_eq!(read, [Port("3306".into()), Port("5432".into())]);
    }
}
