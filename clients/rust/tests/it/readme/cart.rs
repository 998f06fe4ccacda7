use axum::{extract::Path, http::StatusCode};
use session_gateway_upstream::{Error, Session};

pub async fn add(session: Session, Path(item): Path<String>) -> Result<String, StatusCode> {
    add_to(&session, item).map_err(|error| {
        tracing::error!("{error}");
        StatusCode::SERVICE_UNAVAILABLE
    })
}

fn add_to(session: &Session, item: String) -> Result<String, Error> {
    // If somebody else changes the session before this is stored, the visitor gets a 409 instead.
    session.only_if_unchanged()?;
    session.update("cart", |cart: &mut Vec<String>| {
        cart.push(item);
        format!("{cart:?}\n")
    })
}
