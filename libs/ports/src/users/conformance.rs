//! The contract of [`Users`], as tests. What "durable" means is for each backend's own crash tests.

#![expect(clippy::unwrap_used, reason = "a suite panics when a sentence does not hold")]

use std::sync::Arc;

use model::UserId;
use tokio::task::JoinSet;

use super::{FIRST_RESOLVED_ID, MAX_SUBJECT_BYTES, PutUser, User, Users};
use crate::conformance::{Harness, fresh_name, fresh_user, fresh_users};

/// Makes a test of every sentence: `users_conformance!([tokio::test] harness)`.
#[macro_export]
macro_rules! users_conformance {
    ($attribute:tt $harness:expr) => {
        $crate::conformance_tests! { $attribute $harness, users:
            put_creates_then_renames,
            put_leaves_alone_who_is_being_deleted,
            get_many_answers_for_each_id_in_order,
            a_subject_is_one_user_on_every_node,
            nodes_that_race_resolve_a_subject_to_one_user,
            different_subjects_are_different_users,
            a_subject_of_no_or_too_many_bytes_is_refused,
            begin_delete_says_whether_there_was_one_and_may_be_repeated,
            finish_delete_removes_who_was_marked,
            finish_delete_leaves_alone_who_was_not_marked,
            after_a_deletion_a_subject_is_somebody_new,
            deleting_lists_who_is_marked_and_not_finished,
        }
    };
}

type Directory = Arc<dyn Users>;

async fn get(users: &Directory, id: UserId) -> Option<User> {
    let mut answer = users.get_many(&[id]).await.unwrap();
    assert_eq!(answer.len(), 1);
    answer.remove(0)
}

fn user(id: UserId, name: &str) -> User {
    User { id, name: name.to_owned(), deleting: false }
}

/// Sentence 1.
pub async fn put_creates_then_renames(harness: &impl Harness<Node = Directory>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let id = fresh_user();
    assert_eq!(first.put(id, "Ada").await, Ok(PutUser::Created));
    assert_eq!(get(&second, id).await, Some(user(id, "Ada")));
    for name in ["Ada", "Grace 🦀", ""] {
        assert_eq!(second.put(id, name).await, Ok(PutUser::Updated));
        assert_eq!(get(&first, id).await, Some(user(id, name)));
    }
}

/// Sentence 1.
pub async fn put_leaves_alone_who_is_being_deleted(harness: &impl Harness<Node = Directory>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let id = fresh_user();
    first.put(id, "Ada").await.unwrap();
    first.begin_delete(id).await.unwrap();
    assert_eq!(second.put(id, "Grace").await, Ok(PutUser::Deleting));
    assert_eq!(get(&second, id).await, Some(User { deleting: true, ..user(id, "Ada") }));
    first.finish_delete(id).await.unwrap();
    assert_eq!(second.put(id, "Grace").await, Ok(PutUser::Created));
}

/// Sentence 2.
pub async fn get_many_answers_for_each_id_in_order(harness: &impl Harness<Node = Directory>) {
    let users = harness.node().await;
    let [ada, nobody, grace] = fresh_users();
    users.put(ada, "Ada").await.unwrap();
    users.put(grace, "Grace").await.unwrap();
    let answer = users.get_many(&[grace, nobody, ada, grace]).await.unwrap();
    let (ada, grace) = (Some(user(ada, "Ada")), Some(user(grace, "Grace")));
    assert_eq!(answer, [grace.clone(), None, ada, grace]);
    assert_eq!(users.get_many(&[]).await, Ok(vec![]));
}

/// Sentence 3.
pub async fn a_subject_is_one_user_on_every_node(harness: &impl Harness<Node = Directory>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let subject = fresh_name("auth0|ada");
    let id = first.resolve(&subject).await.unwrap();
    assert!(id.0 >= FIRST_RESOLVED_ID);
    assert_eq!(get(&second, id).await, Some(user(id, &subject)));
    second.put(id, "Ada").await.unwrap();
    for node in [&second, &first] {
        assert_eq!(node.resolve(&subject).await, Ok(id));
    }
    assert_eq!(get(&first, id).await, Some(user(id, "Ada")), "resolving again does not rename");
}

