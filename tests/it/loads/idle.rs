//! Many connections and tunnels that say nothing.

use std::{
    any::Any,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use http::Request;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Runtime,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{pki_types::ServerName, version::TLS13},
};

use super::{is_full, sized, usage};
use crate::support::{
    Certificate, Database, Gateway, PATIENCE, Served,
    websocket::{KEY, accept, masked},
};

/// Connections that one source address holds: it has fewer than 28,000 ports.
const OF_ONE_ADDRESS: usize = 5000;

/// An upstream that answers, agrees to WebSockets and sends back what comes through them, in one thread of few.
struct Echo(SocketAddr);

impl Served for Echo {
    fn address(&self) -> SocketAddr {
        self.0
    }
}

fn echo(runtime: &Runtime) -> Echo {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    Echo(address)
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let head = head(&mut stream).await?;
        if !head.contains("upgrade: websocket") {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await?;
            continue;
        }
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept(KEY)
        );
        stream.write_all(answer.as_bytes()).await?;
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await?;
        return Ok(());
    }
}

/// A head, in small letters.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await??;
        head.push(byte);
    }
    Ok(String::from_utf8_lossy(&head).to_ascii_lowercase())
}

async fn open(address: SocketAddr, number: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let source = Ipv4Addr::new(
        127,
        0,
        1,
        u8::try_from(number / OF_ONE_ADDRESS + 1).unwrap(),
    );
    socket.bind(SocketAddr::new(IpAddr::V4(source), 0)).unwrap();
    timeout(PATIENCE, socket.connect(address))
        .await
        .unwrap()
        .unwrap()
}

async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        .await
        .unwrap();
    let head = head(stream).await.unwrap();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let mut body = [0; 2];
    stream.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"ok");
}

async fn tunnel(stream: &mut TcpStream) {
    let ask = format!(
        "GET /chat HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let head = head(stream).await.unwrap();
    assert!(head.starts_with("http/1.1 101"), "{head}");
}

/// Waits until the gateway has let go of what idle connections do not need, and gives what it has then, in KiB.
fn settled(gateway: &Gateway) -> u64 {
    let mut seen = usage::memory(gateway);
    loop {
        // Longer than it takes until the last one is set aside.
        std::thread::sleep(Duration::from_secs(3));
        let now = usage::memory(gateway);
        if now.abs_diff(seen) < 256 {
            return now;
        }
        seen = now;
    }
}

/// Makes a request, and gives what keeps the connection.
async fn used<S>(mut stream: S, is_h2: bool) -> Box<dyn Any>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if !is_h2 {
        ask(&mut stream).await;
        return Box::new(stream);
    }
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let request = Request::get("http://shop.test/").body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    while let Some(data) = body.data().await {
        assert_eq!(&data.unwrap()[..], b"ok");
    }
    Box::new(sender)
}

