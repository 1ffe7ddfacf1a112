//! The person whose list is shown, and the list in words.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use model::UserId;
use protocol::client::{GoneReason, ServerFrame};
use tokio::time::interval;

use super::movement::{bearing_deg, compass};
use super::near::{Change, Near, NearList};
use super::people::People;
use super::phone::{Happening, Phone};
use super::screen::{Look, Screen};

const REDRAW_EVERY: Duration = Duration::from_millis(250);

/// One person's view.
pub(crate) struct Shown {
    names: HashMap<UserId, String>,
    name: String,
    friends: usize,
    radius_m: f64,
    list: NearList,
}

impl Shown {
    /// Of the person that `people` names.
    pub(crate) fn new(people: &People, radius_m: f64) -> Shown {
        Shown {
            names: people.everybody.iter().map(|person| (person.user, person.name.clone())).collect(),
            name: people.everybody[people.shown].name.clone(),
            friends: people.friends_of(people.shown),
            radius_m,
            list: NearList::default(),
        }
    }

    /// Shows what the phone is told, for as long as it is told something.
    pub(crate) async fn watch(&mut self, mut phone: Phone, screen: &mut Screen) -> Result<()> {
        let mut redraw = interval(REDRAW_EVERY);
        self.list.moved(phone.at);
        loop {
            tokio::select! {
                happening = phone.next() => {
                    match happening.with_context(|| format!("{}'s phone", self.name))? {
                        Happening::Told => self.list.moved(phone.at),
                        Happening::Heard(frame) => {
                            self.hear(&frame, screen)?;
                            if let ServerFrame::Nearby(page) = &frame && let Some(cursor) = &page.next_cursor {
                                phone.more(cursor).await?;
                            }
                        }
                    }
                }
                _ = redraw.tick(), if screen.draws() => screen.draw(|room| self.lines(room))?,
            }
        }
    }

    fn hear(&mut self, frame: &ServerFrame, screen: &mut Screen) -> Result<()> {
        if let ServerFrame::Error(error) = frame {
            tracing::warn!(code = ?error.code, message = error.message, "the server did not take a frame");
        }
        for change in self.list.hear(frame) {
            match change {
                Change::Came(near) => {
                    screen.happened(
                        Look::Came,
                        &format!("+ {} came near, {}", self.name_of(near.user), self.place(&near)),
                    )?;
                }
                Change::Left(user, reason) => {
                    let why = match reason {
                        GoneReason::OutOfRange => "out of range",
                        GoneReason::Inactive => "silent",
                        GoneReason::Hidden => "hidden",
                    };
                    screen.happened(Look::Left, &format!("- {} left ({why})", self.name_of(user)))?;
                }
            }
        }
        Ok(())
    }

    /// The list; the nearest are those that there is room for.
    fn lines(&self, room: usize) -> Vec<(Look, String)> {
        let near = self.list.nearest_first();
        let title = format!("{} of {}'s {} friends within {} m", near.len(), self.name, self.friends, self.radius_m);
        let mut lines = vec![(Look::Title, title), (Look::Quiet, format!("{}.", self.counts()))];
        let fits = room.saturating_sub(lines.len() + 1);
        for near in near.iter().take(fits) {
            let line = format!(
                "  {:<10}{:>8.1} m {:<3} {}",
                self.name_of(near.user),
                near.distance_m,
                self.side(near),
                activity(near)
            );
            lines.push((Look::Plain, line));
        }
        if near.len() > fits {
            lines.push((Look::Quiet, format!("  and {} more", near.len() - fits)));
        }
        lines
    }

    /// What happened in all.
    pub(crate) fn counts(&self) -> String {
        let NearList { came, left, silent, positions, .. } = &self.list;
        format!("{came} came near, {left} left, {silent} fell silent; {positions} positions of friends received")
    }

    fn place(&self, near: &Near) -> String {
        format!("{:.1} m {} {}", near.distance_m, self.side(near), activity(near)).trim_end().to_owned()
    }

    /// On which side of oneself.
    fn side(&self, near: &Near) -> &'static str {
        self.list.own().map_or("", |own| compass(bearing_deg(own, near.position)))
    }

    fn name_of(&self, user: UserId) -> &str {
        self.names.get(&user).map_or("somebody", String::as_str)
    }
}

/// What somebody seems to do.
fn activity(near: &Near) -> String {
    let Some(speed_mps) = near.speed_mps else { return String::new() };
    let verb = match speed_mps {
        ..0.3 => return "standing".into(),
        ..2.2 => "walking",
        ..6.5 => "cycling",
        _ => "driving",
    };
    let heading = near.heading_deg.map_or("", |deg| compass(deg.into()));
    format!("{verb} {heading} at {speed_mps:.1} m/s")
}
