//! Connections to a storage service. The URL is from a SiteBackup and not trusted: link-local and metadata addresses of nodes and
//! clouds are not reached, neither by redirects nor by names.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use object_store::{
    ClientOptions,
    client::{HttpClient, HttpConnector},
};
use reqwest::{
    Certificate, Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};

use super::{
    answer::{Judged, NothingToReach, Unresolved},
    report::Failure,
};
use crate::domain::code::Code;

/// Read timeout.
const SILENCE_MAX: Duration = Duration::from_mins(5);
/// Connect timeout.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Metadata address of AWS that is not link-local.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Creates HTTP clients of a storage service.
#[derive(Debug)]
pub struct Connector {
    certificates: Vec<Certificate>,
}

impl Connector {
    /// Rejects an invalid endpoint or region.
    pub fn new(endpoint: Option<&str>, region: Option<&str>, certificates: Option<&[u8]>) -> Result<Self, Failure> {
        let refused =
            |message: &str| Failure { step: "open", code: Code::EndpointRefused, message: message.to_owned() };
        if let Some(endpoint) = endpoint {
            let url = Url::parse(endpoint).map_err(|_| refused("storage.s3.endpoint is not a URL"))?;
            let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
            if !matches!(url.scheme(), "http" | "https") || !plain || url.fragment().is_some() {
                let message = "storage.s3.endpoint must be http:// or https://, a host, a port and a path, without a user, ? and #";
                return Err(refused(message));
            }
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            if host.parse().is_ok_and(is_of_the_machine) {
                return Err(refused("storage.s3.endpoint must not be a link-local address"));
            }
        }
        // It becomes a part of a host's name.
        let word = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_');
        if region.is_some_and(|it| !it.chars().all(word)) {
            return Err(refused("storage.s3.region must be letters, digits, - and _"));
        }
        let parsed = certificates.map_or_else(|| Ok(Vec::new()), Certificate::from_pem_bundle);
        let wrong = |_| Failure {
            step: "open",
            code: Code::CertificateWrong,
            message: "ca.crt in the Secret of caSecretRef contains no PEM certificates".to_owned(),
        };
        parsed.map(|certificates| Self { certificates }).map_err(wrong)
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = Client::builder()
            .user_agent(concat!("frappe-operator/", env!("CARGO_PKG_VERSION")))
            .tls_certs_merge(self.certificates.clone())
            .http1_only()
            .connect_timeout(CONNECT_MAX)
            .read_timeout(SILENCE_MAX)
            .redirect(Policy::none())
            .dns_resolver(Arc::new(Resolver));
        let made =
            client.build().map_err(|error| object_store::Error::Generic { store: "S3", source: error.into() })?;
        Ok(HttpClient::new(Judged(made)))
    }
}

/// Resolver that drops addresses that are not allowed. A cloud's identity services are reached by address, and not affected.
#[derive(Debug)]
struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::task::spawn_blocking(move || (name.as_str(), 0).to_socket_addrs()).await?;
            let found = found.map_err(|_| Unresolved)?;
            let found: Vec<SocketAddr> = found.filter(|it| !is_of_the_machine(it.ip())).collect();
            if found.is_empty() {
                return Err(NothingToReach.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is link-local or a metadata address.
fn is_of_the_machine(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(it) => it.is_link_local() || it.is_unspecified(),
        IpAddr::V6(it) => it.is_unicast_link_local() || it.is_unspecified() || it == METADATA_V6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_service_and_nothing_of_the_machine() {
        let word = |it: Result<Connector, Failure>| it.map(|_| ()).map_err(|failure| failure.code);
        for endpoint in [
            "http://minio.storage:9000",
            "https://s3.example.com/gateway",
            "http://10.0.0.7:9000",
            "http://[fd12::1]:9000",
        ] {
            assert_eq!(word(Connector::new(Some(endpoint), None, None)), Ok(()), "{endpoint}");
        }
        for endpoint in [
            "http://internal/admin?x=",
            "http://internal/admin#",
            "http://user@internal/",
            "http://user:password@internal/",
            "http://169.254.169.254/latest",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0251.0376.0251.0376/",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fd00:ec2::254]/",
            "http://0.0.0.0:10250/",
            "file:///etc/passwd",
            "internal",
        ] {
            assert_eq!(word(Connector::new(Some(endpoint), None, None)), Err(Code::EndpointRefused), "{endpoint}");
        }
        assert_eq!(word(Connector::new(None, Some("eu-central-1"), None)), Ok(()));
        assert_eq!(word(Connector::new(None, Some("x.evil.example/"), None)), Err(Code::EndpointRefused));
        assert_eq!(word(Connector::new(None, None, Some(b"nothing"))), Ok(()), "of an empty bundle nothing is trusted");
    }
}
