//! Django's messages, which wait in the session for the page that shows them.

use serde_json::json;

use super::Site;
use crate::support::Served as _;

pub(super) fn messages_wait_for_their_reader(site: &Site) {
    let key = site.log_in("alice");
    let read = || {
        let answer = site.django.post("/messages/").session(&key).send();
        answer.json()["messages"].take()
    };
    // JSON in a JSON text, with what either of them escapes.
    let texts = [
        "saved",
        "\u{e9}\"\\/<b>",
        "\u{65e5}\u{672c} \u{1f36a}\u{7f}",
    ];
    for text in texts {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let target = format!("/message/?text={encoded}");
        site.django.post(&target).session(&key).send();
    }
    let waiting = site.django.session(&key)["_messages"].take();
    assert!(waiting.is_string(), "{waiting}");

    // They are nobody else's business, and survive what others do with the session.
    assert_eq!(site.claims(&key)["session"], json!({}));
    site.patch(&key, r#"{"set":{"cart":["a"]}}"#);
    for forbidden in [r#"{"set":{"_messages":"[]"}}"#, r#"{"del":["_messages"]}"#] {
        let answer = site.app(&key).field("X-Test-Set", forbidden).send();
        answer.is_error(502, "bad-session-set");
    }
    assert_eq!(site.django.session(&key)["_messages"], waiting, "as it was");
    let cycled = site.patch(&key, r#"{"cycle":true}"#).new_session().unwrap();
    assert_eq!(site.django.session(&cycled)["_messages"], waiting);

    let answer = site.django.post("/messages/").session(&cycled).send();
    assert_eq!(answer.json()["messages"], json!(texts));
    let empty = site.django.post("/messages/").session(&cycled).send();
    assert_eq!(empty.json()["messages"], json!([]));
    assert_eq!(site.claims(&cycled)["session"], json!({"cart": ["a"]}));
    assert_eq!(read(), json!([]), "the old key has none");
}
