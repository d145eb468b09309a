//! whisper.cpp in this process: the model is loaded once and shared, each transcription has a thread and a state of its own.
//!
//! The callbacks are raw on purpose. In whisper-rs 0.16 the safe abort callback casts its closure to the wrong type, and every
//! safe callback leaks; here all three get one pointer to a [`Call`] on the stack of the thread that makes the call.
use std::{
    ffi::{CStr, c_char, c_int, c_void},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Once, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use runmill_shared::{
    Error, Result,
    domain::transcript::{Segment, Transcript},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use whisper_rs::{FullParams, SamplingStrategy, WhisperContext, WhisperContextParameters, WhisperError, WhisperState};
use whisper_rs_sys as sys;

use super::{
    AsrEvent,
    audio::{self, Audio, SAMPLE_RATE},
    cancelled, language, model_file,
};

/// `whisper_full` gave up while growing a cache, and has freed the state already.
const STATE_FREED: c_int = -7;

#[derive(Clone)]
pub struct Whisper(Arc<Inner>);

struct Inner {
    model: PathBuf,
    threads: usize,
    max_duration: Duration,
    loaded: Mutex<Option<Arc<WhisperContext>>>,
    /// A cancelled transcription answers at once, but its thread ends only after the encoder's current window; it keeps its
    /// permit until then, so that cancelled work does not pile up.
    permits: Arc<Semaphore>,
}

impl Whisper {
    /// `threads` of one transcription, `at_once` transcriptions. The model is loaded by the first of them.
    pub fn new(model: PathBuf, threads: usize, at_once: usize, max_duration: Duration) -> Self {
        let permits = Arc::new(Semaphore::new(at_once.max(1)));
        Self(Arc::new(Inner { model, threads: threads.max(1), max_duration, loaded: Mutex::default(), permits }))
    }

    pub(super) async fn transcribe(
        &self,
        wav: Bytes,
        cancel: &CancellationToken,
        on_event: mpsc::Sender<AsrEvent>,
    ) -> Result<Transcript> {
        let permit = Arc::clone(&self.0.permits).acquire_owned().await.map_err(Error::internal)?;
        // Unbounded, because the thread cannot wait; a transcription makes few events.
        let (events, mut heard) = mpsc::unbounded_channel();
        // Also when this future is dropped, the thread is told to stop.
        let stop = cancel.child_token();
        let _stop = stop.clone().drop_guard();
        let done = self.start(wav, permit, Watch { cancel: stop, events, percent: AtomicI32::new(-1) })?;
        while let Some(event) = heard.recv().await {
            // Nobody listening is no reason to fail.
            let _ = on_event.send(event).await;
        }
        done.await.map_err(|_| Error::internal("the transcription thread panicked"))?
    }

    fn start(&self, wav: Bytes, permit: OwnedSemaphorePermit, watch: Watch) -> Result<oneshot::Receiver<Result<Transcript>>> {
        let (send, done) = oneshot::channel();
        let (inner, span) = (Arc::clone(&self.0), tracing::Span::current());
        let work = move || {
            let _span = span.enter();
            let result = inner.run(&wav, &watch);
            // The caller may have gone; the permit goes back before it hears, so that its next one finds it.
            drop((permit, watch));
            let _ = send.send(result);
        };
        std::thread::Builder::new().name("transcribe".to_owned()).spawn(work)?;
        Ok(done)
    }
}

impl Inner {
    fn run(&self, wav: &[u8], watch: &Watch) -> Result<Transcript> {
        let audio = audio::decode_wav(wav, self.max_duration)?;
        let context = self.context()?;
        if watch.cancel.is_cancelled() {
            return Err(cancelled());
        }
        let mut state = context.create_state().map_err(Error::internal)?;
        let outcome = full(&context, &mut state, &audio, self.threads, watch);
        if matches!(outcome, Err(WhisperError::GenericError(STATE_FREED))) {
            std::mem::forget(state);
            return Err(Error::internal("whisper.cpp is out of memory"));
        }
        // An aborted call is an error, or a success that stopped early.
        if watch.cancel.is_cancelled() {
            return Err(cancelled());
        }
        outcome.map_err(Error::internal)?;
        Ok(transcript(&state, &audio))
    }

    fn context(&self) -> Result<Arc<WhisperContext>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = &*loaded {
            return Ok(Arc::clone(context));
        }
        let context = Arc::new(load(&self.model)?);
        *loaded = Some(Arc::clone(&context));
        Ok(context)
    }
}

fn load(model: &Path) -> Result<WhisperContext> {
    model_file::check(model)?;
    log_to_tracing();
    let context = WhisperContext::new_with_params(model, WhisperContextParameters::default()).map_err(Error::internal)?;
    tracing::info!(model = %model.display(), "the transcription model is loaded");
    Ok(context)
}

/// What a transcription's caller sees of it, and how it stops it.
struct Watch {
    cancel: CancellationToken,
    events: mpsc::UnboundedSender<AsrEvent>,
    percent: AtomicI32,
}

/// What the callbacks of one call see.
struct Call<'a> {
    watch: &'a Watch,
    duration: f64,
}

