//! Large bodies in constant memory.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Instant,
};

use bytes::Bytes;
use tokio::runtime::Runtime;

use super::{sized, usage};
use crate::support::{Connection, Gateway, Served, Upstream, http::head_lines};

const MIB: u64 = 1 << 20;

/// What the gateway's memory may grow by, in KiB, however large the body is.
const GROWTH: u64 = 20 * 1024;

fn size() -> u64 {
    sized(96 * MIB, 1024 * MIB)
}

/// Takes a body of any size, and answers with how large it was; or sends one of the size that the path tells.
fn upstream() -> Upstream {
    Upstream::raw(|stream| {
        let _ = serve(stream);
    })
}

fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = std::io::BufReader::with_capacity(256 * 1024, stream);
    let zeros = vec![0; 256 * 1024];
    loop {
        let lines = head_lines(&mut reader)?;
        let fields = crate::support::http::fields(&lines[1..]);
        if let Some(size) = lines[0].strip_prefix("GET /") {
            let mut left: u64 = size.split(' ').next().unwrap().parse().unwrap();
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {left}\r\n\r\n")?;
            while left > 0 {
                let part = left.min(zeros.len() as u64);
                writer.write_all(&zeros[..part as usize])?;
                left -= part;
            }
            continue;
        }
        let length = crate::support::http::all(&fields, "content-length");
        let length: u64 = length[0].parse().unwrap();
        let taken = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        let told = taken.to_string();
        write!(
            writer,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{told}",
            told.len()
        )?;
    }
}

fn gateway(app: &Upstream) -> Gateway {
    let gateway = Gateway::alone(app)
        .line("limits", "request_body = 'unlimited'")
        .start();
    // What the first requests take once and for all is no growth.
    up_h1(&gateway, 8 * MIB);
    down_h1(&gateway, 8 * MIB);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(up_h2(gateway.address(), 8 * MIB));
    runtime.block_on(down_h2(gateway.address(), 8 * MIB));
    usage::forget_most_memory(&gateway);
    gateway
}

/// Runs a transfer, and tells of it.
fn in_constant_memory(what: &str, transfer: impl FnOnce(&Gateway, u64)) {
    let app = upstream();
    let gateway = gateway(&app);
    let before = usage::memory(&gateway);
    let begun = Instant::now();
    transfer(&gateway, size());
    let seconds = begun.elapsed().as_secs_f64();
    let growth = usage::most_memory(&gateway).saturating_sub(before);
    println!(
        "load: {} MiB {what}: memory before {:.1} MiB, grown by {:.1} MiB at most, {:.0} MiB/s",
        size() / MIB,
        before as f64 / 1024.0,
        growth as f64 / 1024.0,
        (size() / MIB) as f64 / seconds
    );
    assert!(growth < GROWTH, "{what}: grown by {growth} KiB");
}

#[test]
fn edge_17_a_large_body_goes_up_over_http_1_in_constant_memory() {
    in_constant_memory("up over HTTP/1.1", up_h1);
}

#[test]
fn edge_17_a_large_body_comes_down_over_http_1_in_constant_memory() {
    in_constant_memory("down over HTTP/1.1", down_h1);
}

#[test]
fn edge_17_a_large_body_goes_up_over_http_2_in_constant_memory() {
    in_constant_memory("up over HTTP/2", |gateway, size| {
        Runtime::new()
            .unwrap()
            .block_on(up_h2(gateway.address(), size));
    });
}

#[test]
fn edge_17_a_large_body_comes_down_over_http_2_in_constant_memory() {
    in_constant_memory("down over HTTP/2", |gateway, size| {
        Runtime::new()
            .unwrap()
            .block_on(down_h2(gateway.address(), size));
    });
}

fn up_h1(gateway: &Gateway, size: u64) {
    let mut connection = Connection::open(gateway.address());
    let head = format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {size}\r\n\r\n");
    connection.write(head.as_bytes()).unwrap();
    let part = vec![0; 256 * 1024];
    for _ in 0..size / part.len() as u64 {
        connection.write(&part).unwrap();
    }
    let answer = connection.answer("POST");
    assert_eq!((answer.status, answer.text()), (200, size.to_string()));
}

fn down_h1(gateway: &Gateway, size: u64) {
    let mut connection = Connection::open(gateway.address());
    let head = format!("GET /{size} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n");
    connection.write(head.as_bytes()).unwrap();
    assert_eq!(connection.head().unwrap().status, 200);
    let mut socket = connection.into_reader();
    let came = std::io::copy(&mut socket, &mut std::io::sink()).unwrap();
    assert_eq!(came, size);
}

async fn client(address: std::net::SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 20);
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

async fn up_h2(address: std::net::SocketAddr, size: u64) {
    let mut sender = client(address).await;
    let request = http::Request::post("http://shop.test/")
        .header("content-length", size)
        .body(())
        .unwrap();
    let (response, mut stream) = sender.send_request(request, false).unwrap();
    let part = Bytes::from(vec![0; 64 * 1024]);
    let mut left = size;
    while left > 0 {
        let wanted = part.len().min(usize::try_from(left).unwrap());
        stream.reserve_capacity(wanted);
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let room = room.unwrap().unwrap().min(wanted);
        left -= room as u64;
        stream.send_data(part.slice(..room), left == 0).unwrap();
    }
    let mut body = response.await.unwrap().into_body();
    let told = body.data().await.unwrap().unwrap();
    assert_eq!(told, size.to_string());
}

async fn down_h2(address: std::net::SocketAddr, size: u64) {
    let mut sender = client(address).await;
    let request = http::Request::get(format!("http://shop.test/{size}"))
        .body(())
        .unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut came = 0;
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        came += part.len() as u64;
        body.flow_control().release_capacity(part.len()).unwrap();
    }
    assert_eq!(came, size);
}