/// Sentence 3, with calls at the same time.
pub async fn nodes_that_race_resolve_a_subject_to_one_user(harness: &impl Harness<Node = Directory>) {
    let nodes = [harness.node().await, harness.node().await];
    let subject = fresh_name("auth0|grace");
    let mut racers = JoinSet::new();
    for racer in 0..8 {
        let (node, subject) = (nodes[racer % 2].clone(), subject.clone());
        racers.spawn(async move { node.resolve(&subject).await.unwrap() });
    }
    let ids = racers.join_all().await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

/// Sentence 3.
pub async fn different_subjects_are_different_users(harness: &impl Harness<Node = Directory>) {
    let users = harness.node().await;
    let stem = fresh_name("s");
    let longest = "x".repeat(MAX_SUBJECT_BYTES - stem.len()) + &stem;
    let subjects = [stem.clone(), format!("{stem} "), stem.to_uppercase(), format!("{stem}\0"), longest];
    let mut ids = Vec::new();
    for subject in &subjects {
        ids.push(users.resolve(subject).await.unwrap());
    }
    for (subject, id) in subjects.iter().zip(&ids) {
        assert_eq!(users.resolve(subject).await, Ok(*id));
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), subjects.len());
}

/// Sentence 3.
pub async fn a_subject_of_no_or_too_many_bytes_is_refused(harness: &impl Harness<Node = Directory>) {
    let users = harness.node().await;
    for subject in [String::new(), "x".repeat(MAX_SUBJECT_BYTES + 1)] {
        assert!(!users.resolve(&subject).await.unwrap_err().is_transient());
    }
}

/// Sentence 4.
pub async fn begin_delete_says_whether_there_was_one_and_may_be_repeated(harness: &impl Harness<Node = Directory>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [id, nobody] = fresh_users();
    first.put(id, "Ada").await.unwrap();
    for node in [&first, &second, &first] {
        assert_eq!(node.begin_delete(id).await, Ok(true));
        assert_eq!(node.begin_delete(nobody).await, Ok(false));
        assert_eq!(get(&second, id).await, Some(User { deleting: true, ..user(id, "Ada") }));
        assert_eq!(get(&second, nobody).await, None);
    }
}

/// Sentence 5.
pub async fn finish_delete_removes_who_was_marked(harness: &impl Harness<Node = Directory>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [id, other] = fresh_users();
    first.put(id, "Ada").await.unwrap();
    first.put(other, "Grace").await.unwrap();
    first.begin_delete(id).await.unwrap();
    for _ in 0..2 {
        second.finish_delete(id).await.unwrap();
        assert_eq!(get(&first, id).await, None);
    }
    assert_eq!(get(&first, other).await, Some(user(other, "Grace")));
}

/// Sentence 5.
pub async fn finish_delete_leaves_alone_who_was_not_marked(harness: &impl Harness<Node = Directory>) {
    let users = harness.node().await;
    let id = fresh_user();
    users.put(id, "Ada").await.unwrap();
    users.finish_delete(id).await.unwrap();
    assert_eq!(get(&users, id).await, Some(user(id, "Ada")));
}

/// Sentence 5: the subjects go with the user.
pub async fn after_a_deletion_a_subject_is_somebody_new(harness: &impl Harness<Node = Directory>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [subject, other] = ["a", "b"].map(fresh_name);
    let (id, other_id) = (first.resolve(&subject).await.unwrap(), first.resolve(&other).await.unwrap());
    second.begin_delete(id).await.unwrap();
    assert_eq!(first.resolve(&subject).await, Ok(id), "until the deletion has finished");
    second.finish_delete(id).await.unwrap();
    let new = first.resolve(&subject).await.unwrap();
    assert!(new != id && new != other_id);
    assert_eq!(get(&second, new).await, Some(user(new, &subject)));
    assert_eq!(second.resolve(&other).await, Ok(other_id));
}

/// Sentence 6.
pub async fn deleting_lists_who_is_marked_and_not_finished(harness: &impl Harness<Node = Directory>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let ours: [UserId; 3] = fresh_users();
    for id in ours {
        first.put(id, "Ada").await.unwrap();
    }
    let [marked, finished, _] = ours;
    for id in [marked, finished] {
        first.begin_delete(id).await.unwrap();
    }
    first.finish_delete(finished).await.unwrap();
    let mut deleting = second.deleting().await.unwrap();
    deleting.retain(|id| ours.contains(id));
    assert_eq!(deleting, [marked]);
}
