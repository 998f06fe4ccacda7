use axum::{Router, http::StatusCode, routing::get};
use session_gateway_upstream::{Error, Session, SessionLayer, SettingsError};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let key = std::fs::read("secrets/orders_key")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3001").await?;
    Ok(axum::serve(listener, app(&key)?).await?)
}

fn app(key: &[u8]) -> Result<Router, SettingsError> {
    let sessions = SessionLayer::builder("orders", "https://shop.example")
        .secret("orders-1", key)
        .exempt("/healthz")
        .build()?;
    let routes = Router::new()
        .route("/orders/", get(orders))
        .route("/healthz", get(|| async { "ok" }));
    Ok(routes.layer(sessions))
}

async fn orders(session: Session) -> Result<String, StatusCode> {
    show(&session).map_err(|error| {
        // The gateway does not know. That is not "nobody".
        tracing::error!("{error}");
        StatusCode::SERVICE_UNAVAILABLE
    })
}

fn show(session: &Session) -> Result<String, Error> {
    let user = session.user_id()?.unwrap_or("nobody");
    let cart: Vec<String> = session.get("cart")?.unwrap_or_default();
    Ok(format!("{user} has {cart:?} in the cart\n"))
}
