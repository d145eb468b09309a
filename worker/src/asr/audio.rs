//! WAV to what whisper hears: 16 kHz mono. Everything here is CPU-bound and synchronous: callers run it on a thread of its own.
use std::{
    io::{Cursor, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use rubato::{Fft, FixedSync, Resampler as _, audioadapter_buffers::direct::InterleavedSlice};
use runmill_shared::{
    Error, Result,
    domain::wav::{self, Encoding, Wav},
};
use symphonia::{
    core::{
        codecs::audio::{AudioDecoder, AudioDecoderOptions},
        errors::Error as SymphoniaError,
        formats::{FormatOptions, FormatReader},
        io::{MediaSourceStream, ReadOnlySource},
    },
    default::{formats::WavReader, get_codecs},
};

/// Hz.
pub const SAMPLE_RATE: u32 = 16_000;
const CHUNK: usize = 4096;

pub struct Audio {
    /// In -1..=1, no NaN.
    pub samples_16k_mono: Vec<f32>,
    /// Seconds, of the frames that were declared and read.
    pub duration: f64,
}

/// Decodes, mixes down and resamples; memory is bounded by `max_duration`. Fails with `Invalid` on the field `audio`, in words
/// for people.
pub fn decode_wav(bytes: &[u8], max_duration: Duration) -> Result<Audio> {
    let wav = wav::probe(bytes)?;
    // The ADPCM decoder multiplies what the file says without a check, and panics on overflow in a debug build.
    catch_unwind(AssertUnwindSafe(|| decode(bytes, &wav, max_duration))).unwrap_or_else(|_| Err(bad("its samples are damaged")))
}

fn bad(reason: impl Into<String>) -> Error {
    Error::invalid("audio", reason)
}

fn undecodable(e: SymphoniaError) -> Error {
    bad("it cannot be decoded").because(e)
}

fn decode(bytes: &[u8], wav: &Wav, max_duration: Duration) -> Result<Audio> {
    let (mut reader, mut decoder) = open(bytes, wav)?;
    let mut resampler = Resampler::new(wav.sample_rate)?;
    let most = max_duration.as_secs_f64() * f64::from(wav.sample_rate);
    let channels = usize::from(wav.channels);
    let (mut frames, mut interleaved, mut mono) = (0_u64, Vec::<f32>::new(), Vec::new());
    while let Some(packet) = reader.next_packet().map_err(undecodable)? {
        decoder.decode(&packet).map_err(undecodable)?.copy_to_vec_interleaved(&mut interleaved);
        mono.clear();
        mono.extend(interleaved.chunks_exact(channels).map(mix));
        frames += mono.len() as u64;
        if frames as f64 > most {
            return Err(super::too_long(max_duration));
        }
        resampler.push(&mono)?;
    }
    if frames == 0 {
        return Err(bad("it holds no samples"));
    }
    Ok(Audio { samples_16k_mono: resampler.finish()?, duration: frames as f64 / f64::from(wav.sample_rate) })
}

/// The mean of a frame; what is not a number is silence, what is too loud is clipped.
fn mix(frame: &[f32]) -> f32 {
    let sum: f32 = frame.iter().map(|s| if s.is_finite() { s.clamp(-1.0, 1.0) } else { 0.0 }).sum();
    sum / frame.len() as f32
}

type Opened<'a> = (WavReader<'a>, Box<dyn AudioDecoder>);

/// The samples behind a header of our own, so that odd chunks and sizes that lie never reach the decoder.
fn open<'a>(bytes: &'a [u8], wav: &Wav) -> Result<Opened<'a>> {
    let header = canonical_header(bytes, wav)?;
    let source = Cursor::new(header).chain(Cursor::new(&bytes[wav.data.clone()]));
    let stream = MediaSourceStream::new(Box::new(ReadOnlySource::new(source)), Default::default());
    let reader = WavReader::try_new(stream, FormatOptions::default()).map_err(undecodable)?;
    let params = reader.tracks().first().and_then(|t| t.codec_params.as_ref()?.audio());
    let params = params.ok_or_else(|| bad("it has no audio track"))?;
    let decoder = get_codecs().make_audio_decoder(params, &AudioDecoderOptions::default()).map_err(undecodable)?;
    Ok((reader, decoder))
}

