//! The header of a WAV file: what it holds and whether that can be true, without decoding it. The chunks are those of
//! Microsoft's `WAVEFORMATEX` and `WAVEFORMATEXTENSIBLE` (mmreg.h).
use std::ops::Range;

use crate::{Error, Result};

const RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;
const CHANNELS: std::ops::RangeInclusive<u16> = 1..=26;
/// The last 14 bytes of the sub-format of an extensible header; its first two are a plain format tag.
const SUBFORMAT: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];
/// Encoders that write to a pipe cannot know the size and put this, or nearly this, or more.
const UNKNOWN_SIZE: u32 = 0x7fff_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Pcm,
    Float,
    ALaw,
    MuLaw,
    AdpcmMs,
    AdpcmIma,
}

impl Encoding {
    fn from_tag(tag: u16) -> Option<Self> {
        Some(match tag {
            0x0001 => Self::Pcm,
            0x0002 => Self::AdpcmMs,
            0x0003 => Self::Float,
            0x0006 => Self::ALaw,
            0x0007 => Self::MuLaw,
            0x0011 => Self::AdpcmIma,
            _ => return None,
        })
    }

    pub fn tag(self) -> u16 {
        match self {
            Self::Pcm => 0x0001,
            Self::AdpcmMs => 0x0002,
            Self::Float => 0x0003,
            Self::ALaw => 0x0006,
            Self::MuLaw => 0x0007,
            Self::AdpcmIma => 0x0011,
        }
    }

