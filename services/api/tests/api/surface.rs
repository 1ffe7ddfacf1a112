//! What is true of every endpoint: problems, the document, health, metrics.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tower::ServiceExt;
use utoipa::openapi::HttpMethod;
use utoipa::openapi::path::Operation;
use web::Scope;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn what_no_handler_answers_is_a_problem_too() {
    let world = World::of(&[7]).await;
    for path in ["/", "/v1", "/v1/nothing", "/v1/users", "/v1/users/7/", "/v2/me"] {
        world.user(7, "GET", path).await.problem(404);
    }
    for (method, path, allow) in [
        ("POST", "/v1/users/7", "DELETE,GET,HEAD,PUT"),
        ("PATCH", "/v1/me", "GET,HEAD"),
        ("GET", "/v1/me/friends/8", "DELETE"),
        ("DELETE", "/livez", "GET,HEAD"),
        ("POST", "/openapi.json", "GET,HEAD"),
    ] {
        let answer = world.user(7, method, path).await;
        answer.problem(405);
        let mut allowed: Vec<_> = answer.headers["allow"].to_str().unwrap().split(',').collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow, "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_taken_is_a_problem() {
    let world = World::new();
    let token = world.token("shop", &[Scope::Backend]);
    let put = async |content_type: Option<&str>, body: String| {
        let mut request = Request::put("/v1/users/7").header("authorization", format!("bearer {token}"));
        request = content_type.into_iter().fold(request, |request, value| request.header("content-type", value));
        world.send(request.body(Body::from(body)).unwrap()).await
    };
    let good = || json!({"name": "Ada"}).to_string();
    for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
        assert!(put(Some(content_type), good()).await.status.is_success(), "{content_type}");
    }
    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("")] {
        put(content_type, good()).await.problem(415);
    }
    for body in ["", "{", r#"{"name": "Ada"} {}"#, r#"{"name": "Ada", "name": "Bob"}"#, "\u{0}"] {
        put(Some("application/json"), body.to_owned()).await.problem(400);
    }
    let large = |bytes: usize| format!("{}{}", good(), " ".repeat(bytes - good().len()));
    assert!(put(Some("application/json"), large(64 * 1024)).await.status.is_success());
    put(Some("application/json"), large(64 * 1024 + 1)).await.problem(413);
    // Whoever may not put is not told what is wrong with the body.
    let user = world.user_token(7);
    let request = Request::put("/v1/users/7").header("authorization", format!("Bearer {user}"));
    world.send(request.body(Body::from("{")).unwrap()).await.problem(403);
}

#[tokio::test(start_paused = true)]
async fn the_document_holds_every_endpoint_with_its_problems() {
    let world = World::new();
    let document: Value = world.ask(None, "GET", "/openapi.json", None).await.json();
    let expected = [
        ("/v1/users/{id}", "put", "201 200 400 401 403 409 413 415 500 503"),
        ("/v1/users/{id}", "get", "200 400 401 403 404 500 503"),
        ("/v1/users/{id}", "delete", "204 400 401 403 500 503"),
        ("/v1/users/{id}/friends", "get", "200 400 401 403 404 500 503"),
        ("/v1/users/{id}/friends/{friend}", "put", "201 204 400 401 403 404 409 500 503"),
        ("/v1/users/{id}/friends/{friend}", "delete", "204 400 401 403 500 503"),
        ("/v1/users/{id}/history", "get", "200 400 401 403 404 500 503"),
        ("/v1/me", "get", "200 401 403 404 500 503"),
        ("/v1/me/friends", "get", "200 400 401 403 404 500 503"),
        ("/v1/me/friends/{friend}", "delete", "204 400 401 403 404 500 503"),
        ("/livez", "get", "200"),
        ("/readyz", "get", "200 503"),
        ("/metrics", "get", "200"),
    ];
    let operations = document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len());
    assert_eq!(operations.sum::<usize>(), expected.len());
    for (path, method, statuses) in expected {
        let operation = &document["paths"][path][method];
        let responses = operation["responses"].as_object().unwrap_or_else(|| panic!("{method} {path}"));
        let mut statuses: Vec<_> = statuses.split(' ').collect();
        statuses.sort_unstable();
        assert_eq!(responses.keys().collect::<Vec<_>>(), statuses, "{method} {path}");
        for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
            assert!(response["content"]["application/problem+json"]["schema"].is_object(), "{method} {path} {status}");
        }
        assert_eq!(operation["security"].is_array(), path.starts_with("/v1"), "{method} {path}");
    }
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    check_references(&document, &document);
}

fn check_references(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|part| check_references(document, part));
        }
        Value::Array(parts) => parts.iter().for_each(|part| check_references(document, part)),
        _ => {}
    }
}

#[tokio::test(start_paused = true)]
async fn another_surface_joins_the_document() {
    let world = World::new();
    let mut extra = web::openapi::empty_document();
    extra.paths.add_path_operation("/v1/nearby", vec![HttpMethod::Get], Operation::default());
    let router = api::router(world.state.clone(), Some(extra));
    let response = router.oneshot(Request::get("/openapi.json").body(Body::empty()).unwrap()).await.unwrap();
    let bytes = axum::body::to_bytes(response.into_body(), 1_000_000).await.unwrap();
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    for path in ["/v1/nearby", "/v1/me", "/livez"] {
        assert!(document["paths"][path]["get"].is_object(), "{path}");
    }
    assert!(api::openapi().paths.paths.contains_key("/v1/me"));
}

#[tokio::test(start_paused = true)]
async fn alive_always_and_ready_when_nothing_is_missing() {
    let world = World::new();
    let readiness = &world.state.readiness;
    assert_eq!(world.ask(None, "GET", "/readyz", None).await.status, StatusCode::OK);
    let (cache, _broker) = (readiness.check("cache"), readiness.check("broker"));
    cache.missing("no answer for 10 s");
    let answer = world.ask(None, "GET", "/readyz", None).await;
    assert_eq!(answer.problem(503), "not ready: broker (starting), cache (no answer for 10 s)");
    assert_eq!(answer.headers["retry-after"], "1");
    readiness.drain();
    assert!(world.ask(None, "GET", "/readyz", None).await.problem(503).contains("draining"));
    assert_eq!(world.ask(None, "GET", "/livez", None).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn measures_are_openmetrics() {
    let mut registry = Registry::default();
    let counter: Counter = Counter::default();
    registry.register("updates", "Positions taken in", counter.clone());
    counter.inc_by(3);
    let world = World::new();
    let state = api::ApiState { registry: Arc::new(registry), ..world.state.clone() };
    let response =
        api::router(state, None).oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap();
    let content_type = response.headers()["content-type"].clone();
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = axum::body::to_bytes(response.into_body(), 1_000_000).await.unwrap();
    let text = std::str::from_utf8(&text).unwrap();
    assert!(text.contains("updates_total 3") && text.ends_with("# EOF\n"), "{text}");
}
