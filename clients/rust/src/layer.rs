//! The layer and its service.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, StatusCode, header};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    Refused, Session, X_SESSION_SET,
    session::CannotSend,
    settings::{Builder, Settings},
};

/// A layer that checks `X-Session`, puts the [`Session`] into the request's extensions, and sends what the handler
/// changed as `X-Session-Set`. Clones share their settings.
///
/// Put it around the outermost router: it must see Host and the target as they came.
#[derive(Clone)]
pub struct SessionLayer(pub(crate) Arc<Settings>);

impl SessionLayer {
    /// Begins a layer for the service of this name in the gateway's configuration (`aud`), behind the gateway with
    /// this `issuer`.
    ///
    /// ```
    /// use session_gateway_upstream::SessionLayer;
    ///
    /// let layer = SessionLayer::builder("orders", "https://shop.example")
    ///     .secret("orders-1", "base64:3Bs8gUMG0e5Hx6moOQDVjvKR9T6sEtMUU4wczvBAOcc=")
    ///     .exempt("/healthz")
    ///     .build()?;
    ///
    /// let short = SessionLayer::builder("orders", "https://shop.example").secret("orders-1", "short").build();
    /// assert!(short.unwrap_err().to_string().contains("at least 32"));
    /// # Ok::<(), session_gateway_upstream::SettingsError>(())
    /// ```
    pub fn builder(audience: impl Into<String>, issuer: impl Into<String>) -> Builder {
        Builder::new(audience.into(), issuer.into())
    }
}

impl fmt::Debug for SessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionLayer(redacted)")
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService {
            inner,
            settings: Arc::clone(&self.0),
        }
    }
}

/// A service inside of a [`SessionLayer`].
#[derive(Clone)]
pub struct SessionService<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S: fmt::Debug> fmt::Debug for SessionService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionService").field(&self.inner).finish()
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: From<String>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        // Only this layer says whose session it is.
        parts.extensions.remove::<Session>();
        let open = if self.settings.is_exempt(&parts) {
            None
        } else {
            match self.settings.check(&parts) {
                Ok(claims) => Some(Session::new(claims)),
                Err(refused) => {
                    let response = Some(self.refuse(&refused));
                    return ResponseFuture {
                        state: State::Refused { response },
                    };
                }
            }
        };
        if let Some(session) = &open {
            parts.extensions.insert(session.clone());
        }
        let future = self.inner.call(Request::from_parts(parts, body));
        let state = State::Called {
            future,
            open: open.map(Open),
        };
        ResponseFuture { state }
    }
}

impl<S> SessionService<S> {
    fn refuse(&self, refused: &Refused) -> Response<String> {
        tracing::warn!(reason = %refused.reason(), "{refused}");
        match &self.settings.on_refused {
            Some(answer) => answer(refused),
            None => problem(
                StatusCode::UNAUTHORIZED,
                &format!("x-session-{}", refused.reason()),
            ),
        }
    }
}

/// A session that can be changed. Whatever happens to the future, afterwards it cannot: nothing would be sent.
struct Open(Session);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

pin_project! {
    /// The response, with what the handler changed.
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<F> {
        Refused { response: Option<Response<String>> },
        Called { #[pin] future: F, open: Option<Open> },
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: From<String>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            Projected::Refused { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response.map(B::from))),
                // Polled again after it was ready, which nobody may do.
                None => Poll::Pending,
            },
            Projected::Called { future, open } => {
                let response = ready!(future.poll(context));
                // Also where it failed.
                let open = open.take();
                let mut response = match response {
                    Ok(response) => response,
                    Err(error) => return Poll::Ready(Err(error)),
                };
                if let Some(Open(session)) = &open
                    && let Err(error) = send(session, &mut response)
                {
                    tracing::error!(
                        "the session's change cannot be sent, and the client gets a 500: {error}"
                    );
                    let code = match error {
                        CannotSend::TooLarge(_) => "x-session-set-too-large",
                        CannotSend::Twice => "x-session-set-twice",
                        CannotSend::NoField => "x-session-set-invalid",
                    };
                    // Nothing of the handler's head may say otherwise.
                    response = problem(StatusCode::INTERNAL_SERVER_ERROR, code).map(B::from);
                }
                Poll::Ready(Ok(response))
            }
        }
    }
}

/// Puts the change onto a response that the gateway heeds.
fn send<B>(session: &Session, response: &mut Response<B>) -> Result<(), CannotSend> {
    if response.status().is_server_error() {
        return Ok(());
    }
    let Some(value) = session.finish()? else {
        return Ok(());
    };
    if response.headers().contains_key(X_SESSION_SET) {
        return Err(CannotSend::Twice);
    }
    let value = HeaderValue::try_from(value).map_err(|_| CannotSend::NoField)?;
    response.headers_mut().insert(X_SESSION_SET, value);
    Ok(())
}

/// A problem that tells a stranger its code and nothing else.
fn problem(status: StatusCode, code: &str) -> Response<String> {
    let mut response = Response::new(format!("{{\"code\":\"{code}\"}}\n"));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
