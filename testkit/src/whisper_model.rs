//! A whisper model that is **scripted, not recognition**: whatever it hears, it says its script. It is a valid ggml file, so
//! the whole of whisper.cpp runs on it (mel, encoder, decoder, language detection, timestamp rules), with an answer that is
//! known to the letter.
//!
//! The decoder is a lookup table, token → next token. Each token of the script is embedded as one row of a Hadamard matrix:
//! ±1, mean 0, orthogonal to all others, and so a fixed point of the layer norm; every other token is embedded as zero. All
//! attention writes zero. Hidden unit `j` of the one MLP fires for the embedding of token `j` alone and writes twice that of its
//! successor. The logits are then about 57 for the successor, 29 for the token itself and 0 for the rest. The second place
//! matters: after the timestamp that ends a segment whisper's rules forbid text once, and the timestamp repeats, as they want.
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};

/// What the model says in each window of 30 seconds.
pub struct Script<'a> {
    /// A whisper code: one of [`LANGUAGES`].
    pub language: &'a str,
    /// Start and end in seconds, multiples of 0.02, and the text. whisper.cpp starts a segment where the one before ended.
    pub segments: Vec<(f64, f64, &'a str)>,
}

/// In the order of their tokens.
pub const LANGUAGES: [&str; 10] = ["en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr"];

const STATE: usize = 64;
const HIDDEN: usize = 4 * STATE;
const MELS: usize = 80;
const FFT_BINS: usize = 201;
const AUDIO_CONTEXT: usize = 1500;
const TEXT_CONTEXT: usize = 448;
const VOCABULARY: usize = 51_865;
/// Words in the file; whisper.cpp adds the special tokens behind them.
const WORDS: usize = 50_257;
const BLANK: usize = 220;
const FIRST_WORD: usize = 1000;
const END: usize = 50_257;
const START: usize = 50_258;
const TRANSCRIBE: usize = 50_359;
const TIMESTAMPS: usize = 50_364;

const F32: i32 = 0;
const F16: i32 = 1;

/// Writes the model (7 MB). Fails when the script is too long (63 tokens in all) or not as [`Script`] says.
pub fn write_scripted_model(path: &Path, script: &Script<'_>) -> Result<()> {
    let table = Table::new(script)?;
    let mut file = Writer(BufWriter::new(File::create(path).with_context(|| path.display().to_string())?));
    let (state, vocabulary) = (STATE as i32, VOCABULARY as i32);
    let (audio, text) = (AUDIO_CONTEXT as i32, TEXT_CONTEXT as i32);
    file.ints(&[0x6767_6d6c, vocabulary, audio, state, 1, 1, text, state, 1, 1, MELS as i32, 1])?;
    file.ints(&[MELS as i32, FFT_BINS as i32])?;
    file.zeros(MELS * FFT_BINS * 4)?;
    file.ints(&[WORDS as i32])?;
    for id in 0..WORDS {
        let word = if id == BLANK { " " } else { table.words.get(id.wrapping_sub(FIRST_WORD)).map_or("", |w| w) };
        file.ints(&[word.len() as i32])?;
        file.0.write_all(word.as_bytes())?;
    }
    encoder(&mut file)?;
    decoder(&mut file, &table)?;
    file.0.flush()?;
    Ok(())
}

/// The script as tokens and what follows each.
struct Table {
    words: Vec<String>,
    next: Vec<(usize, usize)>,
    /// The place in it is the Hadamard row, less one.
    tokens: Vec<usize>,
}

