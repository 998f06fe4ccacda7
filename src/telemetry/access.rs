//! The access log: one line a request, written by a thread of its own.
//!
//! A request hands its line over and goes on: it never waits for whoever reads the log. What does not fit into the
//! queue is left out and counted. Lines look like those of `tracing`, so that one parser reads them all.

use std::{
    cell::RefCell,
    fmt::{Display, Write as _},
    io,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chrono::DateTime;

use super::Format;

/// Lines that wait to be written: a megabyte, and what 100,000 requests a second make in 40 ms.
const MOST_WAITING: usize = 4096;

/// How long lines are gathered. To wake the thread for each one would cost the request more than the line itself.
const GATHER: Duration = Duration::from_millis(5);

/// How long the end of the program waits for what is not written yet.
const LAST: Duration = Duration::from_secs(2);

/// Lines that did not fit into the queue.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How everything else is logged.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// The way to the thread, which begins with the first line: before it some of the program's environment is taken
/// away, which is better done alone.
static LINES: OnceLock<Option<SyncSender<Task>>> = OnceLock::new();

enum Task {
    Write(String),
    /// Says when all before it is written.
    Flush(SyncSender<()>),
}

/// Lines may be written from now on; `format` is how everything else is logged.
pub(super) fn start(format: Format) {
    let _ = FORMAT.set(format);
}

fn lines() -> Option<&'static SyncSender<Task>> {
    FORMAT.get()?;
    let begin = || {
        let (lines, tasks) = sync_channel(MOST_WAITING);
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        let begun = thread.spawn(move || write(&tasks, &mut io::stderr()));
        begun.ok().map(|_| lines)
    };
    LINES.get_or_init(begin).as_ref()
}

/// Waits until everything is written, within reason.
pub fn flush() {
    let Some(Some(lines)) = LINES.get() else {
        return;
    };
    let (done, wait) = sync_channel(1);
    if lines.send(Task::Flush(done)).is_ok() {
        let _ = wait.recv_timeout(LAST);
    }
}

/// How everything else is logged.
pub fn usual_format() -> Format {
    FORMAT.get().copied().unwrap_or_default()
}

/// Lines that were left out because the queue was full.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Ends when nobody can send any more.
fn write(tasks: &Receiver<Task>, to: &mut impl io::Write) {
    let mut text = String::new();
    while let Ok(first) = tasks.recv() {
        let is_urgent = matches!(first, Task::Flush(_));
        if !is_urgent {
            std::thread::sleep(GATHER);
        }
        let mut flushed = Vec::new();
        let rest = std::iter::from_fn(|| tasks.try_recv().ok()).take(MOST_WAITING);
        for task in std::iter::once(first).chain(rest) {
            match task {
                Task::Write(line) => text.push_str(&line),
                Task::Flush(done) => flushed.push(done),
            }
        }
        // Nobody is left to be told that standard error is closed.
        let _ = to.write_all(text.as_bytes());
        text.clear();
        text.shrink_to(1024 * 1024);
        for done in flushed {
            let _ = done.try_send(());
        }
    }
}

/// A line that is being put together.
#[derive(Debug)]
pub struct Line {
    text: String,
    format: Format,
}

impl Line {
    /// Begins with the time.
    pub fn new(format: Format) -> Self {
        let mut text = String::with_capacity(512);
        match format {
            Format::Text => {
                push_time(&mut text);
                text.push_str("  INFO access:");
            }
            Format::Json => {
                text.push_str("{\"timestamp\":\"");
                push_time(&mut text);
                text.push_str("\",\"level\":\"INFO\",\"target\":\"access\"");
            }
        }
        Self { text, format }
    }

