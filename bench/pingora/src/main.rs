//! A plain proxy made of Pingora: `bench-pingora PORT UPSTREAM_PORT`. It does what the nginx beside it does: connections
//! to the upstream are kept, and `X-Forwarded-*` are set.

use async_trait::async_trait;
use pingora::{
    Result,
    http::RequestHeader,
    prelude::HttpPeer,
    proxy::{ProxyHttp, Session, http_proxy_service},
    server::{Server, configuration::ServerConf},
};

struct Plain {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for Plain {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(
            self.upstream.as_str(),
            false,
            String::new(),
        )))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        (): &mut (),
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|address| address.as_inet()) {
            upstream.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        if let Some(host) = session.req_header().headers.get("host") {
            upstream.insert_header("X-Forwarded-Host", host)?;
        }
        upstream.insert_header("X-Forwarded-Proto", "http")
    }
}

fn main() {
    let mut ports = std::env::args().skip(1);
    let (Some(port), Some(upstream)) = (ports.next(), ports.next()) else {
        eprintln!("usage: bench-pingora PORT UPSTREAM_PORT");
        std::process::exit(2);
    };
    // One thread, as the others have on one CPU, and as many kept connections as they.
    let configuration = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 512,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let plain = Plain {
        upstream: format!("127.0.0.1:{upstream}"),
    };
    let mut service = http_proxy_service(&server.configuration, plain);
    service.add_tcp(&format!("127.0.0.1:{port}"));
    server.add_service(service);
    server.run_forever();
}