#[expect(unsafe_code, reason = "the raw callbacks of whisper.cpp")]
fn full(
    context: &WhisperContext,
    state: &mut WhisperState,
    audio: &Audio,
    threads: usize,
    watch: &Watch,
) -> Result<(), WhisperError> {
    let mut params = FullParams::new(SamplingStrategy::Greedy { best_of: 5 });
    // None is "detect it"; a model for English alone has no tokens to detect by.
    if context.is_multilingual() {
        params.set_language(None);
    }
    params.set_n_threads(c_int::try_from(threads).unwrap_or(1));
    params.set_suppress_nst(true);
    params.set_print_progress(false);
    params.set_print_timestamps(false);
    let call = Call { watch, duration: audio.duration };
    let data = std::ptr::from_ref(&call).cast_mut().cast::<c_void>();
    // SAFETY: each callback reads `data` as a `&Call`, which lives until `state.full` below has returned; all of them run on
    // this thread, and it changes through atomics and channels only.
    unsafe {
        params.set_abort_callback(Some(on_abort));
        params.set_abort_callback_user_data(data);
        params.set_progress_callback(Some(on_progress));
        params.set_progress_callback_user_data(data);
        params.set_new_segment_callback(Some(on_segments));
        params.set_new_segment_callback_user_data(data);
        params.set_start_encoder_callback(Some(on_encoder));
        params.set_start_encoder_callback_user_data(data);
    }
    // Under a second whisper hears nothing (and below 201 samples it reads past the end).
    let mut padded = Vec::new();
    let samples = if audio.samples_16k_mono.len() < SAMPLE_RATE as usize {
        padded.extend_from_slice(&audio.samples_16k_mono);
        padded.resize(SAMPLE_RATE as usize, 0.0);
        &padded
    } else {
        &audio.samples_16k_mono
    };
    state.full(params, samples)
}

#[expect(unsafe_code, reason = "called by whisper.cpp")]
unsafe extern "C" fn on_abort(data: *mut c_void) -> bool {
    // SAFETY: `full` set it to a Call that lives until whisper.cpp returns.
    let watch = unsafe { &*data.cast::<Call<'_>>() }.watch;
    watch.cancel.is_cancelled()
}

#[expect(unsafe_code, reason = "called by whisper.cpp")]
unsafe extern "C" fn on_encoder(_: *mut sys::whisper_context, _: *mut sys::whisper_state, data: *mut c_void) -> bool {
    // SAFETY: `full` set it to a Call that lives until whisper.cpp returns.
    let watch = unsafe { &*data.cast::<Call<'_>>() }.watch;
    !watch.cancel.is_cancelled()
}

#[expect(unsafe_code, reason = "called by whisper.cpp")]
unsafe extern "C" fn on_progress(_: *mut sys::whisper_context, _: *mut sys::whisper_state, percent: c_int, data: *mut c_void) {
    // SAFETY: `full` set it to a Call that lives until whisper.cpp returns.
    let watch = unsafe { &*data.cast::<Call<'_>>() }.watch;
    let percent = percent.clamp(0, 100);
    if watch.percent.fetch_max(percent, Ordering::Relaxed) < percent {
        let _ = watch.events.send(AsrEvent::Progress(percent as u8));
    }
}

#[expect(unsafe_code, reason = "called by whisper.cpp")]
unsafe extern "C" fn on_segments(_: *mut sys::whisper_context, state: *mut sys::whisper_state, new: c_int, data: *mut c_void) {
    // SAFETY: `full` set it to a Call that lives until whisper.cpp returns; the state is whisper.cpp's own, the indices are below its count,
    // and a segment's text is a C string that stays until the next call.
    unsafe {
        let call = &*data.cast::<Call<'_>>();
        let count = sys::whisper_full_n_segments_from_state(state);
        for i in (count - new).max(0)..count {
            let text = CStr::from_ptr(sys::whisper_full_get_segment_text_from_state(state, i)).to_string_lossy();
            let times =
                [sys::whisper_full_get_segment_t0_from_state(state, i), sys::whisper_full_get_segment_t1_from_state(state, i)];
            if let Some(segment) = segment(times, &text, call.duration) {
                let _ = call.watch.events.send(AsrEvent::Segment(segment));
            }
        }
    }
}

/// `times` in hundredths of a second; whisper pads the audio and may end a segment behind it.
fn segment(times: [i64; 2], text: &str, duration: f64) -> Option<Segment> {
    let [start, end] = times.map(|t| (t as f64 / 100.0).clamp(0.0, duration));
    let text = text.trim().to_owned();
    (!text.is_empty()).then_some(Segment { start, end: end.max(start), text })
}

fn transcript(state: &WhisperState, audio: &Audio) -> Transcript {
    let (mut text, mut segments) = (String::new(), Vec::new());
    for s in state.as_iter() {
        let Ok(said) = s.to_str_lossy() else { continue };
        text.push_str(&said);
        segments.extend(segment([s.start_timestamp(), s.end_timestamp()], &said, audio.duration));
    }
    let language = whisper_rs::get_lang_str(state.full_lang_id_from_state()).unwrap_or_default();
    let (text, language) = (text.trim().to_owned(), language::tag(language));
    Transcript { text, language, duration: audio.duration, segments }
}

/// whisper.cpp writes to standard error otherwise. Its errors are told again by our own.
#[expect(unsafe_code, reason = "sets whisper.cpp's log callback")]
fn log_to_tracing() {
    static ONCE: Once = Once::new();
    // SAFETY: `on_log` is a function that takes no data.
    ONCE.call_once(|| unsafe { sys::whisper_log_set(Some(on_log), std::ptr::null_mut()) });
}

#[expect(unsafe_code, reason = "called by whisper.cpp")]
unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: whisper.cpp hands over a C string that lives for this call.
    let line = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    match (level, line.trim()) {
        (_, "") => {}
        (sys::ggml_log_level_GGML_LOG_LEVEL_ERROR | sys::ggml_log_level_GGML_LOG_LEVEL_WARN, line) => tracing::warn!("{line}"),
        (sys::ggml_log_level_GGML_LOG_LEVEL_INFO, line) => tracing::debug!("{line}"),
        (_, line) => tracing::trace!("{line}"),
    }
}