    /// A text, quoted: whatever a client has put into it, it ends neither the value nor the line.
    pub fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        push_quoted(&mut self.text, value);
    }

    /// A whole number.
    pub fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        self.text.push_str(itoa::Buffer::new().format(value));
    }

    /// `true`, or another value that has neither blanks nor quotes in it.
    pub fn plain(&mut self, name: &str, value: impl Display) {
        self.name(name);
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
    }

    /// An address or another word that JSON puts into quotes.
    pub fn word(&mut self, name: &str, value: &str) {
        self.name(name);
        let quote = match self.format {
            Format::Json => "\"",
            Format::Text => "",
        };
        self.text.push_str(quote);
        self.text.push_str(value);
        self.text.push_str(quote);
    }

    /// Hands the line over.
    pub fn send(mut self) {
        self.end();
        let Some(lines) = lines() else { return };
        if lines.try_send(Task::Write(self.text)).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn end(&mut self) {
        self.text.push_str(match self.format {
            Format::Text => "\n",
            Format::Json => "}\n",
        });
    }

    fn name(&mut self, name: &str) {
        match self.format {
            Format::Text => {
                self.text.push(' ');
                self.text.push_str(name);
                self.text.push('=');
            }
            Format::Json => {
                self.text.push_str(",\"");
                self.text.push_str(name);
                self.text.push_str("\":");
            }
        }
    }
}

/// RFC 3339 with microseconds. What is before the second is kept, because it is the same for many lines.
fn push_time(text: &mut String) {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    SECOND.with_borrow_mut(|(second, spelt)| {
        if *second != now.as_secs() || spelt.is_empty() {
            *second = now.as_secs();
            let time = i64::try_from(now.as_secs())
                .ok()
                .and_then(|now| DateTime::from_timestamp(now, 0));
            *spelt = time
                .unwrap_or_default()
                .format("%Y-%m-%dT%H:%M:%S")
                .to_string();
        }
        text.push_str(spelt);
    });
    let _ = write!(text, ".{:06}Z", now.subsec_micros());
}

/// A JSON string of ASCII: everything else is escaped, so that nothing moves a terminal's cursor or turns the
/// direction of what is read (RFC 8259, section 7).
fn push_quoted(text: &mut String, value: &str) {
    text.push('"');
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if value.bytes().all(is_plain) {
        text.push_str(value);
    } else {
        for letter in value.chars() {
            match letter {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                ' '..='~' => text.push(letter),
                _ => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        let _ = write!(text, "\\u{unit:04x}");
                    }
                }
            }
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn line(format: Format) -> String {
        let mut line = Line::new(format);
        line.word("client", "::1");
        line.text(
            "path",
            "/\"}\n2026 INFO access: status=200 \u{1b}[2J\u{202e}🦀\\",
        );
        line.plain("status", 404);
        line.end();
        line.text
    }

    #[test]
    fn no_value_ends_a_field_or_a_line() {
        let text = line(Format::Text);
        let (time, rest) = text.split_once("  INFO access: ").unwrap();
        assert!(DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
        assert_eq!(
            rest,
            "client=::1 path=\"/\\\"}\\u000a2026 INFO access: status=200 \\u001b[2J\\u202e\\ud83e\\udd80\\\\\" status=404\n"
        );
        let text = line(Format::Json);
        let (first, rest) = text.split_once('\n').unwrap();
        assert_eq!(rest, "");
        let mut read: Value = serde_json::from_str(first).unwrap();
        assert!(read["timestamp"].take().is_string());
        let path = "/\"}\n2026 INFO access: status=200 \u{1b}[2J\u{202e}🦀\\";
        assert_eq!(
            read,
            json!({"timestamp": null, "level": "INFO", "target": "access", "client": "::1", "path": path, "status": 404})
        );
    }

    #[test]
    fn everything_before_a_flush_is_written() {
        let (send, tasks) = sync_channel(10);
        let (done, wait) = sync_channel(1);
        for task in [
            Task::Write("a\n".to_owned()),
            Task::Write("b\n".to_owned()),
            Task::Flush(done),
        ] {
            send.send(task).unwrap();
        }
        drop(send);
        let mut written = Vec::new();
        write(&tasks, &mut written);
        wait.try_recv().unwrap();
        assert_eq!(written, b"a\nb\n");
    }
}
