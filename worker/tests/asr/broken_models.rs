//! A broken model file gives an error and never takes the process down: each is tried in a child process, because whisper.cpp
//! would abort this one (it does on most of these when the check is left out).
use std::process::Command;

use super::*;

const CHILD: &str = "RUNMILL_TEST_BROKEN_MODELS";

/// Name and content, made from the whole scripted model.
fn broken(whole: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all = vec![
        ("empty".to_owned(), Vec::new()),
        ("garbage".to_owned(), (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
        ("trailing".to_owned(), [whole, b"more"].concat()),
        ("no-tensors".to_owned(), whole[..whole.len() - 6_000_000].to_vec()),
    ];
    for keep in [3, 4, 40, 52, 60, 70_000, 300_000, whole.len() / 2, whole.len() - 1] {
        all.push((format!("cut-{keep}"), whole[..keep].to_vec()));
    }
    // The header, the mel filters' sizes, the vocabulary's size and its first length, each with values that hurt.
    let vocabulary = 56 + 80 * 201 * 4;
    for at in (0..56).step_by(4).chain([vocabulary, vocabulary + 4]) {
        for value in [-1, i32::MAX, 7] {
            let mut bytes = whole.to_vec();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            all.push((format!("int-{at}-{value}"), bytes));
        }
    }
    for (name, at, value) in tensor_damage(whole) {
        let mut bytes = whole.to_vec();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        all.push((name, bytes));
    }
    all
}

/// The numbers in front of a tensor's name (dimensions, length of the name, format, shape), the name, and its first weight.
fn tensor_damage(whole: &[u8]) -> Vec<(String, usize, i32)> {
    let name = b"decoder.token_embedding.weight";
    let at = whole.windows(name.len()).position(|w| w == name).unwrap();
    let mut all = Vec::new();
    for value in [0, -1, 4, 1000, i32::MAX] {
        all.extend((1..=5).map(|i| (format!("tensor-{i}-{value}"), at - 4 * i, value)));
    }
    all.push(("renamed".to_owned(), at, i32::from_le_bytes(*b"abcd")));
    all.push(("infinite".to_owned(), at + name.len(), 0x7c00_7c00));
    all
}

/// Weights that are merely wrong cannot be told from right ones: whisper.cpp must bear them.
fn wrong_weights(whole: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let tensors = [
        "encoder.conv2.weight",
        "encoder.ln_post.bias",
        "decoder.token_embedding.weight",
        "decoder.blocks.0.mlp.0.weight",
        "decoder.blocks.0.cross_attn.out.weight",
        "decoder.ln.weight",
    ];
    let damaged = tensors.map(|name| {
        let mut bytes = whole.to_vec();
        let at = whole.windows(name.len()).position(|w| w == name.as_bytes()).unwrap() + name.len();
        // The largest number that each format holds (0x7b7b is finite in 16 bits, 0x7b7b7b7b in 32).
        bytes[at..at + 256].fill(0x7b);
        (name, bytes)
    });
    damaged.to_vec()
}

#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let dir = Path::new(&dir);
    let whole = std::fs::read(dir.join("whole.bin")).unwrap();
    let path = dir.join("broken.bin");
    for (name, bytes) in broken(&whole) {
        if bytes == whole {
            continue;
        }
        std::fs::write(&path, bytes).unwrap();
        let error = transcribe(&with_model(&path), sine_wav(1.0, 16_000, 1)).await.0.expect_err(&name);
        assert_eq!((error.kind, error.code), (ErrorKind::Unavailable, "TRANSCRIBE_MODEL_INVALID"), "{name}: {error}");
        assert!(!error.message.contains("broken.bin"), "the path is for the log: {error}");
    }
    for (tensor, bytes) in wrong_weights(&whole) {
        std::fs::write(&path, bytes).unwrap();
        let (asr, cancel) = (with_model(&path), CancellationToken::new());
        let work = asr.transcribe(Bytes::from(sine_wav(1.0, 16_000, 1)), &cancel, mpsc::channel(1).0);
        // Nonsense may go on for as long as whisper tries higher temperatures.
        if let Ok(result) = tokio::time::timeout(Duration::from_millis(500), work).await {
            assert!(result.is_ok(), "{tensor}: {result:?}");
        }
    }
    println!("all broken models are through");
}

#[test]
fn broken_models_are_refused() {
    let dir = TempDir::new().unwrap();
    write_scripted_model(&dir.path().join("whole.bin"), &english()).unwrap();
    let begun = Instant::now();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "broken_models::child", "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{}: {said}{}", child.status, String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("all broken models are through"), "{said}");
    eprintln!("broken models: {:?}", begun.elapsed());
}

#[tokio::test]
async fn missing_model() {
    let error = transcribe(&with_model(Path::new("/nowhere/ggml.bin")), sine_wav(1.0, 16_000, 1)).await.0.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Unavailable, "TRANSCRIBE_MODEL_INVALID"));
}
