//! The list of near friends, as an application keeps it: made from frames, and from where oneself is.

use std::collections::HashMap;

use model::{Position, UserId, haversine};
use protocol::client::{Friend, GoneReason, ServerFrame};

/// A friend who is near.
#[derive(Clone, Debug)]
pub(crate) struct Near {
    /// Who.
    pub(crate) user: UserId,
    /// Where.
    pub(crate) position: Position,
    /// How far, from where oneself is now.
    pub(crate) distance_m: f64,
    /// How fast.
    pub(crate) speed_mps: Option<f32>,
    /// Where to, clockwise from north.
    pub(crate) heading_deg: Option<f32>,
}

/// What a frame changed.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A friend is near now.
    Came(Near),
    /// A friend is near no longer.
    Left(UserId, GoneReason),
}

/// The list, and what was counted on the way.
#[derive(Debug, Default)]
pub(crate) struct NearList {
    friends: HashMap<UserId, Near>,
    own: Option<Position>,
    /// Positions of friends that were received.
    pub(crate) positions: u64,
    /// Friends who came near.
    pub(crate) came: u64,
    /// Friends who went out of the radius.
    pub(crate) left: u64,
    /// Friends who fell silent.
    pub(crate) silent: u64,
}

impl NearList {
    /// Takes in a frame.
    pub(crate) fn hear(&mut self, frame: &ServerFrame) -> Vec<Change> {
        match frame {
            ServerFrame::Nearby(page) => page.friends.iter().filter_map(|friend| self.put(friend)).collect(),
            ServerFrame::Friend(friend) => self.put(friend).into_iter().collect(),
            ServerFrame::Gone { id, reason } => {
                self.friends.remove(id);
                *if *reason == GoneReason::Inactive { &mut self.silent } else { &mut self.left } += 1;
                vec![Change::Left(*id, *reason)]
            }
            _ => Vec::new(),
        }
    }

    /// Oneself moved. Of friends who stand still the server says nothing: it is for the client to compute the distance.
    pub(crate) fn moved(&mut self, own: Position) {
        self.own = Some(own);
        for near in self.friends.values_mut() {
            near.distance_m = haversine(own, near.position).0;
        }
    }

    /// Where oneself is.
    pub(crate) fn own(&self) -> Option<Position> {
        self.own
    }

    /// Nearest first.
    pub(crate) fn nearest_first(&self) -> Vec<&Near> {
        let mut friends: Vec<&Near> = self.friends.values().collect();
        friends.sort_by(|one, other| one.distance_m.total_cmp(&other.distance_m));
        friends
    }

    fn put(&mut self, friend: &Friend) -> Option<Change> {
        let (lat, lon) = friend.lat_lon();
        let near = Near {
            user: friend.id(),
            position: Position::new(lat, lon).ok()?,
            distance_m: friend.distance_m(),
            speed_mps: friend.speed_mps(),
            heading_deg: friend.heading_deg(),
        };
        self.positions += 1;
        let came = self.friends.insert(near.user, near.clone()).is_none();
        self.came += u64::from(came);
        came.then_some(Change::Came(near))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(list: &mut NearList, json: &str) -> Vec<Change> {
        list.hear(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn friends_come_move_and_leave() {
        let mut list = NearList::default();
        let page = r#"{"type":"nearby","friends":[{"id":"2","lat":52.52,"lon":13.4,"ts":1,"distance_m":9.5}],
            "next_cursor":null,"radius_m":1000,"location_ttl_s":600}"#;
        assert!(matches!(&hear(&mut list, page)[..], [Change::Came(near)] if near.user == UserId(2)));
        let ada = r#"{"type":"friend","id":"3","lat":52.52,"lon":13.4,"ts":1,"distance_m":5,"speed_mps":1.5}"#;
        assert_eq!(hear(&mut list, ada).len(), 1);
        assert_eq!(hear(&mut list, ada).len(), 0, "who is there does not come");
        assert_eq!(list.nearest_first().iter().map(|near| near.user.0).collect::<Vec<_>>(), [3, 2]);
        list.moved(Position::new(52.521, 13.4).unwrap());
        assert!(list.nearest_first().iter().all(|near| (near.distance_m - 111.2).abs() < 0.1));
        let gone = r#"{"type":"gone","id":"3","reason":"inactive"}"#;
        assert!(matches!(hear(&mut list, gone)[..], [Change::Left(UserId(3), GoneReason::Inactive)]));
        assert_eq!((list.positions, list.came, list.left, list.silent), (3, 2, 0, 1));
    }
}
