//! The public keys, at `[health] jwks`: what receivers check EdDSA tokens with.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;

use crate::{
    assertion::{jwks, jwks::MEDIA_TYPE},
    config::Config,
};

/// Receivers may keep the keys for five minutes. A rotation waits for that long between publishing and signing.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("max-age=300");

/// The document and where it is.
#[derive(Clone, Debug)]
pub struct Jwks {
    path: String,
    document: Bytes,
}

impl Jwks {
    /// The keys of `[gateway]`, the signing one first; `None` where there are none, or no address to serve them.
    pub fn new(config: &Config) -> Option<Self> {
        let signing = config.gateway.signing.as_ref()?;
        let public_key = signing.private_key.verifying_key();
        let published = &config.gateway.published;
        let others = published.iter().map(|key| (&*key.kid, &key.public_key));
        let keys = std::iter::once((&*signing.kid, &public_key)).chain(others);
        Some(Self {
            path: config.jwks.clone()?,
            document: jwks(keys).into(),
        })
    }

    /// Whether this path is the document's.
    pub fn is_at(&self, path: &str) -> bool {
        self.path == path
    }

    /// The answer to a request there.
    pub fn answer(&self, method: &Method) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, allowed);
            return response;
        }
        // To a HEAD the engine sends no body, but its length.
        let mut response = Response::new(Full::from(self.document.clone()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
        response
    }
}
