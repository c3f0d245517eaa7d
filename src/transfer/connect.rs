//! Connections to a storage service. The URL is from a SiteBackup and not trusted: link-local and metadata addresses of nodes and
//! clouds are not reached, neither by redirects nor by names.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
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

/// A storage that is not connected to.
pub fn refused(message: &str) -> Failure {
    Failure { step: "open", code: Code::EndpointRefused, message: message.to_owned() }
}

/// Name of Google's metadata server, which no endpoint may have.
const METADATA_SERVER: &str = "metadata.google.internal";
/// Its address.
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Creates HTTP clients of a storage service.
#[derive(Debug)]
pub struct Connector {
    certificates: Vec<Certificate>,
    metadata_server: bool,
}

impl Connector {
    /// Rejects an invalid endpoint.
    pub fn new(endpoint: Option<&str>, certificates: Option<&[u8]>) -> Result<Self, Failure> {
        if let Some(endpoint) = endpoint {
            let url = Url::parse(endpoint).map_err(|_| refused("endpoint is not a URL"))?;
            let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
            if !matches!(url.scheme(), "http" | "https") || !plain || url.fragment().is_some() {
                let message =
                    "endpoint must be http:// or https://, a host, a port and a path, without a user, ? and #";
                return Err(refused(message));
            }
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            if host.trim_end_matches('.') == METADATA_SERVER || host.parse().is_ok_and(is_of_the_machine) {
                return Err(refused("endpoint must not be a link-local address"));
            }
        }
        let parsed = certificates.map_or_else(|| Ok(Vec::new()), Certificate::from_pem_bundle);
        let wrong = |_| Failure {
            step: "open",
            code: Code::CertificateWrong,
            message: "ca.crt in the Secret of caSecretRef contains no PEM certificates".to_owned(),
        };
        parsed.map(|certificates| Self { certificates, metadata_server: false }).map_err(wrong)
    }

    /// Also reaches Google's metadata server, by its name.
    #[must_use]
    pub fn with_metadata_server(self) -> Self {
        Self { metadata_server: true, ..self }
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
            .dns_resolver(Arc::new(Resolver { metadata_server: self.metadata_server }));
        let made =
            client.build().map_err(|error| object_store::Error::Generic { store: "HTTP", source: error.into() })?;
        Ok(HttpClient::new(Judged(made)))
    }
}

/// Resolver that drops addresses that are not allowed. Identity services of clouds are reached by address, and not affected; Google's
/// also by name.
#[derive(Debug)]
struct Resolver {
    metadata_server: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let metadata_server = self.metadata_server && name.as_str() == METADATA_SERVER;
        Box::pin(async move {
            if metadata_server {
                return Ok(Box::new([SocketAddr::from((METADATA_V4, 0))].into_iter()) as Addrs);
            }
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
            assert_eq!(word(Connector::new(Some(endpoint), None)), Ok(()), "{endpoint}");
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
            "http://Metadata.google.internal/",
            "http://metadata.google.internal./",
            "file:///etc/passwd",
            "internal",
        ] {
            assert_eq!(word(Connector::new(Some(endpoint), None)), Err(Code::EndpointRefused), "{endpoint}");
        }
        assert_eq!(word(Connector::new(None, Some(b"nothing"))), Ok(()), "of an empty bundle nothing is trusted");
    }

    #[tokio::test]
    async fn the_metadata_server_is_reached_only_for_its_tokens() {
        let name = || METADATA_SERVER.parse().expect("a name");
        let found = Resolver { metadata_server: true }.resolve(name()).await.map(Iterator::collect::<Vec<_>>);
        assert_eq!(found.expect("it is known"), [SocketAddr::from((METADATA_V4, 0))]);
        assert!(Resolver { metadata_server: false }.resolve(name()).await.is_err());
    }
}
