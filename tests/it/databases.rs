//! Real Django on each database, beside the gateway.

mod mariadb;
