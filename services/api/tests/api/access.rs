//! Who may do what, and that a stranger learns nothing: every endpoint times every caller.

use std::time::Duration;

use model::UserId;
use serde_json::{Value, json};
use web::Scope;

use crate::world::{Answer, World};

const ALICE: u64 = 7;
const BOB: u64 = 8;
const STRANGER: u64 = 9;
const EX_FRIEND: u64 = 10;
const BEING_DELETED: u64 = 11;
const UNKNOWN: u64 = 4040;

/// Every endpoint that wants a token; `{id}` stands for the user that it is about.
const ENDPOINTS: [(&str, &str); 10] = [
    ("PUT", "/v1/users/{id}"),
    ("GET", "/v1/users/{id}"),
    ("DELETE", "/v1/users/{id}"),
    ("GET", "/v1/users/{id}/friends"),
    ("PUT", "/v1/users/{id}/friends/8"),
    ("DELETE", "/v1/users/{id}/friends/8"),
    ("GET", "/v1/users/{id}/history"),
    ("GET", "/v1/me"),
    ("GET", "/v1/me/friends"),
    ("DELETE", "/v1/me/friends/{id}"),
];

async fn world() -> World {
    let world = World::of(&[ALICE, BOB, STRANGER, EX_FRIEND, BEING_DELETED]).await;
    world.befriend(ALICE, BOB).await;
    world.befriend(ALICE, EX_FRIEND).await;
    world.state.friendships.remove(UserId(ALICE), UserId(EX_FRIEND)).await.unwrap();
    world.state.users.begin_delete(UserId(BEING_DELETED)).await.unwrap();
    world
}

async fn ask(world: &World, token: Option<&str>, (method, path): (&str, &str), about: u64) -> Answer {
    let body = (method == "PUT" && !path.contains("friends")).then(|| json!({"name": "Ada"}));
    world.ask(token, method, &path.replace("{id}", &about.to_string()), body).await
}

