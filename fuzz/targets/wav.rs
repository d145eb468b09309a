//! A recording, from its bytes to what whisper hears.
#![no_main]

use std::{panic, sync::Once, time::Duration};

use libfuzzer_sys::fuzz_target;
use runmill_shared::{ErrorKind, domain::wav};
use runmill_worker::asr::audio::{SAMPLE_RATE, decode_wav};

const MOST: Duration = Duration::from_secs(2);

fuzz_target!(|file: &[u8]| {
    // The worker catches what its decoder panics at; libFuzzer's hook would end the process before that.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| panic::set_hook(Box::new(|_| {})));
    if let Err(said) = panic::catch_unwind(|| check(file)) {
        eprintln!("{}", said.downcast_ref::<String>().map_or("a check failed", String::as_str));
        std::process::abort();
    }
});

fn check(file: &[u8]) {
    let header = wav::probe(file);
    if let Ok(header) = &header {
        assert!(header.data.end <= file.len() && header.format.end <= file.len());
        assert!(header.duration().is_finite() && header.duration() >= 0.0);
    }
    match decode_wav(file, MOST) {
        Ok(audio) => {
            assert!(header.is_ok() && audio.duration > 0.0 && audio.duration <= MOST.as_secs_f64());
            assert!(audio.samples_16k_mono.iter().all(|s| (-1.0..=1.0).contains(s)), "too loud, or no number");
            let wanted = (audio.duration * f64::from(SAMPLE_RATE)).ceil();
            assert!((audio.samples_16k_mono.len() as f64 - wanted).abs() <= 1.0, "{} of {wanted}", audio.samples_16k_mono.len());
        }
        Err(e) => assert!(e.kind == ErrorKind::Invalid && e.fields[0].field == "audio", "{e:?}"),
    }
}