#[test]
fn idle_connections_of_each_protocol_are_held_and_leave_nothing_behind() {
    let connections = sized(200, 8_000);
    let runtime = Runtime::new().unwrap();
    let app = echo(&runtime);
    let database = Database::sqlite();
    let certificate = Certificate::new(&["shop.test"]);
    for (protocol, secure, is_h2) in [
        ("HTTP/1.1", false, false),
        ("HTTP/1.1 with TLS", true, false),
        ("HTTP/2", false, true),
        ("HTTP/2 with TLS", true, true),
    ] {
        let mut setup = Gateway::over(&database)
            .upstream("app", &app)
            .line("limits", "connections = 20000")
            .line("timeouts", "idle = '10m'")
            .route("path = '/'\nupstream = 'app'");
        if secure {
            setup = setup.listener(&format!("tls = [{}]", certificate.entry()));
        }
        let gateway = setup.start();
        let protocols: &[&[u8]] = if is_h2 { &[b"h2"] } else { &[] };
        let connector = TlsConnector::from(Arc::new(certificate.client(&[&TLS13], protocols)));
        let hold = async |number| {
            let stream = open(gateway.address(), number).await;
            if !secure {
                return used(stream, is_h2).await;
            }
            let name = ServerName::try_from("shop.test").unwrap();
            let stream = connector.connect(name, stream).await.unwrap();
            used(stream, is_h2).await
        };
        runtime.block_on(async {
            for number in 0..50 {
                drop(hold(number).await);
            }
        });
        let before = settled(&gateway);
        let held = runtime.block_on(async {
            let mut held = Vec::new();
            for number in 0..connections {
                held.push(hold(number).await);
            }
            held
        });
        let with = settled(&gateway);
        runtime.block_on(async move { drop(held) });
        let gone = Instant::now();
        let mut after = usage::memory(&gateway);
        // The allocator gives back what is free when it is asked for something else.
        while after * 10 > before * 12 && gone.elapsed() < Duration::from_secs(20) {
            runtime.block_on(async { drop(hold(0).await) });
            after = usage::memory(&gateway);
        }
        println!(
            "load: {connections} idle connections, {protocol}: {:.1} MiB without, {:.1} MiB with them ({:.1} KiB \
             each), {:.1} MiB {:.1} s after they have gone",
            before as f64 / 1024.0,
            with as f64 / 1024.0,
            with.saturating_sub(before) as f64 / connections as f64,
            after as f64 / 1024.0,
            gone.elapsed().as_secs_f64(),
        );
        // What is measured is in docs/operations.md. A debug build, and few of them, need more.
        if is_full() {
            let most = if secure { 20 } else { 12 };
            let each = with.saturating_sub(before) / connections as u64;
            assert!(is_h2 || each <= most, "{each} KiB for each: {protocol}");
        }
    }
}

#[test]
fn many_idle_connections_and_tunnels_are_held_at_once() {
    let (connections, tunnels) = sized((500, 100), (10_000, 2_000));
    let runtime = Runtime::new().unwrap();
    let app = echo(&runtime);
    let database = Database::sqlite();
    let gateway = Gateway::over(&database)
        .upstream("app", &app)
        .line("limits", "connections = 20000")
        .line("timeouts", "idle = '10m'")
        .route("path = '/'\nupstream = 'app'")
        .start();
    runtime.block_on(async {
        for number in 0..50 {
            ask(&mut open(gateway.address(), number).await).await;
        }
    });
    let empty = settled(&gateway);

    let mut idle = runtime.block_on(async {
        let mut idle = Vec::new();
        for number in 0..connections {
            let mut stream = open(gateway.address(), number).await;
            ask(&mut stream).await;
            idle.push(stream);
        }
        idle
    });
    let with_idle = settled(&gateway);
    let mut held = runtime.block_on(async {
        let mut held = Vec::new();
        for number in 0..tunnels {
            let mut stream = open(gateway.address(), connections + number).await;
            tunnel(&mut stream).await;
            held.push(stream);
        }
        held
    });
    let with_tunnels = settled(&gateway);
    println!(
        "load: {connections} idle connections and {tunnels} tunnels at once: {:.1} MiB without, \
         {:.1} MiB with the connections ({:.1} KiB each), {:.1} MiB with both ({:.1} KiB for each tunnel)",
        empty as f64 / 1024.0,
        with_idle as f64 / 1024.0,
        with_idle.saturating_sub(empty) as f64 / connections as f64,
        with_tunnels as f64 / 1024.0,
        with_tunnels.saturating_sub(with_idle) as f64 / tunnels as f64,
    );

    // All of them are there and work.
    runtime.block_on(async {
        let message = masked(1, true, b"still there");
        for stream in &mut held {
            stream.write_all(&message).await.unwrap();
        }
        for stream in &mut held {
            let mut back = vec![0; message.len()];
            let read = timeout(Duration::from_secs(30), stream.read_exact(&mut back)).await;
            read.unwrap().unwrap();
            assert_eq!(back, message);
        }
        for stream in &mut idle {
            ask(stream).await;
        }
    });
    // A debug build needs more; what is measured is in docs/operations.md.
    let each = with_idle.saturating_sub(empty) / connections as u64;
    assert!(each < 128, "{each} KiB for each idle connection");
    let each = with_tunnels.saturating_sub(with_idle) / tunnels as u64;
    assert!(each < 256, "{each} KiB for each tunnel");
}
