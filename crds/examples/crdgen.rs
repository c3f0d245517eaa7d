//! Writes the CustomResourceDefinitions beside this crate's `Cargo.toml`.

fn main() -> std::io::Result<()> {
    for (name, yaml) in frappe_crds::manifest::files() {
        std::fs::write(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name), yaml)?;
    }
    Ok(())
}
