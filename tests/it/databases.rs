//! What is different from database to database.

mod login;
mod mariadb;
mod server;
