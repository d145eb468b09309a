//! Checks a ggml whisper model before whisper.cpp sees it. Its loader trusts the file (sizes, names, the number of dimensions)
//! and aborts the process, or writes past its buffers, on a bad one. What passes here has the shape of the published models,
//! whole and with finite weights. The layout is the one of whisper.cpp's `convert-pt-to-ggml.py`.
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use runmill_shared::{Error, Result};

const MAGIC: i32 = 0x6767_6d6c;
const HEAD: i32 = 64;
const AUDIO_CONTEXT: i32 = 1500;
const TEXT_CONTEXT: i32 = 448;
const FFT_BINS: i32 = 201;

/// How ggml stores numbers: `block` of them in `bytes`, with 16-bit floats at the offsets `halves`.
struct Format {
    id: i32,
    /// The value of `ftype` in the header that makes it the type of the large tensors.
    file_type: i32,
    block: i32,
    bytes: usize,
    halves: &'static [usize],
}

#[rustfmt::skip]
const FORMATS: [Format; 12] = [
    Format { id: 0, file_type: 0, block: 1, bytes: 4, halves: &[] },
    Format { id: 1, file_type: 1, block: 1, bytes: 2, halves: &[0] },
    Format { id: 2, file_type: 2, block: 32, bytes: 18, halves: &[0] },
    Format { id: 3, file_type: 3, block: 32, bytes: 20, halves: &[0, 2] },
    Format { id: 6, file_type: 8, block: 32, bytes: 22, halves: &[0] },
    Format { id: 7, file_type: 9, block: 32, bytes: 24, halves: &[0, 2] },
    Format { id: 8, file_type: 7, block: 32, bytes: 34, halves: &[0] },
    Format { id: 10, file_type: 10, block: 256, bytes: 84, halves: &[80, 82] },
    Format { id: 11, file_type: 11, block: 256, bytes: 110, halves: &[108] },
    Format { id: 12, file_type: 12, block: 256, bytes: 144, halves: &[0, 2] },
    Format { id: 13, file_type: 13, block: 256, bytes: 176, halves: &[0, 2] },
    Format { id: 14, file_type: 14, block: 256, bytes: 210, halves: &[208] },
];
const F32: &Format = &FORMATS[0];
const F16: &Format = &FORMATS[1];

/// Reads all of the file. Fails with `Unavailable`; the reason is the cause, for the log.
pub fn check(path: &Path) -> Result<()> {
    let broken = |reason: String| {
        Error::unavailable("TRANSCRIBE_MODEL_INVALID", "the transcription model cannot be used; `runmill doctor` says why")
            .because(format!("{}: {reason}", path.display()))
    };
    let file = File::open(path).map_err(|e| broken(e.to_string()))?;
    Checker { file: BufReader::with_capacity(1 << 20, file), buffer: Vec::new() }.run().map_err(|e| {
        let cut = e.kind() == io::ErrorKind::UnexpectedEof;
        broken(if cut { "the file is cut off".to_owned() } else { e.to_string() })
    })
}

fn wrong<T>(reason: impl Into<String>) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, reason.into()))
}

struct Header {
    vocabulary: i32,
    audio_layers: i32,
    text_layers: i32,
    state: i32,
    mels: i32,
    weights: &'static Format,
}

struct Checker<R> {
    file: R,
    buffer: Vec<u8>,
}

impl<R: Read> Checker<R> {
    fn run(&mut self) -> io::Result<()> {
        if self.int()? != MAGIC {
            return wrong("it is not a ggml whisper model (GGUF and PyTorch files are other formats)");
        }
        let header = self.header()?;
        if (self.int()?, self.int()?) != (header.mels, FFT_BINS) {
            return wrong("its mel filters do not go with its header");
        }
        self.finite(F32, (header.mels * FFT_BINS) as usize)?;
        self.vocabulary(header.vocabulary)?;
        self.tensors(&header)
    }

    fn int(&mut self) -> io::Result<i32> {
        let mut bytes = [0; 4];
        self.file.read_exact(&mut bytes)?;
        Ok(i32::from_le_bytes(bytes))
    }

    fn header(&mut self) -> io::Result<Header> {
        let mut h = [0; 11];
        for value in &mut h {
            *value = self.int()?;
        }
        let [
            vocabulary,
            audio_ctx,
            audio_state,
            audio_heads,
            audio_layers,
            text_ctx,
            state,
            text_heads,
            text_layers,
            mels,
            ftype,
        ] = h;
        let Some(weights) = FORMATS.iter().find(|f| f.file_type == ftype % 1000 && ftype >= 0) else {
            return wrong(format!("its number format {ftype} is not known"));
        };
        let rules = [
            ((51_864..=51_866).contains(&vocabulary), "vocabulary size"),
            (audio_ctx == AUDIO_CONTEXT && text_ctx == TEXT_CONTEXT, "context size"),
            ((1..=64).contains(&text_heads) && state == text_heads * HEAD && state % weights.block == 0, "text state"),
            (audio_state == state && audio_heads == text_heads, "audio state"),
            ((1..=48).contains(&audio_layers) && (1..=48).contains(&text_layers), "number of layers"),
            (mels == 80 || mels == 128, "number of mel bands"),
        ];
        match rules.iter().find(|(ok, _)| !ok) {
            Some((_, what)) => wrong(format!("its {what} is not that of a whisper model")),
            None => Ok(Header { vocabulary, audio_layers, text_layers, state, mels, weights }),
        }
    }

