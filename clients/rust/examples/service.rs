//! The routes by which every package for upstreams is tested behind the gateway, on axum.
//!
//! It prints the address that it listens on, and ends when its standard input ends.

use std::{collections::BTreeMap, convert::Infallible, env, error::Error as StdError, io};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::Path,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use serde_json::value::{RawValue, to_raw_value};
use session_gateway_upstream::{Error, Session, SessionLayer, X_SESSION_SET};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

type Anything = Box<dyn StdError + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Anything> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    let app = routes().layer(layer()?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    let end = async {
        let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    };
    tokio::select! {
        served = axum::serve(listener, app) => Ok(served?),
        () = end => Ok(()),
    }
}

fn layer() -> Result<SessionLayer, Anything> {
    let (audience, issuer) = (env::var("XSESSION_AUDIENCE")?, env::var("XSESSION_ISSUER")?);
    let mut builder = SessionLayer::builder(audience, issuer).exempt("/healthz");
    for (kid, secret) in keys("XSESSION_KEYS")? {
        builder = builder.secret(&kid, secret);
    }
    for (kid, x) in keys("XSESSION_PUBLIC_KEYS")? {
        builder = builder.public_key(&kid, &x);
    }
    Ok(builder.build()?)
}

fn keys(variable: &str) -> Result<BTreeMap<String, String>, Anything> {
    match env::var(variable) {
        Ok(text) => Ok(serde_json::from_str(&text)?),
        Err(_) => Ok(BTreeMap::new()),
    }
}

fn routes() -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/session", get(show))
        .route("/set/{key}", post(set))
        .route("/append/{key}", post(append))
        .route("/del/{key}", post(remove))
        .route("/flush", post(flush))
        .route("/cycle", post(cycle))
        .route("/expiry", post(expiry))
        .route("/touch", post(touch))
        .route("/nothing", post(nothing))
        .route("/guarded/{key}", post(guarded))
        .route("/redirect/{key}", post(redirect))
        .route("/stream/{key}", post(streamed))
        .route("/late/{key}", post(late))
        .route("/fail/{key}", post(fail))
        .route("/large/{key}", post(large))
        .route("/mixed/{key}", post(mixed))
}

/// What a handler cannot do is a 500.
struct Failed(Anything);

impl<E: Into<Anything>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        tracing::error!("{}", self.0);
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

/// The session, with all digits, or null where it cannot be read.
fn contents(session: &Session) -> Result<Box<RawValue>, serde_json::Error> {
    let Ok(members) = session.iter() else {
        return to_raw_value(&());
    };
    let members = members
        .map(|(name, value)| Ok((name, RawValue::from_string(value)?)))
        .collect::<Result<BTreeMap<_, _>, serde_json::Error>>()?;
    to_raw_value(&members)
}

#[derive(serde::Serialize)]
struct Seen {
    framework: &'static str,
    user_id: Option<String>,
    sid: Option<String>,
    rev: Option<String>,
    withheld: Option<&'static str>,
    session: Box<RawValue>,
}

async fn show(session: Session) -> Result<Json<Seen>, Failed> {
    Ok(Json(Seen {
        framework: "axum",
        user_id: match session.user_id() {
            Ok(user_id) => user_id.map(str::to_owned),
            Err(_) => Some("unknown".to_owned()),
        },
        sid: session.sid().map(str::to_owned),
        rev: session.rev().map(str::to_owned),
        withheld: session.withheld().map(|withheld| withheld.as_str()),
        session: contents(&session)?,
    }))
}

#[derive(serde::Serialize)]
struct Afterwards {
    session: Box<RawValue>,
}

type Answer = Result<Json<Afterwards>, Failed>;

fn afterwards(session: &Session) -> Answer {
    let session = contents(session)?;
    Ok(Json(Afterwards { session }))
}

async fn set(session: Session, Path(key): Path<String>, body: String) -> Answer {
    session.insert(&key, RawValue::from_string(body)?)?;
    afterwards(&session)
}

