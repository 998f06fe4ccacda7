//! What goes out with the response.

use std::{convert::Infallible, future::Future, pin::pin, task::Context};

use http::{Request, Response, StatusCode};
use session_gateway_upstream::{Builder, Error, Session};
use tower::{Service, ServiceExt};
use tower_layer::Layer;

use crate::{
    log::Log,
    support::{builder, token},
};

/// What the service answers, around a handler that may look at its request.
pub fn answer(
    builder: Builder,
    request: Request<()>,
    handler: impl Fn(&Request<()>),
) -> Response<String> {
    answered(builder, request, |request| {
        handler(request);
        Response::new(String::new())
    })
}

pub fn status(builder: Builder, request: Request<()>) -> StatusCode {
    answer(builder, request, |_| {}).status()
}

fn answered(
    builder: Builder,
    request: Request<()>,
    handler: impl Fn(&Request<()>) -> Response<String>,
) -> Response<String> {
    let service = tower::service_fn(|request: Request<()>| {
        let response = handler(&request);
        async { Ok::<_, Infallible>(response) }
    });
    let service = builder.build().unwrap().layer(service);
    block_on(service.oneshot(request)).unwrap()
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(future)
}

fn request() -> Request<()> {
    let token = token(r#""sid":"s","rev":"R-1","sub":"42","session":{"a":1}"#);
    Request::get("/")
        .header("X-Session", token)
        .body(())
        .unwrap()
}

fn session(request: &Request<()>) -> Session {
    request.extensions().get::<Session>().unwrap().clone()
}

fn sent<B>(response: &Response<B>) -> Option<&str> {
    response
        .headers()
        .get("x-session-set")
        .map(|value| value.to_str().unwrap())
}

fn with_status(status: u16) -> Response<String> {
    let mut response = Response::new("welcome".to_owned());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

#[test]
fn the_change_goes_out_with_every_answer_below_500() {
    for status in [101, 200, 204, 303, 304, 404, 499] {
        let response = answered(builder(), request(), |request| {
            session(request).insert("a", 2).unwrap();
            with_status(status)
        });
        assert_eq!(sent(&response), Some(r#"{"set":{"a":2}}"#), "{status}");
        assert_eq!(response.body(), "welcome");
    }
    for status in [500, 503, 599] {
        let response = answered(builder(), request(), |request| {
            session(request).insert("a", "x".repeat(20_000)).unwrap();
            with_status(status)
        });
        assert_eq!(
            (response.status().as_u16(), sent(&response)),
            (status, None)
        );
    }
}

#[test]
fn without_a_change_there_is_no_header() {
    let response = answer(builder(), request(), |request| {
        let session = session(request);
        let a: u8 = session.get("a").unwrap().unwrap();
        session.insert("a", a).unwrap();
    });
    assert_eq!(sent(&response), None);
}

#[test]
fn a_change_that_cannot_be_sent_is_a_500_and_nothing_of_the_answer() {
    type Handler = fn(&Session, &mut Response<String>);
    let handlers: [(&str, Handler); 2] = [
        ("too-large", |session, _| {
            session.insert("a", "x".repeat(20_000)).unwrap()
        }),
        ("twice", |session, response| {
            session.insert("a", 2).unwrap();
            response
                .headers_mut()
                .insert("x-session-set", "{}".parse().unwrap());
        }),
    ];
    for (code, handler) in handlers {
        let log = Log::of(|| {
            let response = answered(builder(), request(), |request| {
                let mut response = with_status(303);
                response
                    .headers_mut()
                    .insert("location", "/welcome".parse().unwrap());
                handler(&session(request), &mut response);
                response
            });
            assert_eq!(response.status(), 500);
            assert_eq!(
                response.body(),
                &format!("{{\"code\":\"x-session-set-{code}\"}}\n")
            );
            assert!(!response.headers().contains_key("location") && sent(&response).is_none());
        });
        assert!(
            log.contains("ERROR") && log.lines().count() == 1 && !log.contains("xxx"),
            "{log}"
        );
    }
}

#[test]
fn a_header_that_is_set_by_hand_is_left_alone() {
    let response = answered(builder(), request(), |_| {
        let mut response = with_status(200);
        response
            .headers_mut()
            .insert("x-session-set", "{\"cycle\":true}".parse().unwrap());
        response
    });
    assert_eq!(sent(&response), Some("{\"cycle\":true}"));
}

#[test]
fn a_change_after_the_head_is_an_error() {
    for status in [200, 500] {
        let kept = std::cell::OnceCell::new();
        answered(builder(), request(), |request| {
            kept.set(session(request)).unwrap();
            with_status(status)
        });
        let session = kept.get().unwrap();
        for result in [
            session.insert("a", 2),
            session.insert("a", 1),
            session.remove("z"),
            session.flush(),
            session.cycle_key(),
            session.set_expiry(None),
            session.touch(),
            session.only_if_unchanged(),
        ] {
            assert_eq!(result, Err(Error::Closed), "{status}");
        }
        assert_eq!(session.get("a"), Ok(Some(1)));
    }
}

#[test]
fn a_session_whose_request_failed_or_was_dropped_cannot_be_changed() {
    let kept = std::cell::OnceCell::new();
    let failing = tower::service_fn(|request: Request<()>| {
        kept.set(session(&request)).unwrap();
        async { Err::<Response<String>, _>("failed") }
    });
    let result = block_on(builder().build().unwrap().layer(failing).oneshot(request()));
    assert_eq!(result.unwrap_err(), "failed");
    assert_eq!(kept.get().unwrap().insert("a", 2), Err(Error::Closed));

    let kept = std::cell::OnceCell::new();
    let waiting = tower::service_fn(|request: Request<()>| {
        kept.set(session(&request)).unwrap();
        std::future::pending::<Result<Response<String>, Infallible>>()
    });
    let mut service = builder().build().unwrap().layer(waiting);
    {
        let future = pin!(service.call(request()));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(future.poll(&mut context).is_pending());
        assert_eq!(kept.get().unwrap().insert("a", 2), Ok(()));
    }
    assert_eq!(kept.get().unwrap().insert("a", 3), Err(Error::Closed));
}

#[test]
fn a_session_of_another_layer_does_not_pass_for_this_one() {
    let outer = std::cell::OnceCell::new();
    answer(builder(), request(), |request| {
        outer.set(session(request)).unwrap()
    });
    let mut health = Request::get("/healthz").body(()).unwrap();
    health.extensions_mut().insert(outer.get().unwrap().clone());
    answer(builder().exempt("/healthz"), health, |request| {
        assert!(request.extensions().get::<Session>().is_none());
    });
}

#[test]
fn nothing_prints_a_session_or_a_secret() {
    let response = answer(builder(), request(), |request| {
        assert_eq!(format!("{:?}", session(request)), "Session(redacted)");
    });
    assert_eq!(response.status(), 200);
    assert_eq!(format!("{:?}", builder()), "Builder(redacted)");
    assert_eq!(
        format!("{:?}", builder().build().unwrap()),
        "SessionLayer(redacted)"
    );
}

#[cfg(feature = "axum")]
mod extractor {
    use axum::{Router, body::Body, routing::get};
    use http_body_util::BodyExt;

    use super::*;

    fn call(path: &str) -> (u16, Option<String>, String) {
        let app = Router::new()
            .route(
                "/",
                get(|session: Session| async move {
                    session.insert("a", 2).unwrap();
                    session.user_id().unwrap().unwrap().to_owned()
                }),
            )
            .route("/needs", get(|_: Session| async {}))
            .route(
                "/may",
                get(|session: Option<Session>| async move { session.is_none().to_string() }),
            )
            .layer(builder().exempt("/needs").exempt("/may").build().unwrap());
        let token = token(r#""sub":"42","session":{"a":1}"#);
        let request = Request::get(path)
            .header("X-Session", token)
            .body(Body::empty());
        block_on(async {
            let response = app.oneshot(request.unwrap()).await.unwrap();
            let value = sent(&response).map(str::to_owned);
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, value, String::from_utf8(body.to_vec()).unwrap())
        })
    }

    #[test]
    fn handlers_of_axum_take_the_session() {
        let value = Some(r#"{"set":{"a":2}}"#.to_owned());
        assert_eq!(call("/"), (200, value, "42".to_owned()));
    }

    #[test]
    fn a_route_without_a_session_is_a_500_unless_it_says_so() {
        assert_eq!(call("/needs").0, 500);
        assert_eq!(call("/may"), (200, None, "true".to_owned()));
    }
}
