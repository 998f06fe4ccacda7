//! `demo`: a database, a service and the gateway in one process.
//!
//! Nothing in the gateway knows of it: the demo writes a configuration, and the gateway runs from that.

mod folder;
mod page;
mod shop;
mod site;
mod web;

use std::{
    fmt::Display,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use self::{folder::Folder, shop::Shop, site::Site};
use super::{
    failure,
    run::{Fate, block_on, ends},
};
use crate::{
    gateway::{Current, Gateway},
    server::Server,
    sessions::Sessions,
    store::OpenError,
    telemetry::metrics::Metrics,
};

/// How many ports are tried, from the usual one on.
const TRIES: u16 = 100;

/// Everything is in this process: what has not answered by then will not.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// Where each part listens, on the loopback address.
#[derive(Clone, Copy, Debug)]
struct Ports {
    gateway: u16,
    health: u16,
    shop: u16,
    site: u16,
}

/// Runs until SIGINT or SIGTERM. Without `data` everything is in a temporary folder, which is removed then.
pub fn demo(data: Option<&Path>) -> ExitCode {
    match Folder::open(data).and_then(|folder| block_on(serve(&folder))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => failure(&sentence, 1),
    }
}

async fn serve(folder: &Folder) -> Result<(), String> {
    folder.fill().await?;
    // The gateway opens its own sockets from its configuration, so these two are only looked for.
    let gateway = free_port(8080, "").await?.0;
    let health = free_port(9080, " for the health page").await?.0;
    let (shop, shop_listener) = free_port(3001, " for the shop").await?;
    let (site, site_listener) = free_port(8000, " for the stand-in for Django").await?;
    let ports = Ports {
        gateway,
        health,
        shop,
        site,
    };
    let config = folder.configure(ports)?;

    let unusable = |error: OpenError| {
        format!(
            "the database {} cannot be used: {error}",
            folder.database().display()
        )
    };
    let metrics = Arc::<Metrics>::default();
    let sessions = Sessions::open(&config, metrics.clone()).map_err(unusable)?;
    let answer = sessions.store().first_contact(FIRST_ANSWER).await;
    answer.map_err(unusable)?;
    let server = Server::bind(&config)
        .await
        .map_err(|error| error.to_string())?;
    let site = Arc::new(Site::new(&config, folder.database()));
    let shop = Arc::new(Shop::new(&config, ports)?);
    tokio::spawn(web::serve(shop_listener, move |request| {
        shop.clone().answer(request)
    }));
    tokio::spawn(web::serve(site_listener, move |request| {
        site.clone().answer(request)
    }));
    let gateway = Gateway::new(config, sessions, metrics);
    gateway.start();
    let (_signals, ends) = ends(Fate::default()).map_err(cannot("signals cannot be waited for"))?;
    let serving = tokio::spawn(server.run(Arc::new(Current::new(gateway)), ends));

    let answers = first_answer(ports.gateway).await;
    // Whoever ends it at once has nothing to be told.
    if !serving.is_finished() {
        answers?;
        say(&introduction(folder, ports));
    }
    serving.await.map_err(cannot("the gateway broke off"))?;
    say(&folder.farewell());
    Ok(())
}

/// A listener on the usual port or the next free one, which is then said.
async fn free_port(usual: u16, what_for: &str) -> Result<(u16, TcpListener), String> {
    for port in usual..usual.saturating_add(TRIES) {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) if port == usual => return Ok((port, listener)),
            Ok(listener) => {
                say(&format!("Port {usual} is taken; using {port}{what_for}.\n"));
                return Ok((port, listener));
            }
            // Windows says so of ports that are set aside for somebody else.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
                ) => {}
            Err(error) => {
                return Err(format!(
                    "no socket on {} can be opened: {error}",
                    Ipv4Addr::LOCALHOST
                ));
            }
        }
    }
    Err(format!(
        "the ports from {usual} to {} are all taken",
        usual.saturating_add(TRIES - 1)
    ))
}

/// Asks for the page as a browser will, so that the address is told only when it is good.
async fn first_answer(port: u16) -> Result<(), String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(FIRST_ANSWER, ask)
        .await
        .map_err(|_| {
            format!(
                "nothing answered on {address} within {} s",
                FIRST_ANSWER.as_secs()
            )
        })?
        .map_err(cannot("the gateway does not answer"))?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let line = answer
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    Err(format!(
        "the gateway answered {:?} where 200 was expected",
        String::from_utf8_lossy(line)
    ))
}

fn introduction(folder: &Folder, ports: Ports) -> String {
    let Ports {
        gateway,
        health,
        shop,
        site,
    } = ports;
    let url = format!("http://127.0.0.1:{gateway}/");
    let jar = quoted(&folder.cookie_jar());
    let again = match folder.kept_config() {
        Some(file) => format!(
            "  again     session-gateway run --config {}\n",
            quoted(&file)
        ),
        None => String::new(),
    };
    format!(
        "Demo: {url}  (Ctrl-C ends it)\n\n  \
         gateway   127.0.0.1:{gateway}, in front of the two\n  \
         shop      127.0.0.1:{shop}, a service that reads X-Session\n  \
         site      127.0.0.1:{site}, stands in for Django, with {url}accounts/login/\n  \
         health    http://127.0.0.1:{health}/readyz\n  \
         database  {}\n{again}\n\
         Without a browser:\n  \
         curl -s -b {jar} -c {jar} -d '' {url}count\n  \
         curl -s -b {jar} {url}\n",
        folder.database().display(),
    )
}

/// A path as a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    if text.bytes().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Standard output may be gone; the demo goes on all the same.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Turns an error into a sentence that starts with `what`.
fn cannot<E: Display>(what: &str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_path_is_one_word_to_a_shell() {
        assert_eq!(
            quoted(Path::new("/tmp/demo-1/cookies.txt")),
            "/tmp/demo-1/cookies.txt"
        );
        assert_eq!(quoted(Path::new("/tmp/my demo")), "'/tmp/my demo'");
        assert_eq!(quoted(Path::new("/tmp/it's$HOME")), "'/tmp/it'\\''s$HOME'");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let usual = taken.local_addr().unwrap().port();
        let (port, _) = free_port(usual, "").await.unwrap();
        assert!(port > usual);
    }
}
