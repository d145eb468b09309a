use runmill_shared::{
    domain::{
        approval::{ApprovalKind, ApprovalStatus, Decision, NewApproval},
        page::PageRequest,
    },
    store::approvals::{self, Decider},
};

use super::{super::*, NASTY};

fn wanted(reason: &str, expires_at: Timestamp) -> NewApproval {
    let (kind, subject) = (ApprovalKind::Tool, json!({ "tool": NASTY }));
    NewApproval { id: new_id(), kind, reason: reason.into(), subject, expires_at, escalate_at: None }
}

fn of(owner: &Owner) -> Decider<'_> {
    Decider { owner, is_admin: false }
}

fn page(status: Option<&str>, search: Option<&str>, size: i64) -> PageRequest {
    PageRequest { number: 1, size, search: search.map(str::to_owned), status: status.map(str::to_owned), sort: None }
}

#[tokio::test]
async fn one_decides_once_and_in_time() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let (soon, late) = (wanted(NASTY, START.after(MINUTE)), wanted("later", START.after(MINUTE * 2)));
        let mut tx = w.tx().await;
        // A flush whose answer was lost is written again.
        for _ in 0..2 {
            approvals::insert(&mut tx, &[(run.id, &soon), (run.id, &late)], START).await.unwrap();
        }
        tx.commit().await.unwrap();
        let stored = approvals::of_run(&w.app.db, run.id).await.unwrap();
        assert_eq!(
            (stored.len(), stored[0].reason.as_str(), &stored[0].subject),
            (2, NASTY, &json!({ "tool": NASTY })),
            "{}",
            w.name
        );
        let mut tx = w.tx().await;
        let stranger = Owner::of_row("stranger");
        let resolve = approvals::resolve(&mut tx, of(&stranger), soon.id, Decision::Approve, None, START).await.unwrap();
        assert_eq!(resolve, None);
        let expired = START.after(MINUTE);
        let resolve = approvals::resolve(&mut tx, of(&owner()), soon.id, Decision::Approve, None, expired).await.unwrap();
        assert_eq!(resolve, None, "at its end it has expired");
        approvals::expire(&mut tx, run.id, expired).await.unwrap();
        let decided =
            approvals::resolve(&mut tx, of(&owner()), late.id, Decision::Reject, Some(NASTY), expired).await.unwrap().unwrap();
        assert_eq!((decided.status, decided.comment.as_deref(), decided.run_id), (ApprovalStatus::Rejected, Some(NASTY), run.id));
        let again = approvals::resolve(&mut tx, of(&owner()), late.id, Decision::Approve, None, expired).await.unwrap();
        assert_eq!(again, None);
        approvals::cancel_of_run(&mut tx, run.id, expired).await.unwrap();
        tx.commit().await.unwrap();
        let states: Vec<_> = approvals::of_run(&w.app.db, run.id).await.unwrap().into_iter().map(|a| a.status).collect();
        assert_eq!(states, [ApprovalStatus::Expired, ApprovalStatus::Rejected], "what is decided is not cancelled");
    }
}

#[tokio::test]
async fn a_list_shows_ones_own_pending_first_and_what_has_expired_as_expired() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let all = ["one", "Two 50%", "three"].map(|reason| wanted(reason, START.after(MINUTE)));
        let mut tx = w.tx().await;
        approvals::insert(&mut tx, &all.each_ref().map(|a| (run.id, a)), START).await.unwrap();
        approvals::resolve(&mut tx, of(&owner()), all[2].id, Decision::Approve, None, START).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        let reasons = async |page: PageRequest, now| -> Vec<String> {
            let list = approvals::list(&w.app.db, of(&owner()), &page, now).await.unwrap();
            list.into_iter().map(|a| a.reason).collect()
        };
        assert_eq!(reasons(page(None, None, 20), START).await, ["Two 50%", "one", "three"], "{}", w.name);
        assert_eq!(reasons(page(None, None, 1), START).await, ["Two 50%"]);
        assert_eq!(reasons(page(None, Some("two 50%"), 20), START).await, ["Two 50%"]);
        let after = START.after(MINUTE);
        assert_eq!(reasons(page(Some("expired"), None, 20), after).await, ["Two 50%", "one"]);
        assert_eq!(reasons(page(Some("pending"), None, 20), after).await, [""; 0]);
        let total = async |page: PageRequest| approvals::total(&w.app.db, of(&owner()), &page, after).await.unwrap();
        assert_eq!((total(page(Some("expired"), None, 1)).await, total(page(None, None, 1)).await), (2, 3));
        assert_eq!(approvals::total(&w.app.db, of(&Owner::of_row("stranger")), &page(None, None, 1), after).await.unwrap(), 0);
        let seen = approvals::by_id(&w.app.db, of(&owner()), all[0].id, after).await.unwrap().unwrap();
        assert_eq!(seen.status, ApprovalStatus::Expired);
        assert_eq!(approvals::by_id(&w.app.db, of(&Owner::of_row("stranger")), all[0].id, after).await.unwrap(), None);
    }
}
