//! A real S3 protocol server (s3s over a directory) that checks signatures. It runs on a thread of its own, so that a test
//! may block, and listens on TCP, so that other processes can use it too.
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::TokioIo;
use s3s::{
    auth::SimpleAuth,
    host::MultiDomain,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

pub struct S3Server {
    /// `http://127.0.0.1:PORT`. As `http://localhost:PORT` it takes virtual-host requests too (`BUCKET.localhost`).
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
    /// It exists already.
    pub bucket: String,
    /// One folder a bucket, one file an object; the server's own files start with a dot.
    pub dir: TempDir,
    pub address: SocketAddr,
    service: S3Service,
    full: Arc<AtomicBool>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl S3Server {
    /// On a free port of 127.0.0.1.
    #[expect(clippy::expect_used, reason = "a test cannot go on without its server")]
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (access_key, secret_key, bucket) = ("AKIARUNMILLTEST", "secret-of-the-test-server", "attachments");
        std::fs::create_dir(dir.path().join(bucket)).expect("the bucket's folder");
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let domains = [format!("localhost:{}", address.port()), address.to_string()];
        let mut service = S3ServiceBuilder::new(FileSystem::new(dir.path()).expect("the folder is there"));
        service.set_auth(SimpleAuth::from_single(access_key, secret_key));
        service.set_host(MultiDomain::new(domains).expect("two domains"));
        let mut server = Self {
            endpoint: format!("http://{address}"),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            bucket: bucket.to_owned(),
            dir,
            address,
            service: service.build(),
            full: Arc::default(),
            running: None,
        };
        server.serve(listener);
        server
    }

    /// Cuts every connection and refuses new ones; the objects stay. Returns when the port is closed.
    #[expect(clippy::expect_used, reason = "a panic of the server must fail the test")]
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ = stop.send(());
            thread.join().expect("the S3 server's thread");
        }
    }

    /// On the same port as before; fails when somebody else has taken it meanwhile.
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        self.serve(bind(self.address)?);
        Ok(())
    }

    /// Whether it refuses what is written, as a store whose disk is full does. What is there can be read.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    /// What another process needs to use this server.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("RUNMILL_S3_ENDPOINT", self.endpoint.clone()),
            ("RUNMILL_S3_BUCKET", self.bucket.clone()),
            ("AWS_ACCESS_KEY_ID", self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.clone()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    /// The files of objects and of uploads that have not ended; without what the server notes about objects.
    pub fn files(&self) -> io::Result<Vec<PathBuf>> {
        let (mut dirs, mut files) = (vec![self.dir.path().to_owned()], Vec::new());
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type()?.is_dir() {
                    dirs.push(entry.path());
                } else if !name.starts_with(".bucket-") || name.contains(".upload-") {
                    files.push(entry.path());
                }
            }
        }
        files.sort();
        Ok(files)
    }

    #[expect(clippy::expect_used, reason = "a test cannot go on without its server")]
    fn serve(&mut self, listener: std::net::TcpListener) {
        let (stop, stopped) = oneshot::channel();
        let (service, full) = (self.service.clone(), self.full.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, service, full) => {}
                    _ = stopped => {}
                }
            });
            // Objects being written need not be waited for: an outage would not either.
            runtime.shutdown_background();
        });
        self.running = Some((stop, thread));
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Never returns; dropped, it closes its connections.
async fn accept(listener: TcpListener, service: S3Service, full: Arc<AtomicBool>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let (service, full) = (service.clone(), full.clone());
        connections.spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| async {
                let writes = [Method::PUT, Method::POST].contains(request.method());
                if writes && full.load(Ordering::SeqCst) { Ok(no_room()) } else { Service::call(&service, request).await }
            });
            // A client that goes away is the client's affair.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

fn no_room() -> Response<s3s::Body> {
    let error = "<Error><Code>InsufficientStorage</Code><Message>there is no room</Message></Error>";
    let mut answer = Response::new(s3s::Body::from(error.to_owned()));
    *answer.status_mut() = StatusCode::INSUFFICIENT_STORAGE;
    answer
}