async fn append(session: Session, Path(key): Path<String>, body: String) -> Answer {
    let value = RawValue::from_string(body)?;
    session.update(&key, |list: &mut Vec<Box<RawValue>>| list.push(value))?;
    afterwards(&session)
}

async fn remove(session: Session, Path(key): Path<String>) -> Answer {
    session.remove(&key)?;
    afterwards(&session)
}

async fn flush(session: Session) -> Answer {
    session.flush()?;
    afterwards(&session)
}

async fn cycle(session: Session) -> Answer {
    session.cycle_key()?;
    afterwards(&session)
}

async fn expiry(session: Session, body: String) -> Answer {
    session.set_expiry(serde_json::from_str(&body)?)?;
    afterwards(&session)
}

async fn touch(session: Session) -> Answer {
    session.touch()?;
    afterwards(&session)
}

/// Writes back what it reads.
async fn nothing(session: Session) -> Answer {
    if let Some((name, value)) = session.iter()?.next() {
        session.insert(&name, RawValue::from_string(value)?)?;
    }
    afterwards(&session)
}

async fn guarded(session: Session, Path(key): Path<String>, headers: HeaderMap) -> Answer {
    session.only_if_unchanged()?;
    let count: Option<Option<u64>> = session.get(&key)?;
    change_first(&headers).await?;
    session.insert(&key, count.flatten().unwrap_or(0) + 1)?;
    afterwards(&session)
}

/// Lets somebody else change the session between reading and writing.
async fn change_first(headers: &HeaderMap) -> Result<(), Failed> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(url) = text("x-test-change-first") else {
        return Ok(());
    };
    let url: Uri = url.parse()?;
    let host = url.authority().ok_or("no host")?.as_str();
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: {host}\r\nCookie: {}\r\nOrigin: {}\r\nContent-Length: 7\r\nConnection: close\r\n\r\n\"other\"",
        url.path(),
        text("x-test-cookie").unwrap_or_default(),
        text("x-test-origin").unwrap_or_default(),
    );
    let mut connection = TcpStream::connect(host).await?;
    connection.write_all(request.as_bytes()).await?;
    connection.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn redirect(
    session: Session,
    Path(key): Path<String>,
    body: String,
) -> Result<Redirect, Failed> {
    session.insert(&key, RawValue::from_string(body)?)?;
    Ok(Redirect::to("/session"))
}

async fn streamed(session: Session, Path(key): Path<String>, body: String) -> Result<Body, Failed> {
    session.insert(&key, RawValue::from_string(body)?)?;
    let chunks = ["one", "two", "three"].map(|chunk| Ok::<_, Infallible>(Bytes::from(chunk)));
    Ok(Body::from_stream(stream::iter(chunks)))
}

/// What is asked of a stream is made after the head has gone out.
async fn late(session: Session, Path(key): Path<String>, body: String) -> Result<Body, Failed> {
    let value = RawValue::from_string(body)?;
    let start = stream::iter([Ok::<_, Infallible>("start;")]);
    let rest = stream::once(async move {
        Ok(match session.insert(&key, value) {
            Ok(()) => "stored",
            Err(Error::Closed) => "refused",
            Err(_) => "failed",
        })
    });
    Ok(Body::from_stream(start.chain(rest)))
}

async fn fail(session: Session, Path(key): Path<String>, body: String) -> Answer {
    session.insert(&key, RawValue::from_string(body)?)?;
    Err("failed".into())
}

async fn large(session: Session, Path(key): Path<String>) -> Answer {
    session.insert(&key, "x".repeat(20_000))?;
    afterwards(&session)
}

async fn mixed(
    session: Session,
    Path(key): Path<String>,
    body: String,
) -> Result<Response, Failed> {
    session.insert(&key, RawValue::from_string(body)?)?;
    Ok(([(X_SESSION_SET, "{}")], afterwards(&session)?).into_response())
}