impl Table {
    fn new(script: &Script<'_>) -> Result<Self> {
        let language = LANGUAGES.iter().position(|l| *l == script.language).context("a language of LANGUAGES")?;
        let Some((first, ..)) = script.segments.first() else { bail!("a script needs a segment") };
        ensure!(*first <= 1.0, "whisper allows a first timestamp of at most one second");
        let mut words = Vec::new();
        let mut next = vec![(START, START + 1 + language)];
        let (mut last, mut now) = (TRANSCRIBE, *first);
        for (start, end, text) in &script.segments {
            ensure!((start - now).abs() < 1e-9 && end > start, "segments follow each other without a gap");
            now = *end;
            if last == TRANSCRIBE {
                next.push((last, timestamp(*start)?));
                last = timestamp(*start)?;
            }
            for word in split(text) {
                let token = FIRST_WORD + words.len();
                words.push(word);
                next.push((last, token));
                last = token;
            }
            next.push((last, timestamp(*end)?));
            last = timestamp(*end)?;
        }
        next.push((last, END));
        let mut tokens: Vec<_> = next.iter().flat_map(|(from, to)| [*from, *to]).collect();
        tokens.sort_unstable();
        tokens.dedup();
        ensure!(tokens.len() < STATE, "a script of {} tokens; at most {} fit", tokens.len(), STATE - 1);
        Ok(Self { words, next, tokens })
    }

    /// Sylvester's Hadamard matrix, without its first row (which has a mean).
    fn embedding(&self, token: usize) -> Option<[f32; STATE]> {
        let row = self.tokens.binary_search(&token).ok()? + 1;
        Some(std::array::from_fn(|i| if (row & i).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }))
    }
}

fn timestamp(seconds: f64) -> Result<usize> {
    let steps = (seconds * 50.0).round();
    ensure!((0.0..=1500.0).contains(&steps) && (steps / 50.0 - seconds).abs() < 1e-9, "a multiple of 0.02 up to 30");
    Ok(TIMESTAMPS + steps as usize)
}

/// Words with a blank in front, as whisper's own; without blanks (Chinese) one token a character.
fn split(text: &str) -> Vec<String> {
    if text.is_ascii() || text.contains(' ') {
        text.split_whitespace().map(|w| format!(" {w}")).collect()
    } else {
        text.chars().map(String::from).collect()
    }
}

fn encoder(file: &mut Writer) -> Result<()> {
    let n = STATE;
    file.zero("encoder.positional_embedding", &[n, AUDIO_CONTEXT], F32)?;
    file.zero("encoder.conv1.weight", &[3, MELS, n], F16)?;
    file.zero("encoder.conv1.bias", &[1, n], F32)?;
    file.zero("encoder.conv2.weight", &[3, n, n], F16)?;
    file.zero("encoder.conv2.bias", &[1, n], F32)?;
    norm(file, "encoder.ln_post", 0.0)?;
    norm(file, "encoder.blocks.0.mlp_ln", 0.0)?;
    file.zero("encoder.blocks.0.mlp.0.weight", &[n, HIDDEN], F16)?;
    file.zero("encoder.blocks.0.mlp.0.bias", &[HIDDEN], F32)?;
    file.zero("encoder.blocks.0.mlp.2.weight", &[HIDDEN, n], F16)?;
    file.zero("encoder.blocks.0.mlp.2.bias", &[n], F32)?;
    attention(file, "encoder.blocks.0.attn")
}

fn decoder(file: &mut Writer, table: &Table) -> Result<()> {
    let n = STATE;
    file.zero("decoder.positional_embedding", &[n, TEXT_CONTEXT], F32)?;
    file.tensor("decoder.token_embedding.weight", &[n, VOCABULARY], F16)?;
    for token in 0..VOCABULARY {
        match table.embedding(token) {
            Some(row) => file.halves(&row)?,
            None => file.zeros(STATE * 2)?,
        }
    }
    norm(file, "decoder.ln", 1.0)?;
    norm(file, "decoder.blocks.0.mlp_ln", 1.0)?;
    mlp(file, table)?;
    attention(file, "decoder.blocks.0.attn")?;
    attention(file, "decoder.blocks.0.cross_attn")
}

