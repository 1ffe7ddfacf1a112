//! What stands above the list: what this is, and what to try.

use std::env::current_exe;
use std::path::Path;

use anyhow::Result;

use super::{People, Plan};

/// The lines, with commands that work as they stand.
pub(crate) fn text(plan: &Plan, people: &People) -> Result<String> {
    let Plan { address, radius_m, speedup, ttl_s, .. } = plan;
    let everybody = people.everybody.len();
    let shown = &people.everybody[people.shown];
    let (name, user, friends) = (&shown.name, shown.user, people.friends_of(people.shown));
    let kept = if plan.temporary { "removed at the end" } else { "kept" };
    let data_dir = plan.data_dir.display();
    let nearby = quoted(&current_exe()?);
    let data_dir_argument = quoted(&plan.data_dir);
    let time = if *speedup == 1.0 {
        "Time runs as in life:".to_owned()
    } else {
        format!("Time runs {speedup} times faster than in life:")
    };
    Ok(format!(
        "\
Nearby at http://{address}
data in {data_dir} ({kept})

{everybody} people, each with a phone that tells every second where it is.
{time} a friend who is silent for {ttl_s} s is gone.
You see what {name} sees: user {user}, friends: {friends}, radius: {radius_m} m.

In another terminal:
  TOKEN=$({nearby} token \\
    --data-dir {data_dir_argument} --user {user})
  curl -s -H \"Authorization: Bearer $TOKEN\" \\
    'http://{address}/v1/nearby?radius_m={radius_m}&limit=3'
  echo '{{\"type\":\"init\",\"radius_m\":{radius_m}}}' | \\
    websocat -n -H=\"Authorization: Bearer $TOKEN\" ws://{address}/v1/ws
Ctrl-C ends it.
"
    ))
}

/// As a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+".contains(char);
    if path.chars().all(plain) { path.into_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_word() {
        assert_eq!(quoted(Path::new("/tmp/nearby-demo.x")), "/tmp/nearby-demo.x");
        assert_eq!(quoted(Path::new("/my data/it's")), r"'/my data/it'\''s'");
    }
}
