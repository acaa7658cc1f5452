mod page;
mod requests;
mod server;
