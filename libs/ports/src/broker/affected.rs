//! Which channels a change has touched, without saying what the change was.

use std::fmt;
use std::sync::Arc;

use super::Channel;

/// Changes that one `Affected` keeps apart; beyond that it holds everything, so that it stays small.
const MOST: usize = 8;

type Test = Arc<dyn Fn(Channel) -> bool + Send + Sync>;

/// A set of channels, which can be asked and not listed: it says nothing of why these. A clone costs one count.
#[derive(Clone)]
pub struct Affected {
    /// Held is what any of these holds; `None` holds everything.
    tests: Option<Arc<[Test]>>,
}

impl Affected {
    /// Those that `test` picks. It is asked once for every user of a node, at worst.
    pub fn by(test: impl Fn(Channel) -> bool + Send + Sync + 'static) -> Affected {
        let test: Test = Arc::new(test);
        Affected { tests: Some([test].into()) }
    }

    /// Every channel.
    pub fn everything() -> Affected {
        Affected { tests: None }
    }

    /// Whether a channel is one of them. It may be said of more channels than were touched, never of fewer.
    pub fn holds(&self, channel: Channel) -> bool {
        self.tests.as_ref().is_none_or(|tests| tests.iter().any(|test| test(channel)))
    }

    /// What either holds, or more.
    #[must_use]
    pub fn or(self, other: Affected) -> Affected {
        let (Some(one), Some(other)) = (self.tests, other.tests) else { return Affected::everything() };
        if one.len() + other.len() > MOST {
            return Affected::everything();
        }
        Affected { tests: Some(one.iter().chain(other.iter()).cloned().collect()) }
    }
}

/// Equal are clones of one; that two hold the same cannot be known.
impl PartialEq for Affected {
    fn eq(&self, other: &Affected) -> bool {
        match (&self.tests, &other.tests) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl fmt::Debug for Affected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tests {
            Some(tests) => write!(f, "Affected by {}", tests.len()),
            None => f.write_str("Affected(everything)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{NodeId, UserId};

    use super::*;

    fn only(user: u64) -> Affected {
        Affected::by(move |channel| channel == Channel::User(UserId(user)))
    }

    #[test]
    fn what_was_held_stays_held_however_many_come_together() {
        let mut all = only(0);
        for user in 1..100 {
            all = all.or(only(user));
            assert!((0..=user).all(|user| all.holds(Channel::User(UserId(user)))));
            let is_small = all.tests.as_ref().is_none_or(|tests| tests.len() <= MOST);
            assert!(is_small, "{all:?}");
        }
        assert!(all.holds(Channel::Node(NodeId(1))), "it does not keep 100 changes apart");
    }

    #[test]
    fn few_changes_are_kept_apart() {
        let both = only(1).or(only(2));
        assert_eq!([0, 1, 2, 3].map(|user| both.holds(Channel::User(UserId(user)))), [false, true, true, false]);
        assert!(both.clone().or(Affected::everything()).holds(Channel::User(UserId(3))));
        assert_eq!(both, both.clone());
        assert_ne!(only(1), only(1));
    }
}
