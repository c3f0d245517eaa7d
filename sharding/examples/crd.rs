//! Prints the CustomResourceDefinition of the slot map: `cargo run -p kube-sharding --example crd -- my.group`.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use kube_sharding::wire::Names;

fn main() {
    let group = std::env::args().nth(1).unwrap_or_else(|| "example.com".to_owned());
    print!("{}", serde_yaml_ng::to_string(&Names::new(group, "", "").definition()).expect("a definition is YAML"));
}
