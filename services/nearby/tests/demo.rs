//! `nearby demo` as somebody sees it who has just built it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const NEARBY: &str = env!("CARGO_BIN_EXE_nearby");

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(NEARBY);
    command.arg("demo").args(["--listen", "127.0.0.1:0"]).args(arguments).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

fn succeeded(output: &Output) -> &str {
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout)
}

/// What stands between the two in the text.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).unwrap().1.split_once(after).unwrap().0
}

fn ask(address: &str, token: &str, what: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let headers = format!("Host: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close");
    let content = format!("Content-Type: application/json\r\nContent-Length: {}", body.len());
    write!(stream, "{what} HTTP/1.1\r\n{headers}\r\n{content}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A demo under way, and its lines so far.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    said: String,
}

impl Running {
    fn start(arguments: &[&str]) -> Running {
        let mut child = demo(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running { child, lines, said: String::new() }
    }

    fn until(&mut self, words: &str) {
        while !self.said.contains(words) {
            assert_ne!(self.lines.read_line(&mut self.said).unwrap(), 0, "ended after: {}", self.said);
        }
    }

    fn interrupt(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        self.lines.read_to_string(&mut self.said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}", self.said);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn friends_come_near_and_it_ends_when_it_should() {
    let output = demo(&["--seconds", "3"]).output().unwrap();
    let said = succeeded(&output);
    let came = said.lines().find(|line| line.contains(" came near, ")).expect(said);
    let distance: f64 = between(came, " came near, ", " m ").parse().unwrap();
    assert!((0.0..=1_000.0).contains(&distance), "{came}");
    assert!(!said.contains('\x1b'), "colours and cursor movements are for terminals");
    let count = said.lines().filter(|line| line.contains(" came near, ") && line.contains('+')).count();
    assert!(said.contains(&format!("The end. {count} came near, ")), "{said}");
}

#[test]
fn what_it_says_to_try_works_and_ctrl_c_leaves_nothing_behind() {
    let mut running = Running::start(&["--seconds", "60"]);
    running.until(" came near, ");
    let address = between(&running.said, "http://", "\n").to_owned();
    let data_dir = between(&running.said, "data in ", " (").to_owned();
    let token = format!("TOKEN={}\necho $TOKEN", between(&running.said, "  TOKEN=", "  curl "));
    let token = Command::new("sh").args(["-c", &token]).output().unwrap();
    let token = succeeded(&token).trim();
    let query = between(&running.said, &format!("{address}/v1/nearby"), "'");
    let answer = ask(&address, token, &format!("GET /v1/nearby{query}"), "");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"distance_m\":"), "{answer}");
    assert!(Path::new(&data_dir).exists());
    running.interrupt();
    assert!(running.said.contains("The end. "), "{}", running.said);
    assert!(!Path::new(&data_dir).exists(), "the temporary directory is removed");
}

#[test]
fn recorded_people_move_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut tracks = "track,offset_s,lat,lon\n".to_owned();
    for (track, lon) in [(0, 13.4), (1, 13.401)] {
        for offset_s in (0..600).step_by(30) {
            tracks += &format!("{track},{offset_s},{},{lon}\n", 52.5 + f64::from(offset_s) * 1e-6);
        }
    }
    let (tracks, friends) = (file("tracks.csv", &tracks), file("friends.txt", "0 1\n"));
    let data_dir = dir.path().join("data");
    let arguments = ["--seconds", "5", "--tracks", &tracks, "--friends", &friends];
    let arguments = [&arguments[..], &["--data-dir", data_dir.to_str().unwrap()]].concat();
    for _ in 0..2 {
        let output = demo(&arguments).output().unwrap();
        assert!(succeeded(&output).contains("Ada came near, 6"), "{}", text(&output.stdout));
    }
    assert!(data_dir.exists(), "a directory that was given is kept, and can be given again");
}

#[test]
fn a_mistake_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = dir.path().join("wrong.csv");
    std::fs::write(&wrong, "track,offset_s,lat,lon\n0,0,north\n").unwrap();
    let wrong = wrong.to_str().unwrap();
    let cases: [(&[&str], &str); 9] = [
        (&["--people", "1"], "--people"),
        (&["--people", "many"], "--people"),
        (&["--radius", "0"], "--radius"),
        (&["--speedup", "0.5"], "--speedup"),
        (&["--seconds", "soon"], "--seconds"),
        (&["--tracks", wrong], "--friends"),
        (&["--tracks", "no-such.csv", "--friends", wrong], "no-such.csv"),
        (&["--tracks", wrong, "--friends", wrong], "wrong.csv: line 2"),
        (&["--data-dir", wrong], "wrong.csv"),
    ];
    for (arguments, named) in cases {
        let output = demo(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(text(&output.stderr).contains(named), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}

#[test]
fn other_peoples_data_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().to_str().unwrap();
    let arguments = ["--people", "3", "--data-dir", data_dir];
    let mut running = Running::start(&arguments);
    running.until("Ctrl-C");
    let token = Command::new(NEARBY).args(["token", "--data-dir", data_dir, "--scope", "backend"]).output().unwrap();
    let address = between(&running.said, "http://", "\n");
    let answer = ask(address, succeeded(&token).trim(), "PUT /v1/users/2", r#"{"name":"A customer"}"#);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    running.interrupt();
    let output = demo(&arguments).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("other people"), "{}", text(&output.stderr));
}
