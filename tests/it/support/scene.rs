//! A logged-in visitor, an upstream, and a gateway with a route of each kind before it.

use serde_json::{Value, json};

use super::{Answer, Database, Gateway, Served as _, Upstream};

/// A gateway with a logged-in visitor and routes of each kind.
pub struct Scene {
    pub database: Database,
    pub app: Upstream,
    pub gateway: Gateway,
    pub key: String,
}

impl Scene {
    /// Over SQLite.
    pub fn start() -> Self {
        Self::over(Database::sqlite(), "")
    }

    /// Over this database, with a line for the section `[django]`.
    pub fn over(database: Database, django: &str) -> Self {
        let key = database.login(json!({"cart": ["a"]}));
        let app = Upstream::start();
        let gateway = Gateway::before(&database, &app)
            .line("django", django)
            .django("site", &app)
            .route("path = '/off/'\nupstream = 'app'\nsession = 'off'")
            .route("path = '/pass/'\nupstream = 'site'\nsession = 'pass'")
            .route("path = '/cart/'\nupstream = 'app'\nwritable = ['cart']\nforward = ['cart']")
            .route("path = '/none/'\nupstream = 'app'")
            .route("path = '/members/'\nupstream = 'app'\nrequire = 'login'")
            .route("path = '/carts/'\nupstream = 'app'\nrequire = 'session'")
            .route("path = '/strict/'\nupstream = 'app'\nrequire = 'login'\non_anonymous = '401'")
            .route("path = '/cached/'\nupstream = 'app'\ncache = 'upstream'")
            .start();
        Self {
            database,
            app,
            gateway,
            key,
        }
    }

    /// A GET of the visitor.
    pub fn get(&self) -> Answer {
        self.gateway.get("/").session(&self.key).send()
    }

    /// His session now.
    pub fn read(&self) -> Value {
        self.database.read(&self.key).unwrap()
    }
}