    fn allows_bits(self, bits: u16) -> bool {
        match self {
            Self::Pcm => matches!(bits, 8 | 16 | 24 | 32),
            Self::Float => matches!(bits, 32 | 64),
            Self::ALaw | Self::MuLaw => bits == 8,
            Self::AdpcmMs | Self::AdpcmIma => bits == 4,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wav {
    pub encoding: Encoding,
    /// Hz, 8,000 to 192,000.
    pub sample_rate: u32,
    pub channels: u16,
    /// Of one sample as stored.
    pub bits: u16,
    /// Bytes of one block: a frame, or for ADPCM a block of frames.
    pub block_align: u16,
    pub frames: u64,
    /// Where the body of the `fmt ` chunk lies in the file.
    pub format: Range<usize>,
    /// Where the samples lie in the file: whole blocks only.
    pub data: Range<usize>,
}

impl Wav {
    /// Seconds.
    pub fn duration(&self) -> f64 {
        self.frames as f64 / f64::from(self.sample_rate)
    }
}

/// Reads the header of the whole file `bytes`. Fails with `Invalid` on the field `audio`, in words for people: not a WAV,
/// cut off, no samples, or a format that cannot be.
pub fn probe(bytes: &[u8]) -> Result<Wav> {
    match bytes.get(..4) {
        Some(b"RIFF") => {}
        Some(b"RF64" | b"BW64") => return Err(bad("it is a 64-bit WAV (RF64); save it as a plain WAV")),
        _ => return Err(bad("it is not a WAV file: it does not begin with RIFF")),
    }
    if bytes.get(8..12) != Some(b"WAVE") {
        return Err(bad("it is a RIFF file, but not a WAV"));
    }
    let riff_size = u32_at(bytes, 4)?;
    let (mut at, mut format) = (12_usize, None);
    while let Some(id) = bytes.get(at..at + 4) {
        let size = u32_at(bytes, at + 4)?;
        let body = at + 8;
        match id {
            b"fmt " => format = Some(parse_format(bytes, chunk(bytes, body, size)?)?),
            b"data" => {
                let format = format.ok_or_else(|| bad("it has no format chunk in front of its samples"))?;
                let data = data_range(bytes, body, size, riff_size)?;
                return with_data(format, data);
            }
            _ => {}
        }
        let padded = usize::try_from(u64::from(size) + u64::from(size % 2)).map_err(|_| bad("a chunk is too large"))?;
        at = body.saturating_add(padded).min(bytes.len());
    }
    Err(bad("it has no samples: there is no data chunk"))
}

fn bad(reason: impl Into<String>) -> Error {
    Error::invalid("audio", reason)
}

fn cut_off() -> Error {
    bad("it is cut off in its header")
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes).ok_or_else(cut_off)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).ok_or_else(cut_off)
}

fn chunk(bytes: &[u8], body: usize, size: u32) -> Result<Range<usize>> {
    let range = body..body.saturating_add(usize::try_from(size).map_err(|_| cut_off())?);
    bytes.get(range.clone()).map(|_| range).ok_or_else(cut_off)
}

fn data_range(bytes: &[u8], body: usize, size: u32, riff_size: u32) -> Result<Range<usize>> {
    let there = bytes.len() - body;
    let unknown = size >= UNKNOWN_SIZE || (size == 0 && riff_size == 0);
    let promised = usize::try_from(size).unwrap_or(usize::MAX);
    if !unknown && promised > there {
        return Err(bad(format!("it is cut off: {promised} bytes of samples are promised, {there} are there")));
    }
    Ok(body..body + if unknown { there } else { promised })
}

fn parse_format(bytes: &[u8], body: Range<usize>) -> Result<Wav> {
    if body.len() < 16 {
        return Err(bad("its format chunk is too short"));
    }
    let at = body.start;
    let (mut tag, bits) = (u16_at(bytes, at)?, u16_at(bytes, at + 14)?);
    if tag == 0xfffe {
        tag = extensible_tag(&bytes[body.clone()], bits)?;
    }
    let encoding = Encoding::from_tag(tag)
        .ok_or_else(|| bad(format!("its encoding (format tag {tag:#06x}) is not supported; save it as 16-bit PCM")))?;
    let wav = Wav {
        encoding,
        sample_rate: u32_at(bytes, at + 4)?,
        channels: u16_at(bytes, at + 2)?,
        bits,
        block_align: u16_at(bytes, at + 12)?,
        frames: 0,
        format: body,
        data: 0..0,
    };
    check_format(&wav)?;
    Ok(wav)
}

fn extensible_tag(body: &[u8], bits: u16) -> Result<u16> {
    if body.len() < 40 || body[26..40] != SUBFORMAT {
        return Err(bad("its extensible format is not supported; save it as 16-bit PCM"));
    }
    if u16_at(body, 18)? > bits {
        return Err(bad("its format is contradictory: more valid bits than stored bits"));
    }
    u16_at(body, 24)
}

fn check_format(wav: &Wav) -> Result<()> {
    let Wav { encoding, sample_rate, channels, bits, block_align, .. } = *wav;
    let adpcm = matches!(encoding, Encoding::AdpcmMs | Encoding::AdpcmIma);
    if !RATES.contains(&sample_rate) {
        return Err(bad(format!("a sample rate of {sample_rate} Hz is out of range (8000 to 192000)")));
    }
    let most = if adpcm { 2 } else { *CHANNELS.end() };
    if !CHANNELS.contains(&channels) || channels > most {
        return Err(bad(format!("{channels} channels are out of range (1 to {most})")));
    }
    if !encoding.allows_bits(bits) {
        return Err(bad(format!("{bits} bits a sample do not go with its encoding")));
    }
    // The block size is redundant except for ADPCM; a contradiction means that the samples would be read wrongly.
    let fits = match encoding {
        Encoding::AdpcmMs => block_align >= 7 * channels,
        Encoding::AdpcmIma => block_align >= 4 * channels && (block_align - 4 * channels).is_multiple_of(4 * channels),
        _ => u32::from(block_align) == u32::from(channels) * u32::from(bits / 8),
    };
    if fits { Ok(()) } else { Err(bad(format!("a block size of {block_align} bytes does not go with its format"))) }
}

fn with_data(format: Wav, data: Range<usize>) -> Result<Wav> {
    let (channels, align) = (u64::from(format.channels), u64::from(format.block_align));
    let frames_per_block = match format.encoding {
        Encoding::AdpcmMs => (align - 7 * channels) * 2 / channels + 2,
        Encoding::AdpcmIma => (align - 4 * channels) * 2 / channels + 1,
        _ => 1,
    };
    let blocks = data.len() / usize::from(format.block_align);
    if blocks == 0 {
        return Err(bad("it holds no samples"));
    }
    let end = data.start + blocks * usize::from(format.block_align);
    Ok(Wav { frames: blocks as u64 * frames_per_block, data: data.start..end, ..format })
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    fn format(tag: u16, channels: u16, rate: u32, align: u16, bits: u16) -> Vec<u8> {
        let mut f = Vec::new();
        f.extend(tag.to_le_bytes());
        f.extend(channels.to_le_bytes());
        f.extend(rate.to_le_bytes());
        f.extend((rate * u32::from(align)).to_le_bytes());
        f.extend(align.to_le_bytes());
        f.extend(bits.to_le_bytes());
        f
    }

    fn riff(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut body = b"WAVE".to_vec();
        for (id, data) in chunks {
            body.extend(*id);
            body.extend((data.len() as u32).to_le_bytes());
            body.extend(*data);
            body.resize(body.len() + data.len() % 2, 0);
        }
        [b"RIFF".as_slice(), &(body.len() as u32).to_le_bytes(), &body].concat()
    }

    fn pcm() -> Vec<u8> {
        riff(&[(b"fmt ", &format(1, 2, 44_100, 4, 16)), (b"LIST", b"odd"), (b"data", &[0; 44_100 * 2])])
    }

    fn reason(bytes: &[u8]) -> String {
        let error = probe(bytes).unwrap_err();
        assert_eq!(error.fields[0].field, "audio");
        error.fields[0].message.clone()
    }

    #[test]
    fn pcm_behind_other_chunks() {
        let bytes = pcm();
        let wav = probe(&bytes).unwrap();
        assert_eq!((wav.encoding, wav.sample_rate, wav.channels, wav.bits), (Encoding::Pcm, 44_100, 2, 16));
        assert_eq!((wav.frames, wav.duration(), wav.data.end), (22_050, 0.5, bytes.len()));
    }

    #[test]
    fn extensible_float_and_adpcm() {
        let mut f = format(0xfffe, 1, 8000, 4, 32);
        f.extend([22, 0, 32, 0, 4, 0, 0, 0, 3, 0]);
        f.extend(SUBFORMAT);
        let wav = probe(&riff(&[(b"fmt ", &f), (b"data", &[0; 32_000])])).unwrap();
        assert_eq!((wav.encoding, wav.duration()), (Encoding::Float, 1.0));

        let mut f = format(0x11, 1, 8000, 256, 4);
        f.extend([2, 0, 249, 1]);
        let wav = probe(&riff(&[(b"fmt ", &f), (b"data", &[0; 600])])).unwrap();
        assert_eq!((wav.encoding, wav.frames, wav.data.len()), (Encoding::AdpcmIma, 2 * 505, 512));
    }

    #[test]
    fn sizes_that_a_pipe_could_not_know() {
        let mut bytes = pcm();
        let at = bytes.len() - 88_200 - 4;
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(probe(&bytes).unwrap().duration(), 0.5);
        bytes[4..8].fill(0);
        bytes[at..at + 4].fill(0);
        assert_eq!(probe(&bytes).unwrap().duration(), 0.5);
    }

    #[test]
    fn says_what_is_wrong() {
        let with = |f: Vec<u8>| riff(&[(b"fmt ", &f), (b"data", &[0; 64])]);
        assert!(reason(b"").contains("does not begin with RIFF"));
        assert!(reason(b"ID3\x03").contains("does not begin with RIFF"));
        assert!(reason(b"RIFF\0\0\0\0AVI ").contains("not a WAV"));
        assert!(reason(b"RF64\0\0\0\0WAVE").contains("RF64"));
        assert!(reason(&pcm()[..30]).contains("cut off in its header"));
        assert_eq!(reason(&pcm()[..1000]), "it is cut off: 88200 bytes of samples are promised, 944 are there");
        assert!(reason(&riff(&[(b"data", &[0; 64])])).contains("no format chunk"));
        assert!(reason(&riff(&[(b"fmt ", &format(1, 1, 8000, 2, 16))])).contains("no data chunk"));
        assert!(reason(&riff(&[(b"fmt ", &format(1, 1, 8000, 2, 16)), (b"data", b"\0")])).contains("holds no samples"));
        assert!(reason(&with(format(1, 1, 4_000_000, 2, 16))).contains("4000000 Hz"));
        assert!(reason(&with(format(1, 1, 0, 2, 16))).contains("0 Hz"));
        assert!(reason(&with(format(1, 0, 8000, 0, 16))).contains("0 channels"));
        assert!(reason(&with(format(1, 65_535, 8000, 2, 16))).contains("65535 channels"));
        assert!(reason(&with(format(1, 1, 8000, 2, 12))).contains("12 bits"));
        assert!(reason(&with(format(1, 2, 8000, 2, 16))).contains("block size"));
        assert!(reason(&with(format(0x55, 1, 8000, 1, 0))).contains("0x0055"));
    }

    /// Whatever the bytes: an answer or an error, and ranges that lie in the file.
    #[test]
    fn never_panics() {
        let mut rng = StdRng::seed_from_u64(8);
        let whole = pcm();
        for length in 0..200 {
            let _ = probe(&whole[..length]);
        }
        for _ in 0..20_000 {
            let mut bytes = whole[..200].to_vec();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..80);
                bytes[at] = if rng.random_bool(0.5) { rng.random() } else { [0, 0xff, 0x7f, 0x80][rng.random_range(0..4)] };
            }
            if let Ok(wav) = probe(&bytes) {
                assert!(bytes.get(wav.data.clone()).is_some_and(|d| !d.is_empty()) && bytes.get(wav.format.clone()).is_some());
                assert!(wav.duration().is_finite() && wav.frames > 0);
            }
        }
    }
}
