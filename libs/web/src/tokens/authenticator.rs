//! From a token to who is calling.

use std::fmt;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use model::{TimestampMs, UserId};
use ports::users::MAX_SUBJECT_BYTES;
use ports::{Clock, Users};

use super::{AuthError, LEEWAY, Scope, Scopes, TokenKeys, bearer};
use crate::Problem;

/// Finds out who is calling. Verifying is CPU work (an RSA signature about 50 us): admit first.
pub struct Authenticator {
    keys: TokenKeys,
    users: Arc<dyn Users>,
    clock: Clock,
}

/// Whom a token names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A decimal number: the user's id itself.
    User(UserId),
    /// Anything else: a name that an identity provider gave, which [`Users::resolve`] knows the id of.
    Named(String),
}

/// What a verified token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Whom it names; the token of a server may name nobody.
    pub subject: Option<Subject>,
    /// What it allows.
    pub scopes: Scopes,
    /// When it ceases to count: its `exp` and the leeway.
    pub expires: TimestampMs,
}

/// Who is calling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The user that the caller speaks for: there is one exactly if the scopes hold [`Scope::User`]. Whether the user
    /// exists is another question.
    pub user: Option<UserId>,
    /// What the caller may do.
    pub scopes: Scopes,
    /// When the token ceases to count.
    pub expires: TimestampMs,
}

impl Authenticator {
    /// Verifies with these keys, looks subjects up there, and takes the time from the clock.
    pub fn new(keys: TokenKeys, users: Arc<dyn Users>, clock: Clock) -> Authenticator {
        Authenticator { keys, users, clock }
    }

    /// Verifies a token: signature, times, issuer and audience. Asks nobody.
    pub fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        let claims = self.keys.verify(token)?;
        let now = self.clock.wall();
        let expires = TimestampMs::from(claims.exp).after(LEEWAY);
        if now >= expires {
            return Err(AuthError::Expired);
        }
        if claims.nbf.is_some_and(|from| now.after(LEEWAY) < TimestampMs::from(from)) {
            return Err(AuthError::NotYet);
        }
        let scopes = Scopes::from_claim(claims.scope.as_deref().unwrap_or(""));
        Ok(Identity { subject: claims.sub.and_then(Subject::new), scopes, expires })
    }

    /// Verifies a token and finds its user. The first token of a subject that is not a number makes the user.
    pub async fn authenticate(&self, token: &str) -> Result<Caller, AuthError> {
        let Identity { subject, scopes, expires } = self.verify(token)?;
        // The subject of a server's token is no person, and must not become one.
        let user = match subject.filter(|_| scopes.has(Scope::User)) {
            Some(Subject::User(user)) => Some(user),
            Some(Subject::Named(name)) => Some(self.users.resolve(&name).await?),
            None if scopes.has(Scope::User) => return Err(AuthError::NoSubject),
            None => None,
        };
        Ok(Caller { user, scopes, expires })
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl Subject {
    fn new(text: String) -> Option<Subject> {
        match text.parse() {
            Ok(user) => Some(Subject::User(user)),
            Err(_) => (1..=MAX_SUBJECT_BYTES).contains(&text.len()).then_some(Subject::Named(text)),
        }
    }
}

impl Caller {
    /// Whether the token allows this.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.has(scope)
    }

    /// Whether the caller speaks for this user.
    pub fn is(&self, user: UserId) -> bool {
        self.user == Some(user)
    }

    /// The caller's user; a problem for a token that speaks for none.
    pub fn user(&self) -> Result<UserId, Problem> {
        self.user.ok_or_else(|| Problem::forbidden("this needs the token of a user"))
    }

    /// A problem unless the caller is this user or has the scope. Another user's token is answered as if there were no
    /// such user, whether there is or not; nothing is looked up to find out.
    pub fn require_self_or(&self, scope: Scope, user: UserId) -> Result<(), Problem> {
        if self.is(user) || self.may(scope) {
            Ok(())
        } else if self.may(Scope::User) {
            Err(Problem::no_such_user())
        } else {
            self.require(scope)
        }
    }

    /// A problem unless the token has the scope.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.may(scope) {
            Ok(())
        } else {
            Err(Problem::forbidden(format!("this needs a token of scope `{}`", scope.name())))
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller
where
    Arc<Authenticator>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Caller, Problem> {
        let token = bearer(&parts.headers)?;
        Ok(Arc::<Authenticator>::from_ref(state).authenticate(token).await?)
    }
}
