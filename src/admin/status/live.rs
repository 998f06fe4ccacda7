//! A page that is put together once as HTML, and again as what has changed in it.
//!
//! What may change has an id; its text, state or path is noted beside the HTML. So the page and `/status.json` cannot
//! differ, values are escaped in one place, and a page is useful before its script has run.

use std::{
    fmt::Write as _,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use serde_json::{Map, Value};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Good,
    /// Worth a look.
    Odd,
    /// Something does not work.
    Bad,
}

impl Health {
    const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Odd => "odd",
            Self::Bad => "bad",
        }
    }
}

/// A page under construction.
#[derive(Debug, Default)]
pub struct Live {
    html: String,
    texts: Map<String, Value>,
    states: Map<String, Value>,
    paths: Map<String, Value>,
    count: usize,
    shape: DefaultHasher,
}

impl Live {
    /// Markup of this program's own.
    pub fn markup(&mut self, html: &'static str) -> &mut Self {
        html.hash(&mut self.shape);
        self.html.push_str(html);
        self
    }

    /// A text that stays as long as the page does; whatever is in it.
    pub fn text(&mut self, text: &str) -> &mut Self {
        text.hash(&mut self.shape);
        escape(&mut self.html, text);
        self
    }

    /// A text that changes.
    pub fn live(&mut self, text: impl Into<String>) -> &mut Self {
        let (id, text) = (self.id('t'), text.into());
        // Writing to a String cannot fail.
        let _ = write!(self.html, "<span id=\"{id}\">");
        escape(&mut self.html, &text);
        self.html.push_str("</span>");
        self.texts.insert(id, text.into());
        self
    }

    /// A dot that says how something is, in colour and in words.
    pub fn dot(&mut self, health: Health, words: impl Into<String>) -> &mut Self {
        let id = self.id('s');
        let class = health.class();
        let _ = write!(self.html, "<span class=\"dot {class}\" id=\"{id}\"></span>");
        self.states.insert(id, format!("dot {class}").into());
        self.live(words)
    }

    /// A line through these values, oldest first, from 0 up to the largest.
    pub fn spark(&mut self, values: &[f64]) -> &mut Self {
        let id = self.id('p');
        let path = path(values);
        let _ = write!(
            self.html,
            "<svg class=\"spark\" viewBox=\"0 0 120 24\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
             <path id=\"{id}\" d=\"{path}\"/></svg>"
        );
        self.paths.insert(id, path.into());
        self
    }

    /// What the page consists of. It changes when a reload changes routes or upstreams.
    pub fn shape(&self) -> String {
        format!("{:016x}", self.shape.finish())
    }

    /// The page's body.
    pub fn html(&self) -> &str {
        &self.html
    }

    /// What changes, as the page's script reads it.
    pub fn json(&self) -> String {
        serde_json::json!({
            "shape": self.shape(),
            "texts": self.texts,
            "states": self.states,
            "paths": self.paths,
        })
        .to_string()
    }

    fn id(&mut self, kind: char) -> String {
        self.count += 1;
        kind.hash(&mut self.shape);
        format!("{kind}{}", self.count)
    }
}

/// Text for HTML, inside of elements and of quoted attributes.
fn escape(out: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
}

fn path(values: &[f64]) -> String {
    let most = values.iter().copied().fold(0.0, f64::max);
    let last = values.len().saturating_sub(1).max(1) as f64;
    let mut path = String::new();
    for (place, value) in values.iter().enumerate() {
        let (x, y) = (
            place as f64 / last * 120.0,
            if most > 0.0 {
                22.5 - value / most * 21.0
            } else {
                22.5
            },
        );
        let command = if place == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{command}{x:.1} {y:.1}");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_told_becomes_markup() {
        let hostile = "</span><script>alert('1')</script><img src=x onerror=\"alert(1)\">&amp;";
        let mut live = Live::default();
        live.text(hostile).live(hostile).dot(Health::Bad, hostile);
        let html = live
            .html()
            .replace("<span id=\"t1\">", "")
            .replace("<span id=\"t3\">", "");
        let html = html
            .replace("<span class=\"dot bad\" id=\"s2\">", "")
            .replace("</span>", "");
        assert!(!html.contains(['<', '>', '"', '\'']), "{html}");
        assert_eq!(html.matches("&lt;script&gt;").count(), 3);
        let json: Value = serde_json::from_str(&live.json()).unwrap();
        assert_eq!(json["texts"]["t1"], hostile);
        assert_eq!(json["states"]["s2"], "dot bad");
    }

    #[test]
    fn the_shape_is_that_of_what_does_not_change() {
        let shape = |fixed: &str, changing: &str| {
            let mut live = Live::default();
            live.markup("<p>")
                .text(fixed)
                .live(changing)
                .spark(&[1.0, 2.0]);
            live.shape()
        };
        assert_eq!(shape("a", "1"), shape("a", "2"));
        assert_ne!(shape("a", "1"), shape("b", "1"));
    }

    #[test]
    fn a_line_stays_inside_of_its_box() {
        assert_eq!(path(&[]), "");
        assert_eq!(path(&[0.0, 0.0]), "M0.0 22.5L120.0 22.5");
        assert_eq!(path(&[0.0, 5.0, 10.0]), "M0.0 22.5L60.0 12.0L120.0 1.5");
    }
}