    fn vocabulary(&mut self, most: i32) -> io::Result<()> {
        let count = self.int()?;
        if !(1..=most).contains(&count) {
            return wrong("its vocabulary does not go with its header");
        }
        let mut space = false;
        for _ in 0..count {
            let length = self.int()?;
            if !(0..=4096).contains(&length) {
                return wrong("a word of its vocabulary is too long");
            }
            self.fill(length as usize)?;
            space |= self.buffer == b" ";
        }
        // whisper.cpp looks it up without a check.
        if space { Ok(()) } else { wrong("its vocabulary has no blank") }
    }

    fn tensors(&mut self, header: &Header) -> io::Result<()> {
        let mut missing = expected_tensors(header);
        while !missing.is_empty() {
            let (dims, name_length, format) = (self.int()?, self.int()?, self.int()?);
            if !(1..=3).contains(&dims) || !(1..=64).contains(&name_length) {
                return wrong("the header of a tensor is damaged");
            }
            let mut shape = [1; 3];
            for size in &mut shape[..dims as usize] {
                *size = self.int()?;
            }
            self.fill(name_length as usize)?;
            let name = String::from_utf8_lossy(&self.buffer).into_owned();
            let Some((expected, in_format)) = missing.remove(&name) else {
                return wrong(format!("the tensor {name:?} does not belong in it, or is there twice"));
            };
            if shape != expected || format != in_format.id {
                return wrong(format!("the tensor {name} has the wrong shape or number format"));
            }
            self.finite(in_format, shape.iter().map(|n| *n as usize).product())?;
        }
        if self.file.read(&mut [0])? != 0 { wrong("there is something behind its end") } else { Ok(()) }
    }

    fn fill(&mut self, length: usize) -> io::Result<()> {
        self.buffer.resize(length, 0);
        self.file.read_exact(&mut self.buffer)
    }

    /// One number that is none spreads over every logit, and whisper.cpp sorts these.
    fn finite(&mut self, format: &Format, count: usize) -> io::Result<()> {
        let mut blocks = count / format.block as usize;
        while blocks > 0 {
            let some = blocks.min(4096);
            self.fill(some * format.bytes)?;
            let mut all = self.buffer.chunks_exact(format.bytes);
            let ok = if format.id == F32.id {
                all.all(|b| b[3] & 0x7f != 0x7f || b[2] & 0x80 == 0)
            } else {
                all.all(|b| format.halves.iter().all(|at| b[at + 1] & 0x7c != 0x7c))
            };
            if !ok {
                return wrong("a weight is not a finite number");
            }
            blocks -= some;
        }
        Ok(())
    }
}

type Tensors = HashMap<String, ([i32; 3], &'static Format)>;

fn expected_tensors(h: &Header) -> Tensors {
    let (n, mut all) = (h.state, Tensors::new());
    let convolution = if h.weights.id == F32.id { F32 } else { F16 };
    let mut add = |name: String, shape: [i32; 3], format: &'static Format| all.insert(name, (shape, format));
    add("encoder.positional_embedding".to_owned(), [n, AUDIO_CONTEXT, 1], F32);
    add("encoder.conv1.weight".to_owned(), [3, h.mels, n], convolution);
    add("encoder.conv1.bias".to_owned(), [1, n, 1], F32);
    add("encoder.conv2.weight".to_owned(), [3, n, n], convolution);
    add("encoder.conv2.bias".to_owned(), [1, n, 1], F32);
    add("decoder.positional_embedding".to_owned(), [n, TEXT_CONTEXT, 1], F32);
    add("decoder.token_embedding.weight".to_owned(), [n, h.vocabulary, 1], h.weights);
    let audio = (0..h.audio_layers).map(|i| (format!("encoder.blocks.{i}"), &["attn"] as &[&str]));
    let text = (0..h.text_layers).map(|i| (format!("decoder.blocks.{i}"), &["attn", "cross_attn"] as &[&str]));
    let mut norms = vec!["encoder.ln_post".to_owned(), "decoder.ln".to_owned()];
    for (block, attentions) in audio.chain(text) {
        norms.push(format!("{block}.mlp_ln"));
        add(format!("{block}.mlp.0.weight"), [n, 4 * n, 1], h.weights);
        add(format!("{block}.mlp.0.bias"), [4 * n, 1, 1], F32);
        add(format!("{block}.mlp.2.weight"), [4 * n, n, 1], h.weights);
        add(format!("{block}.mlp.2.bias"), [n, 1, 1], F32);
        for attention in attentions {
            norms.push(format!("{block}.{attention}_ln"));
            for projection in ["query", "key", "value", "out"] {
                add(format!("{block}.{attention}.{projection}.weight"), [n, n, 1], h.weights);
                if projection != "key" {
                    add(format!("{block}.{attention}.{projection}.bias"), [n, 1, 1], F32);
                }
            }
        }
    }
    for norm in norms {
        add(format!("{norm}.weight"), [n, 1, 1], F32);
        add(format!("{norm}.bias"), [n, 1, 1], F32);
    }
    all
}
