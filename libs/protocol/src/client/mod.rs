//! The frames between a phone and its gateway: JSON objects with a `type`, one per WebSocket text message.

mod cursor;
mod friend_text;
mod inbound;
mod number;
mod outbound;

pub use cursor::{BadCursor, PageCursor};
pub use friend_text::FriendTexts;
pub(crate) use inbound::ClientFrameSchema;
pub use inbound::{BadFrame, ClientFrame, Init, Limit, Report, decode, decode_reports};
pub use outbound::{ErrorCode, ErrorFrame, Friend, GoneReason, Nearby, Notice, NoticeCode, ServerFrame};
