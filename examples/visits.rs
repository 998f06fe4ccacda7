//! A program of its own beside a Django site: it greets who is logged in there, and counts visits in the session.
//!
//! ```sh
//! DATABASE_URL=sqlite:db.sqlite3 SECRET_KEY=... cargo run --example visits
//! ```
//!
//! Behind the site's own address, so that the browser sends it Django's cookie, it is a page like any other.

use std::{convert::Infallible, env, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use session_gateway::{Error, Release, Session, Sessions, Settings};
use tokio::net::TcpListener;

type Answer = Response<Full<Bytes>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What settings.py says: SECRET_KEY, SESSION_COOKIE_* and the release, where they are not the defaults.
    let mut settings = Settings::new(env::var("SECRET_KEY")?.as_str());
    settings.release = Release(5, 2);
    let sessions = Sessions::connect(&env::var("DATABASE_URL")?, settings)
        .user_columns(["username"])
        .await?;

    let address = env::var("ADDRESS").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    let sessions = Arc::new(sessions);
    loop {
        let (stream, _) = listener.accept().await?;
        let sessions = sessions.clone();
        let service = service_fn(move |request| {
            let sessions = sessions.clone();
            async move { Ok::<_, Infallible>(answer(&sessions, &request).await) }
        });
        tokio::spawn(async move {
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new());
            // An error here is the client's: it left, or spoke no HTTP.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// What a middleware does: find the session, let the page work with it, store it, and only then answer.
async fn answer(sessions: &Sessions, request: &Request<Incoming>) -> Answer {
    let mut session = sessions.for_request(request.headers());
    let done = async {
        let mut response = page(&mut session, request).await?;
        let status = response.status();
        session.finish(status, response.headers_mut()).await?;
        Ok(response)
    };
    done.await.unwrap_or_else(|error| failure(&error))
}

async fn page(session: &mut Session, request: &Request<Incoming>) -> Result<Answer, Error> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => {
            session.load().await?;
            let visits = session.get::<u64>("visits")?.unwrap_or(0) + 1;
            session.insert("visits", visits)?;
            let name = session.user()?.and_then(|user| user.get("username"));
            let name = name.unwrap_or_else(|| "whoever you are".to_owned());
            Ok(text(
                StatusCode::OK,
                format!("Hello, {name}. Visits: {visits}\n"),
            ))
        }
        (&Method::POST, "/logout") => {
            session.flush().await?;
            Ok(text(StatusCode::OK, "You are logged out.\n".to_owned()))
        }
        _ => Ok(text(StatusCode::NOT_FOUND, "Not found\n".to_owned())),
    }
}

/// Not knowing who somebody is must never look like "nobody".
fn failure(error: &Error) -> Answer {
    let status = match error {
        Error::Unavailable | Error::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        Error::SessionGone | Error::Busy => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    eprintln!("{error}");
    text(
        status,
        format!("{}\n", status.canonical_reason().unwrap_or_default()),
    )
}

fn text(status: StatusCode, text: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
