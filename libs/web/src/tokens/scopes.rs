//! What a token allows.

use std::fmt;

/// One thing that a token allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// To act as its user. What a token without any known scope allows.
    User,
    /// To manage users and friendships: the application's server.
    Backend,
    /// To read anybody's history: who learns from it.
    History,
}

const ALL: [Scope; 3] = [Scope::User, Scope::Backend, Scope::History];

impl Scope {
    /// Its name in the claim `scope`.
    pub fn name(self) -> &'static str {
        match self {
            Scope::User => "user",
            Scope::Backend => "backend",
            Scope::History => "history",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Everything that a token allows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// These.
    pub fn of(scopes: &[Scope]) -> Scopes {
        Scopes(scopes.iter().fold(0, |bits, scope| bits | scope.bit()))
    }

    /// From the claim `scope`: names between spaces. Names that mean nothing here (`openid`) are left out, and a token
    /// of which nothing remains is its user's. A server's token does not speak for a user unless it says `user` too:
    /// its `sub` names the server.
    pub fn from_claim(text: &str) -> Scopes {
        let known = |name: &str| ALL.into_iter().find(|scope| scope.name() == name);
        let bits = text.split(' ').filter_map(known).fold(0, |bits, scope| bits | scope.bit());
        if bits == 0 { Scopes::of(&[Scope::User]) } else { Scopes(bits) }
    }

    /// Whether this is among them.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

/// As in the claim `scope`.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = ALL.into_iter().filter(|scope| self.has(*scope)).map(Scope::name).collect();
        f.write_str(&names.join(" "))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_users_unless_it_says_otherwise() {
        use Scope::{Backend, History, User};
        let cases: [(&str, &[Scope]); 8] = [
            ("", &[User]),
            ("openid profile", &[User]),
            ("backend", &[Backend]),
            ("openid backend", &[Backend]),
            ("history backend", &[Backend, History]),
            ("user history", &[User, History]),
            ("Backend", &[User]),
            ("backends  history", &[History]),
        ];
        for (text, expected) in cases {
            assert_eq!(Scopes::from_claim(text), Scopes::of(expected), "{text:?}");
        }
        let both = Scopes::of(&[Backend, History]);
        assert_eq!(Scopes::from_claim(&both.to_string()), both);
    }
}
