//! What the demo shows: on a terminal a list that is drawn in place, elsewhere a line for everything that happens.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Stdout, Write, stdout};

use rustix::termios::tcgetwinsize;
use tokio::time::Instant;

/// Happenings that stay on the screen.
const RECENT: usize = 6;
/// When the terminal does not say how large it is.
const USUAL_SIZE: (usize, usize) = (24, 80);

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Look {
    Plain,
    Title,
    Came,
    Left,
    Quiet,
}

impl Look {
    fn ansi(self) -> &'static str {
        match self {
            Look::Plain => "",
            Look::Title => "\x1b[1m",
            Look::Came => "\x1b[32m",
            Look::Left => "\x1b[31m",
            Look::Quiet => "\x1b[2m",
        }
    }
}

/// Standard output.
pub(crate) struct Screen {
    out: Stdout,
    terminal: bool,
    began: Instant,
    recent: VecDeque<(Look, String)>,
    /// Lines of the drawing that stands above the cursor.
    drawn: usize,
}

impl Screen {
    /// A terminal is recognised.
    pub(crate) fn new() -> Screen {
        let out = stdout();
        Screen { terminal: out.is_terminal(), out, began: Instant::now(), recent: VecDeque::new(), drawn: 0 }
    }

    /// Whether the list is drawn.
    pub(crate) fn draws(&self) -> bool {
        self.terminal
    }

    /// From now on the seconds count.
    pub(crate) fn begin(&mut self) {
        self.began = Instant::now();
    }

    /// Writes lines that stay.
    pub(crate) fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Something happened.
    pub(crate) fn happened(&mut self, look: Look, text: &str) -> io::Result<()> {
        let line = format!("{:6.1} s  {text}", self.began.elapsed().as_secs_f64());
        if !self.terminal {
            return self.say(&line);
        }
        self.recent.push_front((look, line));
        self.recent.truncate(RECENT);
        Ok(())
    }

    /// Draws the list in the place of the one before. `list` is given the number of lines that there is room for.
    pub(crate) fn draw(&mut self, list: impl FnOnce(usize) -> Vec<(Look, String)>) -> io::Result<()> {
        let (rows, columns) = size(&self.out);
        // The cursor stands below the drawing: one line less.
        let room = rows.saturating_sub(RECENT + 2).max(3);
        let mut lines = list(room);
        lines.push((Look::Plain, String::new()));
        lines.extend(self.recent.iter().cloned());
        lines.resize(lines.len() + RECENT - self.recent.len(), (Look::Plain, String::new()));
        let mut text = String::new();
        if self.drawn > 0 {
            let _ = write!(text, "\x1b[{}A", self.drawn);
        }
        for (look, line) in &lines {
            // A line that wrapped would be two.
            let line: String = line.chars().take(columns.saturating_sub(1)).collect();
            let _ = writeln!(text, "{}{line}\x1b[0m\x1b[K", look.ansi());
        }
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

fn size(out: &Stdout) -> (usize, usize) {
    match tcgetwinsize(out) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => USUAL_SIZE,
    }
}
