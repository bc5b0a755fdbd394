#![doc = include_str!("../README.md")]

pub mod connections;
mod error;
mod extract;
mod page;
mod tags;

pub use error::{ApiError, ApiResult};
pub use extract::{
    Administrator, AnyReader, Body, Fetcher, Params, Reader, Releaser, Responder, Segments,
    Session, WaitingSession, address, needed_reason, parse, parse_opt, recognise, unread,
};
pub use page::{List, PageParams};
pub use tags::Tags;
