//! The hosted service, as a local server that keeps what it was sent and gives the answer it was told.
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::oneshot,
};

use super::*;

/// Answers one request with `answer` (None: never), and hands over the request.
async fn serve(answer: Option<&'static str>) -> (String, oneshot::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/", listener.local_addr().unwrap());
    let (send, request) = oneshot::channel();
    // The server lives as long as its connection.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut got = Vec::new();
            while !whole(&got) {
                socket.read_buf(&mut got).await.unwrap();
            }
            let _ = send.send(String::from_utf8_lossy(&got).into_owned());
            if let Some(answer) = answer {
                socket.write_all(answer.as_bytes()).await.unwrap();
            } else {
                // Ends when the client hangs up.
                let _ = socket.read_buf(&mut got).await;
            }
        });
    });
    (endpoint, request)
}

fn whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
    request.len() >= end + 4 + length.expect("a content-length")
}

fn hosted(endpoint: &str) -> Asr {
    let mut config = Config::defaults().unwrap();
    config.data_dir = PathBuf::from("/nowhere");
    config.transcribe.endpoint = endpoint.to_owned();
    config.transcribe.api_key = Secret::new("sk-test");
    Asr::from_config(&config).unwrap()
}

async fn error_of(answer: &'static str) -> Error {
    let (endpoint, _request) = serve(Some(answer)).await;
    transcribe(&hosted(&endpoint), sine_wav(1.0, 16_000, 1)).await.0.unwrap_err()
}

#[tokio::test]
async fn transcript_and_request() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
        {\"task\":\"transcribe\",\"language\":\"chinese\",\"duration\":9.9,\"text\":\" ni hao \",\
         \"segments\":[{\"id\":0,\"start\":0.0,\"end\":1.0,\"text\":\" ni hao\",\"tokens\":[1]}]}";
    let (endpoint, request) = serve(Some(answer)).await;
    let (transcript, events) = transcribe(&hosted(&endpoint), sine_wav(1.5, 16_000, 1)).await;
    let transcript = transcript.unwrap();
    assert_eq!((transcript.text.as_str(), transcript.language.as_str()), ("ni hao", "zh-CN"));
    assert_eq!((transcript.duration, transcript.segments), (1.5, vec![segment(0.0, 1.0, "ni hao")]));
    assert_eq!(events, vec![AsrEvent::Segment(segment(0.0, 1.0, "ni hao")), AsrEvent::Progress(100)]);

    let request = request.await.unwrap();
    assert!(request.starts_with("POST /v1/audio/transcriptions HTTP/1.1\r\n"), "{}", &request[..200]);
    for part in [
        "authorization: Bearer sk-test",
        "name=\"model\"\r\n\r\nwhisper-1",
        "name=\"response_format\"\r\n\r\nverbose_json",
        "filename=\"audio.wav\"\r\nContent-Type: audio/wav",
        "RIFF",
    ] {
        assert!(request.to_lowercase().contains(&part.to_lowercase()), "{part}");
    }
}

#[tokio::test]
async fn statuses() {
    let busy = error_of("HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!((busy.kind, busy.retry_after), (ErrorKind::Limited, Some(Duration::from_secs(7))));
    let down = error_of("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!((down.kind, down.code), (ErrorKind::Unavailable, "TRANSCRIBE_SERVICE_UNAVAILABLE"));
    let refused = error_of("HTTP/1.1 401 Unauthorized\r\ncontent-length: 9\r\n\r\nwrong key").await;
    assert_eq!(refused.kind, ErrorKind::Internal);
    assert!(!refused.message.contains("key") && refused.to_string().contains("wrong key"), "{refused}");
    let large = error_of("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(large.kind, ErrorKind::TooLarge);
}

#[tokio::test]
async fn answers_that_are_none() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"text\": ",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"text\": \"cut",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "",
    ] {
        assert_eq!(error_of(answer).await.code, "TRANSCRIBE_SERVICE_UNAVAILABLE", "{answer:?}");
    }
    let nobody = transcribe(&hosted("http://127.0.0.1:1/v1"), sine_wav(1.0, 16_000, 1)).await.0.unwrap_err();
    assert_eq!(nobody.kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn cancel_and_timeout() {
    let (endpoint, request) = serve(None).await;
    let cancel = CancellationToken::new();
    let asr = hosted(&endpoint);
    let work = asr.transcribe(Bytes::from(sine_wav(1.0, 16_000, 1)), &cancel, mpsc::channel(1).0);
    let stop = async {
        request.await.unwrap();
        cancel.cancel();
    };
    assert_eq!(tokio::join!(work, stop).0.unwrap_err().code, "CANCELLED");

    let (endpoint, _request) = serve(None).await;
    let (day, soon) = (Duration::from_secs(86_400), Duration::from_millis(50));
    let slow = runmill_worker::asr::hosted::Hosted::new(&endpoint, Secret::default(), "m", day, soon).unwrap();
    let error = transcribe(&Asr::Hosted(slow), sine_wav(1.0, 16_000, 1)).await.0.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Unavailable, "TRANSCRIBE_SERVICE_UNAVAILABLE"));
}

#[tokio::test]
async fn bad_audio_is_not_sent() {
    let error = transcribe(&hosted("http://127.0.0.1:1/v1"), b"no".to_vec()).await.0.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    let error = transcribe(&hosted("http://127.0.0.1:1/v1"), sine_wav(901.0, 8_000, 1)).await.0.unwrap_err();
    assert!(error.message.contains("longer than 15m"), "{error}");
}
