//! Which image runs, by the guide's three priorities and three version rules.

use frappe_crds::FrappeBenchSpec;

/// Repository of the last resort.
const FALLBACK_REPOSITORY: &str = "docker.io/frappe/erpnext";

/// The image of a bench.
///
/// 1. the bench's repository, with its tag or else `frappeVersion`;
/// 2. the operator's default image, its tag replaced by the bench's tag or else `frappeVersion`;
/// 3. `docker.io/frappe/erpnext` with that tag.
pub fn bench(spec: &FrappeBenchSpec, default_image: Option<&str>) -> String {
    let config = spec.image_config.as_ref();
    let tag = config.and_then(|it| it.tag.as_deref()).unwrap_or(&spec.frappe_version);
    let repository = match config.and_then(|it| it.repository.as_deref()) {
        Some(repository) => repository,
        None => default_image.map_or(FALLBACK_REPOSITORY, without_tag),
    };
    format!("{repository}:{tag}")
}

/// An image name without its tag or digest. A colon before the last slash is a registry's port.
fn without_tag(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rfind(':') {
        Some(colon) if !image[colon..].contains('/') => &image[..colon],
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use frappe_crds::bench::ImageConfig;

    use super::*;

    fn spec(repository: Option<&str>, tag: Option<&str>) -> FrappeBenchSpec {
        FrappeBenchSpec {
            frappe_version: "15".into(),
            image_config: Some(ImageConfig {
                repository: repository.map(Into::into),
                tag: tag.map(Into::into),
                ..ImageConfig::default()
            }),
            ..FrappeBenchSpec::default()
        }
    }

    #[test]
    fn the_guides_priorities_and_version_rules_hold() {
        let default = Some("internal-registry.company.com:5000/frappe/erpnext:latest");
        let table = [
            (spec(Some("r.com/frappe/erpnext"), Some("v15.41.2")), default, "r.com/frappe/erpnext:v15.41.2"),
            (spec(Some("r.com/frappe/erpnext"), None), default, "r.com/frappe/erpnext:15"),
            (spec(None, None), default, "internal-registry.company.com:5000/frappe/erpnext:15"),
            (spec(None, Some("v15.1")), default, "internal-registry.company.com:5000/frappe/erpnext:v15.1"),
            (spec(None, None), None, "docker.io/frappe/erpnext:15"),
        ];
        for (spec, default, image) in table {
            assert_eq!(bench(&spec, default), image);
        }
    }

    #[test]
    fn a_registrys_port_is_not_a_tag() {
        assert_eq!(without_tag("r.com:5000/a"), "r.com:5000/a");
        assert_eq!(without_tag("r.com:5000/a:1"), "r.com:5000/a");
        assert_eq!(without_tag("a@sha256:0"), "a");
    }
}
