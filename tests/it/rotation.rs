//! Every key is rotated while visitors read and write: no request and no token is refused, and nobody is logged out.
//!
//! The steps are those of docs/operations.md. Each is a rolling restart: for a while gateways, or Django processes,
//! with the settings before and after it answer in turns.

mod traffic;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};

use self::traffic::{OLD_SECRET_KEY, World};
use crate::support::{
    Database, Gateway, Release, Served as _, Upstream, gateway::Setup, reply, rows,
};

const NEW_SECRET_KEY: &str = "the-new-secret-key-of-the-site-0123456789";

#[test]
fn a_services_key_is_rotated_and_nobody_is_refused() {
    let world = World::start(Release::V52);
    let keys = |kids: &[&str]| with_keys(&world, kids);
    accept(&world, &["k1"]);
    world.under_traffic(&keys(&["k1"]), |world| {
        accept(world, &["k1", "k2"]);
        world.roll_gateways(&keys(&["k2", "k1"]));
        accept(world, &["k2"]);
        world.roll_gateways(&keys(&["k2"]));
    });
}

#[test]
fn the_signing_key_is_rotated_and_nobody_is_refused() {
    let world = World::start(Release::V52);
    let shared = with_keys(&world, &["k1"]);
    let eddsa = |kid: &str, seed: u8, published: Option<(&str, u8)>| {
        let setup = world
            .gateway()
            .line("upstream.app", "algorithm = 'EdDSA'")
            .signing(kid, [seed; 32]);
        match published {
            Some((kid, seed)) => setup.line("gateway", &publishing(kid, seed)),
            None => setup,
        }
    };
    accept(&world, &["k1"]);
    world.under_traffic(&shared, |world| {
        // What a receiver does when its copy is five minutes old. In between it keeps what it has.
        let fetch = || world.app.accept_jwks(&world.jwks());

        // From HS256 to EdDSA.
        world.roll_gateways(&shared.clone().signing("g1", [1; 32]));
        fetch();
        world.roll_gateways(&eddsa("g1", 1, None));
        accept(world, &[]);

        // From one key to the next.
        world.roll_gateways(&eddsa("g1", 1, Some(("g2", 2))));
        fetch();
        world.roll_gateways(&eddsa("g2", 2, Some(("g1", 1))));
        fetch();
        world.roll_gateways(&eddsa("g2", 2, None));
        fetch();
        assert_eq!(world.jwks()["keys"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn the_secret_key_is_rotated_and_nobody_is_logged_out_of_django_4_2() {
    rotate_the_secret_key(World::start(Release::V42), &[]);
}

#[test]
fn the_secret_key_is_rotated_and_nobody_is_logged_out_of_django_5_2() {
    let mut world = World::start(Release::V52);
    // With the bytes of the first SECRET_KEY `sid` is what it was before.
    world.sid_is_stable = true;
    rotate_the_secret_key(world, &["sid_key = { env = 'SID_KEY' }"]);
}

fn rotate_the_secret_key(world: World, lines: &[&str]) {
    let (old, new) = (OLD_SECRET_KEY, NEW_SECRET_KEY);
    let django_has_one_process = world.release == Release::V42;
    accept(&world, &["k1"]);
    let gateway = |secret_key: &str, fallback: Option<&str>| {
        let mut setup = with_keys(&world, &["k1"])
            .secret_key(secret_key)
            .env("SID_KEY", old);
        for line in lines {
            setup = setup.line("gateway", line);
        }
        match fallback {
            Some(fallback) => setup
                .line("django", "secret_key_fallbacks = [{ env = 'FALLBACK' }]")
                .env("FALLBACK", fallback),
            None => setup,
        }
    };
    world.under_traffic(&gateway(old, None), |world| {
        // 1. The gateways can read the new key, and all of Django's processes.
        world.roll_gateways(&gateway(old, Some(new)));
        if django_has_one_process {
            // 2. Django signs with it.
            world.restart_django(new, &[old]);
        } else {
            world.roll_django(old, &[new]);
            world.roll_django(new, &[old]);
        }
        // 3. The gateways sign with it.
        world.roll_gateways(&gateway(new, Some(old)));
        world.all_rows_are_signed_with(new);
        // 4. Nobody has to read the old one any more.
        world.roll_django(new, &[]);
        world.roll_gateways(&gateway(new, None));
    });
}

/// Otherwise a session that a service only ever extends would outlive the wait for the old key's end.
#[test]
fn an_extended_session_is_signed_with_the_first_key() {
    let (database, app) = (Database::sqlite(), Upstream::start());
    app.answers(reply(200).set("{}"));
    let gateway = Gateway::before(&database, &app)
        .line("django", "secret_key_fallbacks = [{ env = 'FALLBACK' }]")
        .env("FALLBACK", OLD_SECRET_KEY)
        .secret_key(NEW_SECRET_KEY)
        .start();
    let extended = |key: &str| {
        let visit = gateway.get("/").session(key).send();
        visit.is_upstreams(200);
        assert_eq!(visit.new_session().as_deref(), Some(key));
        database.data(key).unwrap()
    };
    let payload = br#"{"a":1.50,"b":NaN}"#;
    let old = rows::seal(OLD_SECRET_KEY, payload);
    let key = database.raw_session(&old, chrono::Duration::days(1));
    let row = extended(&key);
    assert_ne!(row, old);
    let signed = rows::seal(NEW_SECRET_KEY, payload);
    let body = |row: &str| row.split(':').next().unwrap().to_owned();
    assert_eq!(body(&row), body(&signed), "the data is the same");
    rows::is_signed(NEW_SECRET_KEY, &row);

    // With the first key already, not a byte changes.
    let key = database.raw_session(&signed, chrono::Duration::days(1));
    assert_eq!(extended(&key), signed);
}

/// A gateway that has these of the service's keys.
fn with_keys(world: &World, kids: &[&str]) -> Setup {
    let key = |kid: &&str| format!("{{ kid = '{kid}', secret = {{ env = '{kid}' }} }}");
    let list: Vec<String> = kids.iter().map(key).collect();
    let setup = world
        .gateway()
        .line("upstream.app", &format!("keys = [{}]", list.join(", ")));
    kids.iter()
        .fold(setup, |setup, kid| setup.env(kid, &secret(kid)))
}

/// The service accepts these of its keys.
fn accept(world: &World, kids: &[&str]) {
    let secrets = kids
        .iter()
        .map(|kid| ((*kid).to_owned(), json!(secret(kid))));
    world.app.accept_secrets(&Value::Object(secrets.collect()));
}

fn secret(kid: &str) -> String {
    format!("secret-{kid}-0123456789-0123456789-0123456789")
}

fn publishing(kid: &str, seed: u8) -> String {
    let public_key = SigningKey::from_bytes(&[seed; 32]).verifying_key();
    let x = BASE64_URL_SAFE_NO_PAD.encode(public_key.as_bytes());
    format!("published = [{{ kid = '{kid}', public_key = '{x}' }}]")
}