#[tokio::test(start_paused = true)]
async fn without_a_token_that_counts_there_is_nothing() {
    let world = world().await;
    let now = world.state.clock.wall();
    let expired =
        world.token_until("7", &[Scope::User, Scope::Backend, Scope::History], now.before(Duration::from_secs(6)));
    for endpoint in ENDPOINTS {
        let mut answers = vec![];
        for about in [ALICE, UNKNOWN] {
            let none = ask(&world, None, endpoint, about).await;
            none.problem(401);
            assert_eq!(none.headers["www-authenticate"], "Bearer");
            answers.push(vec![none]);
            for bad in ["xyzzy", "a.b.c", &expired, &format!("{}x", world.user_token(ALICE))] {
                let refused = ask(&world, Some(bad), endpoint, about).await;
                let detail = refused.problem(401);
                assert!(!detail.contains(bad), "no token in an answer");
                assert_eq!(refused.headers["www-authenticate"], r#"Bearer error="invalid_token""#);
                answers.last_mut().unwrap().push(refused);
            }
        }
        assert_eq!(answers[0], answers[1], "{endpoint:?}");
    }
}

/// What each caller is answered about Alice; the rows are [`ENDPOINTS`].
#[tokio::test(start_paused = true)]
async fn each_scope_allows_its_own() {
    use Scope::{Backend, History, User};
    #[rustfmt::skip]
    let table: [(&str, &[Scope], [u16; 10]); 7] = [
        // sub      scopes             PUT  GET  DEL  list befr unfr hist me   mine unfriend
        ("7",       &[User],          [403, 200, 403, 403, 403, 403, 200, 200, 200, 400]),
        ("9",       &[User],          [403, 404, 403, 403, 403, 403, 404, 200, 200, 204]),
        ("shop",    &[Backend],       [200, 200, 204, 200, 204, 204, 403, 403, 403, 403]),
        ("ml",      &[History],       [403, 403, 403, 403, 403, 403, 200, 403, 403, 403]),
        ("7",       &[Backend],       [200, 200, 204, 200, 204, 204, 403, 403, 403, 403]),
        ("9",       &[User, History], [403, 404, 403, 403, 403, 403, 200, 200, 200, 204]),
        ("4040",    &[User],          [403, 404, 403, 403, 403, 403, 404, 404, 404, 404]),
    ];
    for (subject, scopes, expected) in table {
        for (endpoint, expected) in ENDPOINTS.into_iter().zip(expected) {
            // Anew for each, because some of them are allowed to change what is there.
            let world = world().await;
            let token = world.token(subject, scopes);
            let answer = ask(&world, Some(&token), endpoint, ALICE).await;
            assert_eq!(answer.status.as_u16(), expected, "{subject} {scopes:?} {endpoint:?} {}", answer.text);
            if expected >= 400 {
                answer.problem(expected);
            }
            if expected == 403 {
                assert_eq!(answer.headers["www-authenticate"], r#"Bearer error="insufficient_scope""#);
            }
        }
    }
}

/// A stranger, a friend, an ex-friend and others without the scope are answered about a user as about nobody: the same
/// status, headers and body.
#[tokio::test(start_paused = true)]
async fn nobody_learns_whether_another_user_exists() {
    let world = world().await;
    // What the caller is, who it is, and what it may know of others.
    let callers = [
        ("stranger", "9", Scope::User),
        ("friend", "8", Scope::User),
        ("ex-friend", "10", Scope::User),
        ("unknown", "4041", Scope::User),
        ("being deleted", "11", Scope::User),
        ("backend", "shop", Scope::Backend),
        ("reader", "ml", Scope::History),
    ];
    for endpoint in ENDPOINTS {
        for (name, subject, scope) in callers {
            let of_history = endpoint.1.ends_with("history");
            let may_know = match scope {
                Scope::User => false,
                Scope::Backend => endpoint.1.starts_with("/v1/users") && !of_history,
                Scope::History => of_history,
            };
            if may_know {
                continue;
            }
            let token = world.token(subject, &[scope]);
            let unknown = ask(&world, Some(&token), endpoint, UNKNOWN).await;
            for about in [ALICE, BEING_DELETED, UNKNOWN + 2] {
                if subject != about.to_string() {
                    let known = ask(&world, Some(&token), endpoint, about).await;
                    assert_eq!(known, unknown, "{name} {endpoint:?} about {about}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_user_is_nobody_to_everybody() {
    let world = world().await;
    for (endpoint, scope) in
        [(ENDPOINTS[1], Scope::Backend), (ENDPOINTS[3], Scope::Backend), (ENDPOINTS[6], Scope::History)]
    {
        let token = world.token("server", &[scope]);
        let deleted = ask(&world, Some(&token), endpoint, BEING_DELETED).await;
        deleted.problem(404);
        assert_eq!(deleted, ask(&world, Some(&token), endpoint, UNKNOWN).await);
    }
    for path in ["/v1/me", "/v1/me/friends"] {
        world.user(BEING_DELETED, "GET", path).await.problem(404);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_user_of_a_token_is_told_what_to_do() {
    let world = world().await;
    for (method, path) in [("GET", "/v1/me"), ("GET", "/v1/me/friends"), ("DELETE", "/v1/me/friends/7")] {
        let detail = world.user(UNKNOWN, method, path).await.problem(404);
        assert!(detail.contains("`PUT /v1/users/4040`"), "{detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_token_of_a_named_subject_makes_the_user() {
    let world = world().await;
    let token = world.token("auth0|ada", &[Scope::User]);
    let me: Value = world.ask(Some(&token), "GET", "/v1/me", None).await.json();
    assert_eq!(me["name"], "auth0|ada");
    let id: u64 = me["id"].as_str().unwrap().parse().unwrap();
    // The application may rename it, under the id that it was given.
    let renamed = world.backend("PUT", &format!("/v1/users/{id}"), Some(json!({"name": "Ada"}))).await;
    assert_eq!(renamed.status.as_u16(), 200);
    assert_eq!(world.ask(Some(&token), "GET", "/v1/me", None).await.json()["name"], "Ada");
}