fn canonical_header(bytes: &[u8], wav: &Wav) -> Result<Vec<u8>> {
    let format = match wav.encoding {
        // The coefficients of ADPCM are in the rest of the chunk.
        Encoding::AdpcmMs | Encoding::AdpcmIma => bytes[wav.format.clone()].to_vec(),
        _ => plain_format(wav),
    };
    let pad = format.len() % 2;
    let data_size = u32::try_from(wav.data.len()).map_err(|_| bad("it is larger than 4 GiB"))?;
    let riff_size =
        data_size.checked_add((4 + 8 + format.len() + pad + 8) as u32).ok_or_else(|| bad("it is larger than 4 GiB"))?;
    let mut header = Vec::with_capacity(64);
    header.extend(b"RIFF");
    header.extend(riff_size.to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend((format.len() as u32).to_le_bytes());
    header.extend(&format);
    header.resize(header.len() + pad, 0);
    header.extend(b"data");
    header.extend(data_size.to_le_bytes());
    Ok(header)
}

fn plain_format(wav: &Wav) -> Vec<u8> {
    let mut format = Vec::with_capacity(18);
    format.extend(wav.encoding.tag().to_le_bytes());
    format.extend(wav.channels.to_le_bytes());
    format.extend(wav.sample_rate.to_le_bytes());
    format.extend((wav.sample_rate.saturating_mul(u32::from(wav.block_align))).to_le_bytes());
    format.extend(wav.block_align.to_le_bytes());
    format.extend(wav.bits.to_le_bytes());
    format.extend([0, 0]);
    format
}

/// Mono, any rate to 16 kHz, a chunk at a time.
struct Resampler {
    /// None when the rate is right already.
    fft: Option<Fft<f32>>,
    rate: u32,
    pending: Vec<f32>,
    scratch: Vec<f32>,
    frames: u64,
    /// Output frames still to drop: the delay of the filter.
    skip: usize,
    out: Vec<f32>,
}

impl Resampler {
    fn new(rate: u32) -> Result<Self> {
        let mut resampler =
            Self { fft: None, rate, pending: Vec::new(), scratch: Vec::new(), frames: 0, skip: 0, out: Vec::new() };
        if rate != SAMPLE_RATE {
            let fft = Fft::new(rate as usize, SAMPLE_RATE as usize, CHUNK, 1, FixedSync::Input).map_err(Error::internal)?;
            resampler.scratch = vec![0.0; fft.output_frames_max()];
            resampler.skip = fft.output_delay();
            resampler.fft = Some(fft);
        }
        Ok(resampler)
    }

    fn push(&mut self, mono: &[f32]) -> Result<()> {
        self.frames += mono.len() as u64;
        let Some(fft) = &mut self.fft else {
            self.out.extend_from_slice(mono);
            return Ok(());
        };
        self.pending.extend_from_slice(mono);
        while self.pending.len() >= fft.input_frames_next() {
            let (need, room) = (fft.input_frames_next(), self.scratch.len());
            let input = InterleavedSlice::new(&self.pending[..need], 1, need).map_err(Error::internal)?;
            let mut output = InterleavedSlice::new_mut(&mut self.scratch, 1, room).map_err(Error::internal)?;
            let (read, written) = fft.process_into_buffer(&input, &mut output, None).map_err(Error::internal)?;
            let dropped = self.skip.min(written);
            self.skip -= dropped;
            self.out.extend(self.scratch[dropped..written].iter().map(|s| s.clamp(-1.0, 1.0)));
            self.pending.drain(..read);
        }
        Ok(())
    }

    /// Flushes with silence until the output is as long as the input was.
    fn finish(mut self) -> Result<Vec<f32>> {
        let expected = (self.frames * u64::from(SAMPLE_RATE)).div_ceil(u64::from(self.rate)) as usize;
        while let Some(fft) = self.fft.as_ref().filter(|_| self.out.len() < expected) {
            let silence = vec![0.0; fft.input_frames_next()];
            self.push(&silence)?;
        }
        self.out.truncate(expected);
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn wav(tag: u16, channels: u16, rate: u32, bits: u16, extra: &[u8], data: &[u8]) -> Vec<u8> {
        let align = if bits == 4 { 256 } else { channels * bits / 8 };
        let format = Wav {
            encoding: Encoding::Pcm,
            sample_rate: rate,
            channels,
            bits,
            block_align: align,
            frames: 0,
            format: 0..0,
            data: 0..0,
        };
        let mut format = plain_format(&format)[..16].to_vec();
        format[..2].copy_from_slice(&tag.to_le_bytes());
        format.extend(extra);
        let mut all = b"RIFF\0\0\0\0WAVEfmt ".to_vec();
        all.extend((format.len() as u32).to_le_bytes());
        all.extend(format);
        all.extend(b"data");
        all.extend((data.len() as u32).to_le_bytes());
        all.extend(data);
        all
    }

    /// `seconds` of a tone of `hz` at half amplitude, as 16-bit PCM.
    fn tone(hz: f64, rate: u32, seconds: f64) -> Vec<u8> {
        let frames = 0..(f64::from(rate) * seconds) as u32;
        let sample = |i| (0.5 * f64::from(i16::MAX) * (f64::from(i) / f64::from(rate) * hz * std::f64::consts::TAU).sin()) as i16;
        wav(1, 1, rate, 16, &[], &frames.flat_map(|i| sample(i).to_le_bytes()).collect::<Vec<_>>())
    }

    fn reason(bytes: &[u8], most: Duration) -> String {
        let error = decode_wav(bytes, most).err().unwrap();
        assert_eq!(error.fields[0].field, "audio");
        error.fields[0].message.clone()
    }

    #[test]
    fn every_rate_gives_the_same_tone() {
        for rate in [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000, 47_999] {
            let audio = decode_wav(&tone(440.0, rate, 1.0), HOUR).unwrap();
            assert_eq!((audio.duration, audio.samples_16k_mono.len()), (1.0, 16_000), "{rate}");
            // In phase as well, to within a sample (0.087 here): the delay of the filter is taken off.
            let wrong = audio.samples_16k_mono.iter().enumerate().skip(1000).take(14_000).map(|(i, s)| {
                let expected = 0.5 * (i as f64 / 16_000.0 * 440.0 * std::f64::consts::TAU).sin();
                (expected - f64::from(*s)).abs()
            });
            assert!(wrong.fold(0.0, f64::max) < 0.087, "{rate}");
        }
    }

    #[test]
    fn every_encoding_gives_the_same_sample() {
        let half = |bytes: &[u8]| bytes.repeat(1600);
        let cases = [
            wav(1, 1, 16_000, 8, &[], &half(&[0xc0])),
            wav(1, 1, 16_000, 16, &[], &half(&[0, 0x40])),
            wav(1, 1, 16_000, 24, &[], &half(&[0, 0, 0x40])),
            wav(1, 1, 16_000, 32, &[], &half(&[0, 0, 0, 0x40])),
            wav(3, 1, 16_000, 32, &[], &half(&0.5_f32.to_le_bytes())),
            wav(3, 1, 16_000, 64, &[], &half(&0.5_f64.to_le_bytes())),
            wav(1, 2, 16_000, 16, &[], &half(&[0, 0x60, 0, 0x20])),
            wav(1, 6, 16_000, 16, &[], &half(&[0, 0x40].repeat(6))),
        ];
        for (i, bytes) in cases.iter().enumerate() {
            let audio = decode_wav(bytes, HOUR).unwrap();
            assert_eq!(audio.samples_16k_mono.len(), 1600, "{i}");
            assert!(audio.samples_16k_mono.iter().all(|s| (s - 0.5).abs() < 1e-4), "{i}");
        }
        // A-law 0xd5 and mu-law 0xff are (nearly) zero.
        for (tag, byte) in [(6, 0xd5), (7, 0xff)] {
            let audio = decode_wav(&wav(tag, 1, 16_000, 8, &[0, 0], &[byte; 1600]), HOUR).unwrap();
            assert!(audio.samples_16k_mono.len() == 1600 && audio.samples_16k_mono.iter().all(|s| s.abs() < 0.001));
        }
    }

    #[test]
    fn adpcm() {
        let ima = decode_wav(&wav(0x11, 1, 16_000, 4, &[2, 0, 0xf9, 1], &[0; 512]), HOUR).unwrap();
        assert_eq!((ima.samples_16k_mono.len(), ima.duration), (1010, 1010.0 / 16_000.0));
        let mut extra = vec![32, 0, 0xf4, 1, 7, 0];
        extra.resize(34, 0);
        let ms = decode_wav(&wav(2, 1, 16_000, 4, &extra, &[0; 512]), HOUR).unwrap();
        assert_eq!(ms.samples_16k_mono.len(), 1000);
    }

    #[test]
    fn what_is_no_number_is_silence() {
        let samples = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -7.0];
        let data: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        let audio = decode_wav(&wav(3, 1, 16_000, 32, &[], &data), HOUR).unwrap();
        assert_eq!(audio.samples_16k_mono, [0.0, 0.0, 0.0, 1.0, -1.0]);
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(reason(b"hello", HOUR).contains("RIFF"));
        assert!(reason(&tone(440.0, 8_000, 1.0)[..3000], HOUR).contains("cut off"));
        assert_eq!(
            reason(&tone(440.0, 8_000, 3.1), Duration::from_secs(3)),
            "it is longer than 3s, the most that is transcribed"
        );
    }

    /// Whatever the samples and the format say: an answer or an error.
    #[test]
    fn never_panics() {
        let mut rng = StdRng::seed_from_u64(16);
        let mut extra = vec![32, 0, 0xf4, 1, 7, 0];
        extra.resize(34, 0);
        let noise: Vec<u8> = (0..1024).map(|_| rng.random()).collect();
        for whole in [
            wav(2, 2, 16_000, 4, &extra, &noise),
            wav(0x11, 2, 16_000, 4, &[2, 0, 0xf9, 1], &noise),
            wav(3, 1, 16_000, 32, &[], &noise),
        ] {
            for _ in 0..300 {
                let mut bytes = whole.clone();
                for _ in 0..rng.random_range(0..8) {
                    let at = rng.random_range(0..bytes.len().min(90));
                    bytes[at] = rng.random();
                }
                if let Ok(audio) = decode_wav(&bytes, HOUR) {
                    assert!(audio.samples_16k_mono.iter().all(|s| (-1.0..=1.0).contains(s)) && audio.duration > 0.0);
                }
            }
        }
    }
}
