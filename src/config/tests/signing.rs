//! The gateway's own keys: which spellings are read, and what is said of the others.

use super::*;

/// `openssl genpkey -algorithm ed25519`, and `openssl pkey -pubout` of it without its first 12 bytes.
const PEM: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIEm4J/3tL6XlJXJLFGsVA20ShMOHJvjqVE8tM6HvT/kK
-----END PRIVATE KEY-----
";
const SEED: &str = "base64:Sbgn/e0vpeUlcksUaxUDbRKEw4cm+OpUTy0zoe9P+Qo=";
const PUBLIC: &str = "HfRjkqh7yzEZE_qu7C3DxWDQTQ7W4l9cu_C4xReEfuc";

/// The good file with this private key, and these lines in `[gateway]`.
fn with_key(key: &str, lines: &str) -> Result<Loaded, Vec<String>> {
    let lines = format!(
        "issuer = \"https://shop.example\"\nsigning = {{ kid = \"g\", private_key = {{ env = \"KEY\" }} }}\n{lines}"
    );
    let text = edited("issuer = \"https://shop.example\"", &lines);
    let env = |name: &str| match name {
        "KEY" => Some(key.into()),
        name => env(name),
    };
    let path = Path::new("gateway.toml");
    let result = Config::parse(&text, path, &env, LoadOptions::default());
    result.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_private_key_is_read_in_both_spellings() {
    let crlf = PEM.replace('\n', "\r\n");
    let url_safe = SEED.replace('/', "_").replace('+', "-").replace('=', "");
    let padded = format!("\n{PEM}\n\n");
    for key in [PEM, SEED, &crlf, &url_safe, &padded] {
        let gateway = with_key(key, "").expect(key).config.gateway;
        let signing = gateway.signing.expect("a key");
        let public_key = signing.private_key.verifying_key();
        let public = secrets::base64(PUBLIC.as_bytes()).expect("base64");
        assert_eq!(
            (signing.kid.as_str(), &public_key.as_bytes()[..]),
            ("g", &*public)
        );
    }
}

#[test]
fn what_is_no_ed25519_key_is_told_in_a_sentence_of_its_own() {
    let wrapped = |label: &str, body: &str| {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    let twice = format!("base64:{0}{0}", "hunter2".repeat(6) + "A");
    for (key, why) in [
        (
            String::from("hunter2"),
            "neither a PEM text (BEGIN PRIVATE KEY) nor base64: and a seed",
        ),
        (
            "base64:hunter2!".into(),
            "what follows base64: is not base64",
        ),
        (
            "base64:hunter2A".into(),
            "what follows base64: is not a seed of 32 bytes",
        ),
        (
            twice,
            "are 64 bytes; the seed alone, the first 32, is wanted",
        ),
        (
            wrapped("ENCRYPTED PRIVATE KEY", "hunter2"),
            "nobody is there to type its password",
        ),
        (
            wrapped("PUBLIC KEY", "hunter2"),
            "this is a public key; the private one signs",
        ),
        (
            wrapped("OPENSSH PRIVATE KEY", "hunter2"),
            "this is a key for OpenSSH, not PKCS#8",
        ),
        (
            wrapped("RSA PRIVATE KEY", "hunter2"),
            "another kind than Ed25519",
        ),
        (
            wrapped("EC PRIVATE KEY", "hunter2"),
            "another kind than Ed25519",
        ),
        // X25519 and P-256, as openssl writes them.
        (
            wrapped(
                "PRIVATE KEY",
                "MC4CAQAwBQYDK2VuBCIEIJjQ0d9EyBdIyJ6IamGbGJIcp+fatOCjIDixXGlGplxh",
            ),
            "another kind than Ed25519",
        ),
        (
            wrapped(
                "PRIVATE KEY",
                "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgRTlimIODAA++P4bm\n\
                 se4xaDrl23DvQg+gqxHNjSX4eTehRANCAASJQLXjgKeFBV4okchaHJ1x4lwM9Wn5\n\
                 DWXqIvzg7mrQi4C0EdiVrKOs2KA1NklVediB0cdCAoa2weS75LJ23TWA",
            ),
            "another kind than Ed25519",
        ),
        (
            wrapped("PRIVATE KEY", "hunter2"),
            "this PEM text does not hold an Ed25519 key",
        ),
        (
            PEM.replace("T/kK", "T/k"),
            "this PEM text does not hold an Ed25519 key",
        ),
        (
            PEM.replace("-----END", "---END"),
            "this PEM text does not hold an Ed25519 key",
        ),
    ] {
        let problems = with_key(&key, "").expect_err(&key);
        let start = "gateway.toml:3:38: \"private_key\" in signing of [gateway]: ";
        let end = format!("{why}; such as the output of: openssl genpkey -algorithm ed25519");
        assert!(
            problems.len() == 1 && problems[0].starts_with(start) && problems[0].ends_with(&end),
            "{key}: {problems:?}"
        );
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
}

#[test]
fn a_private_key_is_never_published_by_mistake() {
    let published = |key: &str| {
        with_key(
            PEM,
            &format!("published = [{{ kid = \"p\", public_key = \"{key}\" }}]"),
        )
    };
    let gateway = published(PUBLIC).expect("a good file").config.gateway;
    assert_eq!(
        (gateway.published.len(), gateway.published[0].kid.as_str()),
        (1, "p")
    );
    let seed = SEED.trim_start_matches("base64:");
    for (key, why) in [
        (
            seed,
            "this is the private key itself, which would be published",
        ),
        (
            SEED,
            "this is not an Ed25519 public key: the 43 characters of \"x\" in its JWK, or 32 bytes in base64",
        ),
        (
            "AQ",
            "this is not an Ed25519 public key: the 43 characters of \"x\" in its JWK, or 32 bytes in base64",
        ),
        // No point of the curve, and a point of low order.
        (
            "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "this is not an Ed25519 public key: the 43 characters of \"x\" in its JWK, or 32 bytes in base64",
        ),
        (
            "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "this is a weak public key, for which anybody can sign",
        ),
    ] {
        let problems = published(key).expect_err(key);
        let expected =
            format!("gateway.toml:4:40: \"public_key\" in published of [gateway]: {why}");
        assert_eq!(problems, [expected], "{key}");
    }
    let debug = format!("{gateway:?}");
    assert!(
        !debug.contains("[73, 184") && !debug.contains("49b8") && !debug.contains("Sbgn"),
        "{debug}"
    );
}

#[test]
fn keys_are_served_where_there_are_keys_and_an_address() {
    let signing = "signing = { kid = \"g\", private_key = { env = \"SIGNING_KEY\" } }";
    let address = "address = \"127.0.0.1:1\"";
    let without = edited("[gateway]", &format!("[health]\n{address}\n[gateway]"));
    assert_eq!(parse(&without).expect("good").config.jwks, None);
    let text = edited(
        "issuer = \"https://shop.example\"",
        &format!("issuer = \"x\"\n{signing}"),
    );
    assert_eq!(parse(&text).expect("good").config.jwks, None);
    let served = |health: &str| {
        let text = text.replace("[gateway]", &format!("[health]\n{health}\n[gateway]"));
        parse(&text).map(|loaded| loaded.config.jwks)
    };
    assert_eq!(
        served(address),
        Ok(Some("/.well-known/jwks.json".to_owned()))
    );
    let elsewhere = format!("{address}\njwks = \"/keys\"");
    assert_eq!(served(&elsewhere), Ok(Some("/keys".to_owned())));
}

#[test]
fn what_the_keys_are_for_is_remarked_on() {
    let loaded = with_key(PEM, "").expect("a good file");
    let told: Vec<_> = loaded
        .remarks
        .iter()
        .map(|remark| remark.sentence.as_str())
        .collect();
    assert!(
        told.contains(&"remark: no upstream has algorithm = \"EdDSA\": this key is published and signs nothing")
            && told.contains(&"remark: nobody can fetch the public key: there is no address in [health]"),
        "{told:?}"
    );
}