/// A unit's input is 64 for its own token and 0 for another; less 32, the GELU passes on 32 or nothing.
fn mlp(file: &mut Writer, table: &Table) -> Result<()> {
    let rows = |pick: fn(&(usize, usize)) -> usize| -> Vec<[f32; STATE]> {
        let units = table.next.iter().map(|pair| table.embedding(pick(pair)).unwrap_or([0.0; STATE]));
        units.chain(std::iter::repeat([0.0; STATE])).take(HIDDEN).collect()
    };
    file.tensor("decoder.blocks.0.mlp.0.weight", &[STATE, HIDDEN], F16)?;
    for row in rows(|(from, _)| *from) {
        file.halves(&row)?;
    }
    file.floats("decoder.blocks.0.mlp.0.bias", &[-(STATE as f32) / 2.0; HIDDEN])?;
    file.tensor("decoder.blocks.0.mlp.2.weight", &[HIDDEN, STATE], F16)?;
    let out = rows(|(_, to)| *to);
    for i in 0..STATE {
        let column: Vec<_> = out.iter().map(|row| row[i] * 4.0 / STATE as f32).collect();
        file.halves(&column)?;
    }
    file.zero("decoder.blocks.0.mlp.2.bias", &[STATE], F32)
}

fn norm(file: &mut Writer, name: &str, weight: f32) -> Result<()> {
    file.floats(&format!("{name}.weight"), &[weight; STATE])?;
    file.zero(&format!("{name}.bias"), &[STATE], F32)
}

fn attention(file: &mut Writer, name: &str) -> Result<()> {
    norm(file, &format!("{name}_ln"), 0.0)?;
    for projection in ["query", "key", "value", "out"] {
        file.zero(&format!("{name}.{projection}.weight"), &[STATE, STATE], F16)?;
        if projection != "key" {
            file.zero(&format!("{name}.{projection}.bias"), &[STATE], F32)?;
        }
    }
    Ok(())
}

struct Writer(BufWriter<File>);

impl Writer {
    fn ints(&mut self, values: &[i32]) -> Result<()> {
        values.iter().try_for_each(|v| self.0.write_all(&v.to_le_bytes())).map_err(Into::into)
    }

    fn zeros(&mut self, bytes: usize) -> Result<()> {
        Ok(self.0.write_all(&vec![0; bytes])?)
    }

    fn tensor(&mut self, name: &str, shape: &[usize], format: i32) -> Result<()> {
        self.ints(&[shape.len() as i32, name.len() as i32, format])?;
        self.ints(&shape.iter().map(|n| *n as i32).collect::<Vec<_>>())?;
        Ok(self.0.write_all(name.as_bytes())?)
    }

    fn zero(&mut self, name: &str, shape: &[usize], format: i32) -> Result<()> {
        self.tensor(name, shape, format)?;
        self.zeros(shape.iter().product::<usize>() * if format == F32 { 4 } else { 2 })
    }

    fn floats(&mut self, name: &str, values: &[f32]) -> Result<()> {
        self.tensor(name, &[values.len()], F32)?;
        values.iter().try_for_each(|v| self.0.write_all(&v.to_le_bytes())).map_err(Into::into)
    }

    /// Zeros and powers of two, which 16 bits hold exactly: the exponent is biased by 15 in place of 127.
    fn halves(&mut self, values: &[f32]) -> Result<()> {
        values.iter().try_for_each(|v| self.0.write_all(&half(*v).to_le_bytes())).map_err(Into::into)
    }
}

fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = (bits >> 23 & 0xff) as u16;
    if exponent == 0 { sign } else { sign | (exponent + 15 - 127) << 10 }
}

/// A 440 Hz tone as 16-bit PCM; no speech in it.
pub fn sine_wav(seconds: f64, rate: u32, channels: u16) -> Vec<u8> {
    let frames = (seconds * f64::from(rate)).round() as u32;
    let align = channels * 2;
    let size = frames * u32::from(align);
    let mut wav = Vec::with_capacity(44 + size as usize);
    wav.extend(b"RIFF");
    wav.extend((36 + size).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    wav.extend(channels.to_le_bytes());
    wav.extend(rate.to_le_bytes());
    wav.extend((rate * u32::from(align)).to_le_bytes());
    wav.extend(align.to_le_bytes());
    wav.extend(16_u16.to_le_bytes());
    wav.extend(b"data");
    wav.extend(size.to_le_bytes());
    for frame in 0..frames {
        let t = f64::from(frame) / f64::from(rate);
        let sample = ((t * 440.0 * std::f64::consts::TAU).sin() * 0.5 * f64::from(i16::MAX)) as i16;
        for _ in 0..channels {
            wav.extend(sample.to_le_bytes());
        }
    }
    wav
}
