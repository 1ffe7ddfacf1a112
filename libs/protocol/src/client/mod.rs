//! The frames between a phone and its gateway: JSON objects with a `type`, one per WebSocket text message.

mod cursor;
mod friend_text;
mod inbound;
mod inbound_schema;
mod number;
mod outbound;

pub use cursor::{BadCursor, PageCursor};
pub use friend_text::FriendTexts;
pub use inbound::{BadFrame, ClientFrame, Init, Limit, Report, decode, decode_reports};
pub(crate) use inbound_schema::ClientFrameSchema;
pub use outbound::{ErrorCode, ErrorFrame, Friend, GoneReason, Nearby, Notice, NoticeCode, ServerFrame};
