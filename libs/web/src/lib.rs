//! What every HTTP surface shares, so that a client meets the same manners everywhere: who is calling ([`Caller`]),
//! what went wrong ([`Problem`]), how a list is read page by page ([`cursor`], [`Page`]), and whether this process
//! should be sent work ([`Readiness`]).

pub mod cursor;
pub mod extract;
pub mod openapi;
pub mod problem;
pub mod readiness;
pub mod server;
pub mod tokens;

pub use cursor::{Page, PageSize};
pub use extract::{Json, Path, Query, with_problem_fallbacks};
pub use problem::{Kind, Problem, ProblemBody};
pub use readiness::{Check, Readiness};
pub use server::{InForce, Place, ServerLimits, Taken, Takeover, Wire};
pub use tokens::{AuthError, Authenticator, Caller, Identity, KeyError, Scope, Scopes, Subject, TokenKeys};
