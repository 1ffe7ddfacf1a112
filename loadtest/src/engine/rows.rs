//! What was measured, and what follows from it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::phases::NsPerUpdate;

/// The whole world's updates at ten million people who send every thirty seconds.
const WANTED_PER_S: f64 = 334_000.0;

/// One city on one core.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// People connected.
    pub viewers: u32,
    /// Connected friends of each.
    pub friends: u32,
    /// Those near.
    pub near: u32,
    /// Friends of each who are not connected.
    pub absent: u32,
    /// People not connected, for each who is.
    pub absent_people: u32,
    /// Positions that arrived together.
    pub batch: u32,
    /// Measured: the median of five windows of so many.
    pub updates: u64,
    /// Distances compared because a friend was heard.
    pub checks_per_update: f64,
    /// Distances compared because the viewer itself had moved near a border.
    pub own_checks_per_update: f64,
    /// Frames made.
    pub told_per_update: f64,
    /// News that another took the place of, within one batch.
    pub replaced_per_update: f64,
    /// One core, all of an update: taken in, heard, drained, encoded.
    pub updates_per_s_per_core: f64,
    /// CPU time by parts.
    pub ns: NsPerUpdate,
    /// Growth of the resident set while everybody connected and was heard once. What the sockets take is not in it.
    pub bytes_per_viewer: f64,
    /// Of JSON.
    pub bytes_per_frame: f64,
}

impl Row {
    /// Every friend was checked, and every near one told or replaced by newer news.
    fn is_exact(&self) -> bool {
        let off = |found: f64, wanted: u32| (found - f64::from(wanted)).abs() > 1e-9;
        // What was replaced in one window may have been told in the next; batches end with windows, so it is none.
        !off(self.checks_per_update, self.friends) && !off(self.told_per_update + self.replaced_per_update, self.near)
    }
}

/// What the parts of an update cost in a shard of this size, from the differences between its rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// People in the shard.
    pub viewers: u32,
    /// Of taking an update in: its own viewer moves. With it goes a share of the search for the silent.
    pub ns_per_taken: f64,
    /// Of hearing of an update that nobody watches: the lookup, the position kept.
    pub ns_per_heard: f64,
    /// Of comparing one friend's distance with the radius.
    pub ns_per_check: f64,
    /// Of one friend told, of as few as were asked for: mark, bell, drain, frame, JSON.
    pub ns_per_told: f64,
    /// The same when all friends are told: they touch so much memory that less of it is still in a cache.
    pub ns_per_told_of_all: f64,
    /// Resident memory for each viewer.
    pub bytes_per_viewer: f64,
    /// Of JSON.
    pub bytes_per_frame: f64,
}

impl Costs {
    /// From the row that was asked for, the ones with all friends near and with none, and one with few friends and none
    /// near, as [`super::rows_of`] gives them. `None` if they are not that.
    pub fn of([asked, all_near, none_near, few]: [&Row; 4]) -> Option<Costs> {
        let checks = none_near.checks_per_update - few.checks_per_update;
        if asked.told_per_update <= 0.0 || none_near.told_per_update > 0.0 || checks <= 0.0 {
            return None;
        }
        let ns_per_check = (none_near.ns.heard - few.ns.heard) / checks;
        let told = |row: &Row| (row.ns.fan_out() - none_near.ns.fan_out()) / row.told_per_update;
        Some(Costs {
            viewers: asked.viewers,
            ns_per_taken: asked.ns.moved + asked.ns.expire,
            ns_per_heard: none_near.ns.fan_out() - none_near.checks_per_update * ns_per_check,
            ns_per_check,
            ns_per_told: told(asked),
            ns_per_told_of_all: told(all_near),
            bytes_per_viewer: asked.bytes_per_viewer,
            bytes_per_frame: asked.bytes_per_frame,
        })
    }

    /// CPU time of an update that is taken in and heard on this core, with so many friends checked and told.
    pub fn ns(&self, checked: f64, told: f64) -> f64 {
        self.ns_per_taken + self.ns_per_heard + checked * self.ns_per_check + told * self.ns_per_told
    }
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Findings {
    /// Cities.
    pub rows: Vec<Row>,
    /// For each size of which there are the three rows that tell.
    pub costs: Vec<Costs>,
}

impl Findings {
    /// Draws the conclusions.
    pub fn of(rows: Vec<Row>) -> Findings {
        let costs = rows.chunks_exact(4).filter_map(|rows| match rows {
            [asked, all_near, none_near, few] => Costs::of([asked, all_near, none_near, few]),
            _ => None,
        });
        let costs = costs.collect();
        Findings { rows, costs }
    }

    /// Whether what was made is what had to be.
    pub fn is_exact(&self) -> bool {
        self.rows.iter().all(Row::is_exact)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "one core, one shard; nanoseconds of CPU an update")?;
        writeln!(
            f,
            "  viewers friends  near |   moved   heard   drain  encode  expire |   total  updates/s | told/upd  B/viewer"
        )?;
        for row in &self.rows {
            let ns = &row.ns;
            writeln!(
                f,
                "{:>9} {:>7} {:>5} | {:>7.0} {:>7.0} {:>7.0} {:>7.0} {:>7.0} | {:>7.0} {:>10.0} | {:>8.2} {:>9.0}",
                row.viewers,
                row.friends,
                row.near,
                ns.moved,
                ns.heard,
                ns.drain,
                ns.encode,
                ns.expire,
                ns.total(),
                row.updates_per_s_per_core,
                row.told_per_update,
                row.bytes_per_viewer,
            )?;
        }
        if !self.costs.is_empty() {
            writeln!(f, "\n  viewers |   ns/taken   ns/heard  ns/check  ns/told   of all  B/frame")?;
        }
        for costs in &self.costs {
            writeln!(
                f,
                "{:>9} | {:>10.0} {:>10.0} {:>9.1} {:>8.0} {:>8.0} {:>8.0}",
                costs.viewers,
                costs.ns_per_taken,
                costs.ns_per_heard,
                costs.ns_per_check,
                costs.ns_per_told,
                costs.ns_per_told_of_all,
                costs.bytes_per_frame,
            )?;
        }
        for row in self.rows.iter().filter(|row| (1..row.friends).contains(&row.near)) {
            let share = row.updates_per_s_per_core / WANTED_PER_S;
            writeln!(f, "{} viewers: {share:.2} of {WANTED_PER_S} updates/s on one core", row.viewers)?;
        }
        for row in self.rows.iter().filter(|row| !row.is_exact()) {
            writeln!(f, "WRONG: {row:?}")?;
        }
        Ok(())
    }
}
