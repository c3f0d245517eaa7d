//! Annotations that a site may set on its routes. Pure.
//!
//! An annotation can inject text into an ingress controller's configuration (as in CVE-2021-25742 and CVE-2025-1974), mirror or
//! redirect traffic of other sites, or claim their hosts. So only annotations known to be harmless are listed here, and a platform
//! can add others with the ConfigMap's `allowedRouteAnnotations`.

/// Allowed names, by the prefix before the slash.
const ALLOWED: [(&str, &[&str]); 5] = [
    (
        "cert-manager.io",
        &[
            "cluster-issuer",
            "duration",
            "issuer",
            "issuer-group",
            "issuer-kind",
            "private-key-algorithm",
            "private-key-rotation-policy",
            "private-key-size",
            "renew-before",
            "usages",
        ],
    ),
    ("external-dns.alpha.kubernetes.io", &["ttl"]),
    (
        "haproxy.router.openshift.io",
        &[
            "balance",
            "disable_cookies",
            "hsts_header",
            "ip_allowlist",
            "ip_whitelist",
            "rate-limit-connections",
            "rate-limit-connections.concurrent-tcp",
            "rate-limit-connections.rate-http",
            "rate-limit-connections.rate-tcp",
            "timeout",
            "timeout-tunnel",
        ],
    ),
    ("kubernetes.io", &["tls-acme"]),
    (
        "nginx.ingress.kubernetes.io",
        &[
            "affinity",
            "affinity-mode",
            "client-body-buffer-size",
            "denylist-source-range",
            "force-ssl-redirect",
            "limit-connections",
            "limit-rpm",
            "limit-rps",
            "proxy-body-size",
            "proxy-buffer-size",
            "proxy-buffering",
            "proxy-buffers-number",
            "proxy-connect-timeout",
            "proxy-read-timeout",
            "proxy-request-buffering",
            "proxy-send-timeout",
            "ssl-redirect",
            "whitelist-source-range",
        ],
    ),
];

/// Whether a route may have the annotation: it is listed here, or `more` contains its name, or a prefix of it with `*` at the end.
pub fn is_allowed(name: &str, more: &[String]) -> bool {
    let (prefix, rest) = name.split_once('/').unwrap_or_default();
    let listed = ALLOWED.iter().any(|(group, names)| *group == prefix && names.contains(&rest));
    let added = |pattern: &String| match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    };
    listed || more.iter().any(added)
}

/// Longest value of an annotation, in characters.
const VALUE_MAX_CHARACTERS: usize = 256;

/// Whether a value cannot break out of a controller's configuration. Annotations that the platform adds may have all printable
/// characters, except those that end a value in nginx.
pub fn is_harmless_value(name: &str, value: &str) -> bool {
    let (prefix, rest) = name.split_once('/').unwrap_or_default();
    let known = ALLOWED.iter().any(|(group, names)| *group == prefix && names.contains(&rest));
    let more = if name == "haproxy.router.openshift.io/hsts_header" { ";=" } else { "" };
    let plain = |it: char| it.is_ascii_alphanumeric() || " .,:/_-".contains(it) || more.contains(it);
    let ends = |it: char| it.is_control() || "{};\"'\\".contains(it);
    if known {
        value.chars().count() <= VALUE_MAX_CHARACTERS && value.chars().all(plain)
    } else if prefix == "nginx.ingress.kubernetes.io" {
        value.len() <= 4 * VALUE_MAX_CHARACTERS && !value.chars().any(ends)
    } else {
        value.len() <= 4 * VALUE_MAX_CHARACTERS && !value.chars().any(char::is_control)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_could_inject_configuration_are_rejected() {
        let nginx = "nginx.ingress.kubernetes.io/proxy-buffer-size";
        for (name, value) in [
            (nginx, "4k"),
            ("nginx.ingress.kubernetes.io/whitelist-source-range", "10.0.0.0/8, 2001:db8::/32"),
            ("haproxy.router.openshift.io/hsts_header", "max-age=31536000;includeSubDomains;preload"),
            ("alb.ingress.kubernetes.io/actions.x", r#"{"Type": "redirect"}"#),
            ("nginx.ingress.kubernetes.io/auth-signin", "https://auth.example.com/start?rd=$escaped_request_uri"),
            ("nginx.ingress.kubernetes.io/cors-allow-origin", "https://*.example.com"),
        ] {
            assert!(is_harmless_value(name, value), "{name}: {value}");
        }
        let long = "1".repeat(257);
        for (name, value) in [
            (nginx, "4k;\n}\nlocation /x {"),
            (nginx, "4k;"),
            (nginx, "$host"),
            (nginx, "4k\n"),
            (nginx, "ä"),
            (nginx, long.as_str()),
            ("nginx.ingress.kubernetes.io/added", "a;b"),
            ("haproxy.router.openshift.io/timeout", "5s=1"),
            ("alb.ingress.kubernetes.io/actions.x", "a\nb"),
        ] {
            assert!(!is_harmless_value(name, value), "{name}: {value}");
        }
    }
}

#[cfg(test)]
mod names {
    use super::*;

    #[test]
    fn harmless_annotations_and_those_of_the_platform_are_allowed() {
        let more = ["alb.ingress.kubernetes.io/*".to_owned(), "example.com/team".to_owned()];
        for name in [
            "cert-manager.io/cluster-issuer",
            "haproxy.router.openshift.io/timeout",
            "nginx.ingress.kubernetes.io/proxy-body-size",
            "alb.ingress.kubernetes.io/scheme",
            "example.com/team",
        ] {
            assert!(is_allowed(name, &more), "{name}");
        }
        for name in [
            "nginx.ingress.kubernetes.io/server-snippet",
            "nginx.ingress.kubernetes.io/configuration-snippet",
            "nginx.ingress.kubernetes.io/auth-url",
            "nginx.ingress.kubernetes.io/mirror-target",
            "nginx.ingress.kubernetes.io/server-alias",
            "nginx.ingress.kubernetes.io/rewrite-target",
            "external-dns.alpha.kubernetes.io/hostname",
            "example.com/teams",
            "",
            "a",
        ] {
            assert!(!is_allowed(name, &more), "{name}");
        }
    }
}
