//! The interface of Google Cloud Storage: an S3 server behind a service that asks for a token of a service account instead of a signature.
//! Both have the same requests for objects, lists and uploads in pieces. Emulators of Google Cloud Storage accept every token, and have
//! no uploads in pieces.

use std::{
    process::Command,
    sync::{Arc, OnceLock},
};

use axum::{Router, body::Bytes, extract::State, response::IntoResponse};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use object_store::{
    aws::{AwsAuthorizer, AwsCredential},
    client::HttpRequestBody,
};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

const EMAIL: &str = "backups@frappe.iam.gserviceaccount.com";

/// A key of a service account.
struct Key {
    pem: String,
    public: Vec<u8>,
}

/// The key that is accepted, and another one.
fn keys() -> &'static [Key; 2] {
    static KEYS: OnceLock<[Key; 2]> = OnceLock::new();
    KEYS.get_or_init(|| [(); 2].map(|()| generate()))
}

fn generate() -> Key {
    let folder = crate::folder::Folder::new();
    let path = folder.path().join("key.pem");
    let run = |arguments: &[&str]| {
        let done = Command::new("openssl").args(arguments).arg(&path).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    };
    run(&["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"]);
    let public = run(&["rsa", "-RSAPublicKey_out", "-outform", "DER", "-in"]);
    Key { pem: std::fs::read_to_string(&path).unwrap(), public }
}

/// The JSON of a service account's key.
pub(crate) fn service_account_key(accepted: bool) -> String {
    let private_key = &keys()[usize::from(!accepted)].pem;
    json!({"type": "service_account", "private_key_id": "1", "client_email": EMAIL, "private_key": private_key,
           "gcs_base_url": "http://169.254.169.254", "token_uri": "http://169.254.169.254"})
    .to_string()
}

/// Whether a request has a valid token, signed by the accepted key.
fn is_allowed(headers: &HeaderMap) -> Option<()> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let (message, signature) = token.rsplit_once('.')?;
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &keys()[0].public);
    public.verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(message.split_once('.')?.1).ok()?).ok()?;
    let alive = claims["exp"].as_i64()? > jiff::Timestamp::now().as_second();
    (alive && claims["iss"] == EMAIL && claims["scope"] == "https://www.googleapis.com/auth/cloud-platform")
        .then_some(())
}

#[derive(Clone)]
struct Front {
    server: String,
    credential: Arc<AwsCredential>,
    client: reqwest::Client,
}

async fn pass(
    State(it): State<Front>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    if is_allowed(&headers).is_none() {
        let text = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>AuthenticationRequired</Code></Error>";
        return (StatusCode::UNAUTHORIZED, text).into_response();
    }
    // The signature is of the path as S3's clients write it.
    let path = [("%2F", "/"), ("%2D", "-"), ("%2E", "."), ("%5F", "_")]
        .iter()
        .fold(uri.path().to_owned(), |path, (code, letter)| path.replace(code, letter));
    let url = format!("{}{path}{}", it.server, uri.query().map(|it| format!("?{it}")).unwrap_or_default());
    let mut request = http::Request::builder().method(method.clone()).uri(&url).body(HttpRequestBody::empty()).unwrap();
    let authorizer = AwsAuthorizer::new(&it.credential, "s3", "us-east-1");
    authorizer.try_authorize(&mut request, Some(&Sha256::digest(&body))).unwrap();
    let answer = it.client.request(method, &url).headers(request.headers().clone()).body(body).send().await.unwrap();
    let (status, headers, body) = (answer.status(), answer.headers().clone(), answer.bytes().await.unwrap());
    (status, headers, body).into_response()
}

/// Starts the service before an S3 server.
pub(crate) async fn serve(port: u16, access_key: &str, secret_key: &str) -> (u16, JoinHandle<()>) {
    let credential = Arc::new(AwsCredential { key_id: access_key.into(), secret_key: secret_key.into(), token: None });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let state = Front { server: format!("http://127.0.0.1:{port}"), credential, client };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let routes = Router::new().fallback(pass).with_state(state);
    let routes = routes.layer(axum::extract::DefaultBodyLimit::disable());
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (port, serving)
}
