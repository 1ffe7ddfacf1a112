//! Several devices of one user.

use serde_json::json;

use crate::server::Server;
use crate::site::{HERE, north, now, position};

const ALICE: u64 = 1;
const BOB: u64 = 2;

#[tokio::test]
async fn the_newest_init_with_a_position_shares_and_the_others_watch() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    let mut bob = server.at(BOB, HERE).await;
    let mut phone = server.at(ALICE, north(100.0)).await;
    bob.sees(ALICE, 100.0).await;
    let mut tablet = server.at(ALICE, north(200.0)).await;
    bob.sees(ALICE, 200.0).await;

    phone.moves(north(300.0)).await;
    phone.is_told("not_sharing").await;
    bob.hears_nothing().await;
    // Both still see Bob, the phone from where the tablet is.
    tablet.moves(north(400.0)).await;
    bob.sees(ALICE, 400.0).await;
    bob.moves(north(50.0)).await;
    tablet.sees(BOB, 350.0).await;
    phone.sees(BOB, 350.0).await;
    // The tablet ends: its position stays until it is too old, and the phone may share again by connecting anew.
    drop(tablet);
    let mut phone_again = server.at(ALICE, north(500.0)).await;
    bob.sees(ALICE, 450.0).await;
    phone_again.moves(north(600.0)).await;
    bob.sees(ALICE, 550.0).await;
}

#[tokio::test]
async fn a_viewer_without_a_position_looks_from_the_users_newest() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    server.post(BOB, &position(HERE, now())).await.ok();
    let mut browser = server.connect(ALICE).await;
    // There is none yet.
    assert_eq!(browser.watch().await["friends"], json!([]));
    browser.moves(HERE).await;
    browser.is_told("not_sharing").await;
    let mut phone = server.at(ALICE, north(700.0)).await;
    browser.sees(BOB, 700.0).await;
    phone.moves(north(9_000.0)).await;
    browser.loses(BOB, "out_of_range").await;
    phone.loses(BOB, "out_of_range").await;
    phone.moves(north(800.0)).await;
    browser.sees(BOB, 800.0).await;
    // Another browser, opened later, begins with it.
    let mut another = server.connect(ALICE).await;
    assert_eq!(another.watch().await["friends"][0]["distance_m"].as_f64().unwrap().round(), 800.0);
    // Also when no device is connected.
    drop(phone);
    server.post(ALICE, &position(north(9_500.0), now() + 5)).await.ok();
    another.loses(BOB, "out_of_range").await;
}
