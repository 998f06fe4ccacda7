//! How a layer is made.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, Response, header, request::Parts};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    Reason, Refused, SessionLayer, SettingsError, X_SESSION,
    keys::Keys,
    token::{self, Claims, Expected},
};

/// When the claim `req` is compared with the request. It keeps a copied token from being used for another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckRequest {
    /// For every method but GET, HEAD, OPTIONS and TRACE, and for every request with an `Upgrade` field, such as the
    /// handshake of a WebSocket.
    #[default]
    Unsafe,
    /// For every request.
    Always,
    /// For none.
    Never,
}

type IsExempt = dyn Fn(&Parts) -> bool + Send + Sync;
type OnRefused = dyn Fn(&Refused) -> Response<String> + Send + Sync;
type Clock = dyn Fn() -> SystemTime + Send + Sync;

/// The settings of a [`SessionLayer`]: [`SessionLayer::builder`] begins, [`build`](Self::build) ends.
///
/// The first mistake is what `build` says.
pub struct Builder {
    settings: Settings,
    wrong: Option<SettingsError>,
}

pub(crate) struct Settings {
    keys: Keys,
    expected: Expected,
    check_request: CheckRequest,
    exempt_paths: Vec<String>,
    exempt: Vec<Box<IsExempt>>,
    pub(crate) on_refused: Option<Box<OnRefused>>,
    clock: Box<Clock>,
}

impl Builder {
    pub(crate) fn new(audience: String, issuer: String) -> Self {
        let wrong = |what: &str| Some(SettingsError(what.to_owned()));
        Self {
            wrong: if audience.is_empty() {
                wrong("the audience is missing: this service's name in the gateway's configuration")
            } else if issuer.is_empty() {
                wrong("the issuer is missing: the gateway's `issuer`")
            } else {
                None
            },
            settings: Settings {
                keys: Keys::default(),
                expected: Expected {
                    audience,
                    issuer,
                    leeway: Duration::from_secs(30),
                },
                check_request: CheckRequest::default(),
                exempt_paths: Vec::new(),
                exempt: Vec::new(),
                on_refused: None,
                clock: Box::new(SystemTime::now),
            },
        }
    }

    fn note(mut self, done: Result<(), SettingsError>) -> Self {
        self.wrong = self.wrong.or(done.err());
        self
    }

    /// A secret that is shared with the gateway, and its name: 1 to 64 of `A-Z a-z 0-9 . _ -`. As in the gateway's
    /// configuration a secret that begins with `base64:` is decoded, and one final newline is cut. It has at least
    /// 32 bytes.
    pub fn secret(mut self, kid: &str, secret: impl AsRef<[u8]>) -> Self {
        let done = self.settings.keys.add_secret(kid, secret.as_ref());
        self.note(done)
    }

    /// A function that gives secrets by their `kid`, for keys that change while the service runs. It is asked for
    /// what [`secret`](Self::secret) did not give, before anybody has verified the `kid`, and must not block. The
    /// `kid` is always one that a key can have.
    pub fn secrets_by(
        mut self,
        function: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        self.settings.keys.add_secrets_by(Arc::new(function));
        self
    }

    /// A public key of the gateway, where it signs with EdDSA: the `x` of the JWK.
    #[cfg(feature = "eddsa")]
    pub fn public_key(mut self, kid: &str, x: &str) -> Self {
        let done = self.settings.keys.add_public_key(kid, x);
        self.note(done)
    }

    /// A function that gives the `x` of a public key by its `kid`, as [`secrets_by`](Self::secrets_by) does.
    #[cfg(feature = "eddsa")]
    pub fn public_keys_by(
        mut self,
        function: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let function = move |kid: &str| function(kid).map(String::into_bytes);
        self.settings.keys.add_public_keys_by(Arc::new(function));
        self
    }

