//! A mail server that takes every mail and answers it as a test says. One thread a connection.
use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// One mail, as it came.
#[derive(Clone, Debug, Default)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    /// Head and text.
    pub data: String,
}

impl Mail {
    /// Of its head, unfolded.
    pub fn header(&self, name: &str) -> Option<String> {
        let (head, _) = self.data.split_once("\r\n\r\n")?;
        let unfolded = head.replace("\r\n ", " ");
        let line = unfolded.lines().find(|l| l.to_ascii_lowercase().starts_with(&format!("{}:", name.to_ascii_lowercase())))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    }
}

/// Its threads end with the test's process.
pub struct SmtpServer {
    /// `smtp://127.0.0.1:PORT`
    pub url: String,
    seen: Arc<Mutex<Vec<Mail>>>,
}

impl SmtpServer {
    /// On a free port; `answer` says what each mail is answered with, as `250 ok`, once all of it was read.
    #[expect(clippy::expect_used, reason = "a test cannot go on without its server")]
    pub fn start(answer: impl Fn(&Mail) -> &'static str + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("smtp://{}", listener.local_addr().expect("a bound address"));
        let (seen, answer) = (Arc::<Mutex<Vec<Mail>>>::default(), Arc::new(answer));
        let log = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (answer.clone(), log.clone());
                // A client that has gone is part of many tests.
                thread::spawn(move || serve(&stream, &*answer, &log).ok());
            }
        });
        Self { url, seen }
    }

    /// So far, in the order in which they came, whatever they were answered with.
    pub fn mails(&self) -> Vec<Mail> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(stream: &TcpStream, answer: &dyn Fn(&Mail) -> &'static str, log: &Mutex<Vec<Mail>>) -> std::io::Result<()> {
    let (mut reader, mut out) = (BufReader::new(stream), stream);
    let mut mail = Mail::default();
    out.write_all(b"220 test ESMTP\r\n")?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        let command = line.trim_end().to_owned();
        line.clear();
        let address = || command.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(a, _)| a).to_owned();
        match command.to_ascii_uppercase().get(..4) {
            Some("EHLO") => out.write_all(b"250-test\r\n250 8BITMIME\r\n")?,
            Some("MAIL") => {
                mail = Mail { from: address(), ..Mail::default() };
                out.write_all(b"250 ok\r\n")?;
            }
            Some("RCPT") => {
                mail.to.push(address());
                out.write_all(b"250 ok\r\n")?;
            }
            Some("DATA") => {
                out.write_all(b"354 go on\r\n")?;
                mail.data = data(&mut reader)?;
                log.lock().unwrap_or_else(PoisonError::into_inner).push(mail.clone());
                out.write_all(format!("{}\r\n", answer(&mail)).as_bytes())?;
            }
            Some("QUIT") => return out.write_all(b"221 bye\r\n"),
            _ => out.write_all(b"250 ok\r\n")?,
        }
    }
    Ok(())
}

/// Until the line that is a dot; a line that begins with one had another before it.
fn data(reader: &mut impl BufRead) -> std::io::Result<String> {
    let (mut all, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line)? > 0 && line != ".\r\n" {
        all.push_str(line.strip_prefix('.').unwrap_or(&line));
        line.clear();
    }
    Ok(all)
}
