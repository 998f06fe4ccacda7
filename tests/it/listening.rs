//! Where clients come in: sockets, TLS, HTTP/2, PROXY protocol, and what a slow or greedy client may take.

mod deadlines;
mod h2;
mod numbers;
mod proxy;
mod rest;
mod sockets;
mod tls;