    /// How far clocks may differ, in whole seconds; 30 s by default.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.settings.expected.leeway = leeway;
        let wrong = "a leeway of more than an hour would make expired tokens good";
        let done = match leeway > Duration::from_secs(3600) {
            true => Err(SettingsError(wrong.to_owned())),
            false => Ok(()),
        };
        self.note(done)
    }

    /// When the claim `req` is compared with the request.
    pub fn check_request(mut self, when: CheckRequest) -> Self {
        self.settings.check_request = when;
        self
    }

    /// The path, spelt exactly so, of requests that do not come through the gateway, such as health checks. They
    /// pass without a session.
    pub fn exempt(mut self, path: impl Into<String>) -> Self {
        let path = path.into();
        let done = match path.starts_with('/') {
            true => Ok(()),
            false => Err(SettingsError("an exempt path begins with /".to_owned())),
        };
        self.settings.exempt_paths.push(path);
        self.note(done)
    }

    /// A function that says so of other requests.
    pub fn exempt_if(mut self, function: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.settings.exempt.push(Box::new(function));
        self
    }

    /// Answers requests that are refused, instead of the 401 with a little JSON. They are in the log already.
    pub fn on_refused(
        mut self,
        function: impl Fn(&Refused) -> Response<String> + Send + Sync + 'static,
    ) -> Self {
        self.settings.on_refused = Some(Box::new(function));
        self
    }

    /// The clock, for tests.
    pub fn clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.settings.clock = Box::new(now);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong, never with a secret in it.
    pub fn build(self) -> Result<SessionLayer, SettingsError> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        if self.settings.keys.is_empty() {
            let sentence = "no key is given: a token could not be checked";
            return Err(SettingsError(sentence.to_owned()));
        }
        Ok(SessionLayer(Arc::new(self.settings)))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Builder(redacted)")
    }
}

impl Settings {
    pub(crate) fn is_exempt(&self, parts: &Parts) -> bool {
        let path = parts.uri.path();
        self.exempt_paths.iter().any(|exempt| exempt == path)
            || self.exempt.iter().any(|exempt| exempt(parts))
    }

    /// The claims of a request that came through the gateway.
    pub(crate) fn check(&self, parts: &Parts) -> Result<Claims, Refused> {
        let token = one_field(&parts.headers)?;
        let claims = token::verify(token, &self.keys, &self.expected, (self.clock)())?;
        if self.compares(parts) {
            check_request(parts, &claims.request)?;
        }
        Ok(claims)
    }

    fn compares(&self, parts: &Parts) -> bool {
        match self.check_request {
            CheckRequest::Always => true,
            CheckRequest::Never => false,
            CheckRequest::Unsafe => {
                !parts.method.is_safe() || parts.headers.contains_key(header::UPGRADE)
            }
        }
    }
}

fn one_field(headers: &HeaderMap) -> Result<&str, Refused> {
    let mut fields = headers.get_all(X_SESSION).iter();
    let Some(field) = fields.next() else {
        return Err(Refused::new(
            Reason::Missing,
            "the request has no X-Session, so it did not come through the gateway",
        ));
    };
    if fields.next().is_some() {
        let detail = "the request has more than one X-Session";
        return Err(Refused::new(Reason::Twice, detail));
    }
    field
        .to_str()
        .map_err(|_| Refused::new(Reason::Malformed, "it is not ASCII"))
}

/// `req`: base64url(SHA-256(METHOD SP host SP target)) of the request as it was sent.
fn check_request(parts: &Parts, req: &str) -> Result<(), Refused> {
    // HTTP/2 has :authority, which hyper puts into the URI, in place of Host. Where both are there, others may heed
    // the other one: so has a target in absolute form.
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let host = fields.next().map(HeaderValue::as_bytes);
    let authority = parts.uri.authority().map(|text| text.as_str().as_bytes());
    let host = match (host, fields.next(), authority) {
        (Some(host), None, Some(authority)) if host != authority => {
            return Err(Refused::new(
                Reason::OtherRequest,
                "its Host is not that of its target",
            ));
        }
        (Some(host), None, _) | (None, None, Some(host)) => host,
        _ => {
            return Err(Refused::new(
                Reason::OtherRequest,
                "the request does not tell its Host; put the layer outside of what removes it, or set \
                 CheckRequest::Never",
            ));
        }
    };
    let target = parts
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    let digest = Sha256::new()
        .chain_update(parts.method.as_str())
        .chain_update(" ")
        .chain_update(host)
        .chain_update(" ")
        .chain_update(target)
        .finalize();
    let wanted = URL_SAFE_NO_PAD.encode(digest);
    if !bool::from(wanted.as_bytes().ct_eq(req.as_bytes())) {
        return Err(Refused::new(
            Reason::OtherRequest,
            "it was signed for another method, host or target; either it was copied, or something between the \
             gateway and here changes them: put the layer outside of what rewrites the URI, such as a nested router",
        ));
    }
    Ok(())
}
