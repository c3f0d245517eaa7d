//! Which image runs, by the guide's three priorities and three version rules.

use frappe_crds::FrappeBenchSpec;

/// Repository of the last resort: what frappe_docker publishes.
const FALLBACK_REPOSITORY: &str = "docker.io/frappe/erpnext";
/// Characters of a SHA-256 digest in hexadecimal.
const DIGEST_CHARACTERS: usize = 64;

/// The image of a bench.
///
/// 1. the bench's repository, with its tag or else `frappeVersion`;
/// 2. the operator's default image, its tag replaced by the bench's tag or else `frappeVersion`;
/// 3. `docker.io/frappe/erpnext`, with the bench's tag or else the tag that frappe_docker publishes for `frappeVersion`.
pub fn bench(spec: &FrappeBenchSpec, default_image: Option<&str>) -> String {
    let config = spec.image_config.as_ref();
    let tag = config.and_then(|it| it.tag.clone());
    let version = || spec.frappe_version.clone();
    let (repository, tag) = match (config.and_then(|it| it.repository.as_deref()), default_image) {
        (Some(repository), _) => (repository, tag.unwrap_or_else(version)),
        (None, Some(image)) => (without_tag(image), tag.unwrap_or_else(version)),
        (None, None) => (FALLBACK_REPOSITORY, tag.unwrap_or_else(|| published_tag(&spec.frappe_version))),
    };
    format!("{repository}:{tag}")
}

/// The tag under which frappe_docker publishes a version: `version-15` for `15`, `v15.41.2` for `15.41.2`.
///
/// It publishes each release as `vX.Y.Z`, the newest of a major version also as `vX` and `version-X`, and the
/// development branch as `develop` and `latest`. So a bare major version gets `version-` in front, a version that begins
/// with a number and a dot gets `v`, and every other word is a tag already.
fn published_tag(version: &str) -> String {
    let major = version.split('.').next().unwrap_or_default();
    let is_number = !major.is_empty() && major.bytes().all(|it| it.is_ascii_digit());
    match (is_number, major.len() == version.len()) {
        (true, true) => format!("version-{version}"),
        (true, false) => format!("v{version}"),
        (false, _) => version.to_owned(),
    }
}

/// Repository and tag of an image that has both. A colon before the last slash is a registry's port.
pub fn parts(image: &str) -> Option<(&str, &str)> {
    unpinned(image).rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))
}

/// The image, pinned to a digest: whatever is pushed under its tag later, pods run the same code. Container runtimes ignore a tag before
/// a digest.
pub fn pinned(image: &str, digest: &str) -> String {
    format!("{}@{digest}", unpinned(image))
}

/// The image without its digest.
pub fn unpinned(image: &str) -> &str {
    image.split_once('@').map_or(image, |(name, _)| name)
}

/// The digest in a container's `imageID`, by which registries serve the image: `docker.io/frappe/erpnext@sha256:…`. Without a repository, as
/// of an image that was loaded into the node, it is the digest of its configuration, which no registry serves.
pub fn digest_of(image_id: &str) -> Option<&str> {
    let (repository, digest) = image_id.split_once('@')?;
    let hexadecimal = digest.strip_prefix("sha256:")?;
    let valid = hexadecimal.len() == DIGEST_CHARACTERS && hexadecimal.bytes().all(|it| it.is_ascii_hexdigit());
    (!repository.is_empty() && valid).then_some(digest)
}

/// An image name without its tag or digest.
fn without_tag(image: &str) -> &str {
    parts(image).map_or_else(|| unpinned(image), |(repository, _)| repository)
}

#[cfg(test)]
mod tests {
    use frappe_crds::bench::ImageConfig;

    use super::*;

    fn spec(version: &str, repository: Option<&str>, tag: Option<&str>) -> FrappeBenchSpec {
        FrappeBenchSpec {
            frappe_version: version.into(),
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
        let own = Some("r.com/frappe/erpnext");
        let default = Some("internal-registry.company.com:5000/frappe/erpnext:latest");
        let table = vec![
            // A repository of the bench: to the letter.
            (spec("15", own, Some("v15.41.2")), default, "r.com/frappe/erpnext:v15.41.2"),
            (spec("15", own, None), default, "r.com/frappe/erpnext:15"),
            (spec("15.41.2", own, None), None, "r.com/frappe/erpnext:15.41.2"),
            // The ConfigMap's: to the letter.
            (spec("15", None, None), default, "internal-registry.company.com:5000/frappe/erpnext:15"),
            (spec("15.41.2", None, None), default, "internal-registry.company.com:5000/frappe/erpnext:15.41.2"),
            (spec("15", None, Some("v15.1")), default, "internal-registry.company.com:5000/frappe/erpnext:v15.1"),
            // No one's: what is published, unless the bench names a tag.
            (spec("15", None, None), None, "docker.io/frappe/erpnext:version-15"),
            (spec("15", None, Some("15")), None, "docker.io/frappe/erpnext:15"),
            (spec("15", None, Some("v15.41.2")), None, "docker.io/frappe/erpnext:v15.41.2"),
        ];
        for (spec, default, image) in table {
            assert_eq!(bench(&spec, default), image);
        }
        let bare = FrappeBenchSpec { frappe_version: "15".into(), ..FrappeBenchSpec::default() };
        assert_eq!(bench(&bare, None), "docker.io/frappe/erpnext:version-15");
    }

    #[test]
    fn a_version_becomes_the_tag_that_frappe_docker_publishes() {
        let table = [
            ("15", "version-15"),
            ("14", "version-14"),
            ("16", "version-16"),
            ("15.41.2", "v15.41.2"),
            ("v15.41.2", "v15.41.2"),
            ("16.0.0-beta.1", "v16.0.0-beta.1"),
            ("v15", "v15"),
            ("version-15", "version-15"),
            ("develop", "develop"),
            ("latest", "latest"),
            // Not published by anybody, and shown as it was meant: v15.41.
            ("15.41", "v15.41"),
            ("15-slim", "15-slim"),
        ];
        for (version, tag) in table {
            assert_eq!(published_tag(version), tag, "{version}");
        }
    }

    #[test]
    fn only_a_registrys_digest_is_used() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        let of = |image_id: &str| digest_of(image_id).map(str::to_owned);
        assert_eq!(of(&format!("docker.io/frappe/erpnext@{digest}")), Some(digest.clone()));
        assert_eq!(of(&format!("r.com:5000/erpnext@{digest}")), Some(digest.clone()));
        for other in [
            digest.as_str(),
            "",
            "erpnext@sha256:0f",
            "erpnext@sha1:0f",
            &format!("@{digest}"),
            &format!("a@{digest}\n"),
        ] {
            assert_eq!(digest_of(other), None, "{other:?}");
        }
        assert_eq!(pinned("r.com:5000/a:1", &digest), format!("r.com:5000/a:1@{digest}"));
        assert_eq!(pinned("r.com:5000/a:1@sha256:1", &digest), format!("r.com:5000/a:1@{digest}"));
        assert_eq!(unpinned(&pinned("a", &digest)), "a");
    }

    #[test]
    fn a_registrys_port_is_not_a_tag() {
        assert_eq!(without_tag("r.com:5000/a"), "r.com:5000/a");
        assert_eq!(without_tag("r.com:5000/a:1"), "r.com:5000/a");
        assert_eq!(without_tag("a@sha256:0"), "a");
    }
}
