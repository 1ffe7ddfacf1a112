//! Where everybody is, and what their friends are told of it.

use model::{Meters, Place, Position, Radius};

use crate::graph::Graph;
use crate::raw::digits::{write_degrees, write_number, write_tenths};

/// Everybody's radius: five miles.
pub const RADIUS_M: f64 = 8_046.72;
/// The server's word for how long a position is shown.
const TTL_S: u64 = 600;
/// Friends on a page.
const PAGE: usize = 20;
/// The Earth's mean radius, as the server has it.
const EARTH_RADIUS_M: f64 = 6_371_008.8;

/// A position as it was told.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    position: Position,
    place: Place,
    ts: u64,
}

/// Who is where.
pub(super) struct Board {
    graph: Graph,
    user_base: u64,
    radius: Radius,
    seen: Vec<Option<Seen>>,
}

impl Seen {
    pub(super) fn at(position: Position, ts: u64) -> Seen {
        Seen { position, place: Place::new(position), ts }
    }
}

impl Board {
    pub(super) fn new(graph: Graph, user_base: u64) -> Board {
        let seen = vec![None; graph.people()];
        Board { graph, user_base, radius: Radius::new(Meters(RADIUS_M)), seen }
    }

    /// The person that the token names.
    pub(super) fn person(&self, token: &str) -> Option<u32> {
        let person = u32::try_from(token.parse::<u64>().ok()?.checked_sub(self.user_base)?).ok()?;
        ((person as usize) < self.seen.len()).then_some(person)
    }

    pub(super) fn put(&mut self, person: u32, seen: Seen) {
        self.seen[person as usize] = Some(seen);
    }

    pub(super) fn forget(&mut self, person: u32) {
        self.seen[person as usize] = None;
    }

    /// Calls `tell` with each friend near, and how far away this person is from there.
    pub(super) fn for_each_near(&self, person: u32, mut tell: impl FnMut(u32, u64)) {
        let Some(mover) = &self.seen[person as usize] else { return };
        for &friend in self.graph.of(person) {
            let Some(viewer) = &self.seen[friend as usize] else { continue };
            if self.radius.holds(&viewer.place, &mover.place) {
                tell(friend, decimeters(&viewer.place, &mover.place));
            }
        }
    }

    /// Appends a `friend` frame up to the distance: the same for all who are told.
    pub(super) fn write_friend(&self, person: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"friend\",");
        self.write_seen(person, out);
    }

    /// Appends the first page of friends near, nearest first.
    pub(super) fn write_nearby(&self, person: u32, out: &mut Vec<u8>) {
        let mut near = Vec::new();
        self.for_each_near(person, |friend, distance| near.push((distance, friend)));
        near.sort_unstable();
        near.truncate(PAGE);
        out.extend_from_slice(b"{\"type\":\"nearby\",\"friends\":[");
        for (at, &(distance, friend)) in near.iter().enumerate() {
            out.extend_from_slice(if at == 0 { b"{" } else { b",{" });
            self.write_seen(friend, out);
            write_end(distance, out);
        }
        let rest = format!("],\"next_cursor\":null,\"radius_m\":{RADIUS_M},\"location_ttl_s\":{TTL_S}}}");
        out.extend_from_slice(rest.as_bytes());
    }

    fn write_seen(&self, person: u32, out: &mut Vec<u8>) {
        let Some(seen) = &self.seen[person as usize] else { return };
        out.extend_from_slice(b"\"id\":\"");
        write_number(out, self.user_base + u64::from(person));
        out.extend_from_slice(b"\",\"lat\":");
        write_degrees(out, seen.position.lat_e7());
        out.extend_from_slice(b",\"lon\":");
        write_degrees(out, seen.position.lon_e7());
        out.extend_from_slice(b",\"ts\":");
        write_number(out, seen.ts);
        out.extend_from_slice(b",\"distance_m\":");
    }
}

/// Appends the distance and the end of what it is about.
pub(super) fn write_end(decimeters: u64, out: &mut Vec<u8>) {
    write_tenths(out, decimeters);
    out.push(b'}');
}

/// Along the surface; the straight line is at hand already.
fn decimeters(viewer: &Place, mover: &Place) -> u64 {
    (2.0 * EARTH_RADIUS_M * (viewer.chord(mover) / 2.0).asin() * 10.0).round() as u64
}

#[cfg(test)]
mod tests {
    use model::haversine;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn distances_are_those_of_the_haversine() {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut same, mut all) = (0, 0);
        for _ in 0..20_000 {
            let mut position =
                || Position::new(40.0 + rng.random_range(-0.03..0.03), 116.0 + rng.random_range(-0.03..0.03)).unwrap();
            let (viewer, mover) = (position(), position());
            let wanted = haversine(viewer, mover).to_decimeter().0;
            let found = decimeters(&Place::new(viewer), &Place::new(mover));
            all += 1;
            same += u32::from((wanted * 10.0).round() as u64 == found);
        }
        // What lies on the border between two tenths may fall to either side.
        assert!(same >= all - 2, "{same} of {all}");
    }

    #[test]
    fn tokens_are_the_numbers_of_users() {
        let board = Board::new(Graph::ring(10, 2).unwrap(), 100);
        assert_eq!((board.person("100"), board.person("109")), (Some(0), Some(9)));
        assert!(["99", "110", "x", ""].iter().all(|token| board.person(token).is_none()));
    }
}
