use runmill_shared::{domain::memory::Memory, store::memories};

use super::{super::*, NASTY};

fn memory(text: &str) -> Memory {
    let topics = vec![NASTY.to_owned()];
    Memory { id: new_id(), text: text.into(), topics, run_id: None, created_at: START, updated_at: START }
}

#[tokio::test]
async fn a_users_memories_are_theirs_and_the_latest_said_come_first() {
    for w in worlds().await {
        let (stranger, learned) = (Owner::of_row("stranger"), Memory { run_id: Some(new_id()), ..memory(NASTY) });
        let (other, foreign) = (memory("other"), memory("foreign"));
        let mut tx = w.tx().await;
        memories::insert(&mut tx, &owner(), &[learned.clone(), other.clone()], START).await.unwrap();
        memories::insert(&mut tx, &stranger, std::slice::from_ref(&foreign), START).await.unwrap();
        let later = START.after(MINUTE);
        memories::touch(&mut tx, &owner(), &[learned.id, foreign.id], later).await.unwrap();
        tx.commit().await.unwrap();
        let mine = memories::of_owner(&w.app.db, &owner()).await.unwrap();
        assert_eq!(mine, [Memory { updated_at: later, ..learned.clone() }, other.clone()], "{}", w.name);
        let mut tx = w.tx().await;
        memories::forget(&mut tx, &owner(), &[other.id, foreign.id]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(memories::of_owner(&w.app.db, &owner()).await.unwrap().len(), 1);
        assert_eq!(
            memories::of_owner(&w.app.db, &stranger).await.unwrap(),
            [foreign],
            "touched and forgotten by its owner alone"
        );
    }
}
