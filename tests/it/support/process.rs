//! A program that runs beside the test, and what it prints.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Instant,
};

use super::{PATIENCE, eventually};

/// A running program. It is killed when this is dropped.
pub struct Process {
    child: Child,
    output: Arc<Output>,
    /// The helpers written in Python end when this closes, even if the test is killed.
    stdin: Option<ChildStdin>,
}

/// Standard output and error, line by line as they came.
#[derive(Default)]
struct Output {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let output = Arc::new(Output::default());
        collect(child.stdout.take().unwrap(), &output);
        collect(child.stderr.take().unwrap(), &output);
        let stdin = child.stdin.take();
        Self {
            child,
            output,
            stdin,
        }
    }

    /// What follows `text` in the first line that contains it, as soon as there is one.
    pub fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.output.lines.lock().unwrap();
        loop {
            if let Some(rest) = lines.iter().find_map(|line| line.split_once(text)) {
                return rest.1.to_owned();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let output = lines.join("\n");
                drop(lines);
                panic!("no {text:?} in the output:\n{output}");
            }
            lines = self.output.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// The address that follows `text`.
    pub fn address_after(&self, text: &str) -> SocketAddr {
        let rest = self.wait_for(text);
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && !".:".contains(c))
            .unwrap_or(rest.len());
        rest[..end]
            .parse()
            .unwrap_or_else(|_| panic!("no address after {text:?}: {rest}"))
    }

    /// Everything printed so far.
    pub fn output(&self) -> String {
        // Asked for when a test has failed, perhaps in here.
        let lines = self.output.lines.lock();
        lines.unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal: `INT`, `TERM`, `KILL` ...
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- output of process {} ---\n{}\n---",
                self.id(),
                self.output()
            );
        }
    }
}

/// Sends a signal to a process. It may be gone already.
pub fn signal(id: u32, name: &str) {
    let _ = Command::new("kill")
        .args(["-s", name, &id.to_string()])
        .stderr(Stdio::null())
        .status();
}

fn collect(stream: impl Read + Send + 'static, output: &Arc<Output>) {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            output
                .lines
                .lock()
                .unwrap()
                .push(String::from_utf8_lossy(&line).into_owned());
            output.more.notify_all();
        }
    });
}
