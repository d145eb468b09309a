//! Which addresses a tool may reach. A URL can come from a model, and so from anybody whose text the model has read: only addresses of
//! the public internet are reachable, by whatever spelling, redirect or DNS answer, except the hosts that the operator lists.
use std::{
    collections::BTreeSet,
    error::Error as StdError,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use futures::future::BoxFuture;
use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use runmill_shared::{Error, Result};

/// Why nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `BLOCKED_ADDRESS`, or `INVALID_URL` for what is no http(s) URL with a host and without credentials.
    pub code: &'static str,
    pub message: String,
}

impl Refused {
    fn blocked(what: impl fmt::Display) -> Self {
        Self { code: "BLOCKED_ADDRESS", message: format!("{what} is not an address of the public internet") }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self { code: "INVALID_URL", message: message.into() }
    }

    /// The refusal inside a failed request, where it was the resolver that refused.
    pub fn within<'a>(mut error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        loop {
            if let Some(refused) = error.downcast_ref() {
                return Some(refused);
            }
            error = error.source()?;
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Refused {}

/// Two clients with pools of their own: one resolves to public addresses only, the other serves the listed hosts. Neither follows
/// redirects nor uses a proxy: whoever calls checks each hop with `client`.
pub struct Guard {
    public: Client,
    listed: Client,
    allowed: BTreeSet<(String, Option<u16>)>,
}

impl Guard {
    /// `allow`: hosts that may be private, each `host` or `host:port`.
    ///
    /// # Errors
    /// `Invalid` naming the entries that are no hosts.
    pub fn new(allow: &[String]) -> Result<Self> {
        Self::resolving(allow, system)
    }

    fn resolving(allow: &[String], lookup: Lookup) -> Result<Self> {
        let (allowed, bad): (Vec<_>, Vec<_>) =
            allow.iter().map(|entry| parse_allowed(entry).ok_or(entry)).partition(Result::is_ok);
        let bad: Vec<_> = bad.into_iter().filter_map(Result::err).collect();
        if !bad.is_empty() {
            let message = format!("write host or host:port, IPv6 in brackets; not {bad:?}");
            return Err(Error::invalid("security.allow_private_hosts", message));
        }
        let builder = || {
            let client = Client::builder().no_proxy().referer(false).redirect(redirect::Policy::none());
            client.user_agent(concat!("runmill/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Self {
            public: builder().dns_resolver(PublicOnly(lookup)).build().map_err(Error::internal)?,
            listed: builder().build().map_err(Error::internal)?,
            allowed: allowed.into_iter().filter_map(Result::ok).collect(),
        })
    }

    /// The client that may request this URL. A host that is a name is checked once more where it is resolved, in the connect itself.
    pub fn client(&self, url: &Url) -> Result<&Client, Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused::invalid(format!("{}: only http and https are supported", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::invalid("credentials in a URL are not sent; use a header"));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let named = |port| self.allowed.contains(&(host.clone(), port));
        if named(None) || named(url.port_or_known_default()) {
            return Ok(&self.listed);
        }
        match host.trim_matches(['[', ']']).parse() {
            Ok(ip) if !is_public(ip) => Err(Refused::blocked(host)),
            Err(_) if is_localhost(&host) => Err(Refused::blocked(host)),
            _ => Ok(&self.public),
        }
    }
}

/// Names that are loopback wherever they are resolved (RFC 6761), so that DNS is not asked.
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host == "localhost" || host.ends_with(".localhost")
}

/// The host as a URL would have it, and the port when one is given.
fn parse_allowed(entry: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) if host.starts_with('[') == host.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (entry, None),
    };
    let url = Url::parse(&format!("http://{host}/")).ok()?;
    let bare = url.path() == "/"
        && url.port().is_none()
        && url.username().is_empty()
        && url.query().is_none()
        && url.fragment().is_none();
    url.host_str().filter(|_| bare).map(|host| (host.to_owned(), port))
}

/// Addresses of a name.
type Lookup = fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

fn system(name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
    Box::pin(async move { Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect()) })
}

/// A resolver, less what is not public. The connection is made to the addresses that were checked, so a second answer (DNS rebinding)
/// is never asked for.
struct PublicOnly(Lookup);

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.0)(name.as_str().to_owned());
        Box::pin(async move { Ok(Box::new(only_public(name.as_str(), found.await?.into_iter())?.into_iter()) as Addrs) })
    }
}

fn only_public(name: &str, found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
    let public: Vec<_> = found.filter(|addr| is_public(addr.ip())).collect();
    if public.is_empty() { Err(Refused::blocked(name)) } else { Ok(public) }
}

/// Whether an address is of the public internet (IANA's special-purpose registries, and the clouds' metadata addresses).
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = match (a, b, c) {
        (0 | 10 | 127, ..) => true,
        (100, 64..=127, _) => true,                                // carrier-grade NAT
        (169, 254, _) | (172, 16..=31, _) | (192, 168, _) => true, // link-local (cloud metadata), private
        (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) => true,  // protocol assignments, documentation
        (192, 88, 99) => true,                                     // 6to4 relays
        (198, 18 | 19, _) => true,                                 // benchmarking
        (168, 63, 129) => ip == Ipv4Addr::new(168, 63, 129, 16),   // Azure's platform address
        (224.., ..) => true,                                       // multicast, reserved, broadcast
        _ => false,
    };
    !special
}

/// Of IPv6 only global unicast is public, and what carries an IPv4 address is what that address is.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low), // IPv4-mapped
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low), // NAT64
        [0x2002, high, low, ..] => embedded(high, low),            // 6to4
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] if !embedded(high, low) => false, // ISATAP
        [0x2001, 0..=0x1ff, ..] => false,                          // Teredo, ORCHID, protocol assignments
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,    // documentation
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn public(ip: &str) -> bool {
        is_public(ip.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_are_public() {
        for ip in
            ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "168.63.129.15"]
        {
            assert!(public(ip), "{ip}");
            assert!(public(&format!("::ffff:{ip}")) && public(&format!("64:ff9b::{ip}")), "{ip} in IPv6");
        }
        for ip in ["2606:4700:4700::1111", "2a00:1450::1", "2002:808:808::1"] {
            assert!(public(ip), "{ip}");
        }
        let special = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ];
        for ip in special {
            assert!(!public(ip), "{ip}");
            assert!(
                !public(&format!("::ffff:{ip}")) && !public(&format!("64:ff9b::{ip}")) && !public(&format!("::{ip}")),
                "{ip} in IPv6"
            );
        }
        let special = [
            "::",
            "::1",
            "fd00::1",
            "fd00:ec2::254",
            "fc00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::",
            "64:ff9b:1::1",
            "2606:4700::5efe:10.0.0.1",
            "::ffff:0:127.0.0.1",
        ];
        for ip in special {
            assert!(!public(ip), "{ip}");
        }
    }

    #[test]
    fn a_dns_answer_keeps_its_public_addresses_only() {
        let addr = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 0);
        let mixed = [addr("10.0.0.1"), addr("1.1.1.1"), addr("::1")];
        assert_eq!(only_public("mixed.test", mixed.into_iter()), Ok(vec![addr("1.1.1.1")]));
        let refused = only_public("rebound.test", [addr("127.0.0.1")].into_iter()).unwrap_err();
        assert_eq!(refused.code, "BLOCKED_ADDRESS");
        assert!(refused.message.contains("rebound.test"));
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_loopback_is_not_connected_to() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        let error = Guard::new(&[]).unwrap().public.get(url).send().await.unwrap_err();
        let refused = Refused::within(&error).expect("refused by the resolver");
        assert_eq!(refused.code, "BLOCKED_ADDRESS");
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    /// A name server that answers with a public address first, and then with ours: what a rebinding attack does.
    #[tokio::test]
    async fn a_name_that_is_bound_anew_is_checked_anew_and_never_asked_between_check_and_connect() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        fn rebinding(_: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
            let first = ASKED.fetch_add(1, Ordering::SeqCst) == 0;
            let ip = if first { "1.1.1.1" } else { "127.0.0.1" };
            Box::pin(async move { Ok(vec![SocketAddr::new(ip.parse().unwrap(), 0)]) })
        }
        let resolver = PublicOnly(rebinding);
        let first: Vec<_> = resolver.resolve("rebound.test".parse().unwrap()).await.unwrap().collect();
        assert_eq!((first, ASKED.load(Ordering::SeqCst)), (vec!["1.1.1.1:0".parse().unwrap()], 1));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = Url::parse(&format!("http://rebound.test:{}/", listener.local_addr().unwrap().port())).unwrap();
        let guard = Guard::resolving(&[], rebinding).unwrap();
        let error = guard.client(&url).unwrap().get(url).send().await.unwrap_err();
        assert_eq!(Refused::within(&error).expect("refused by the resolver").code, "BLOCKED_ADDRESS");
        assert_eq!(ASKED.load(Ordering::SeqCst), 2, "one answer is checked and used");
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn the_allow_list_takes_hosts_with_or_without_a_port() {
        let parsed = |entry| parse_allowed(entry).unwrap_or_else(|| panic!("{entry}"));
        assert_eq!(parsed("LocalHost"), ("localhost".to_owned(), None));
        assert_eq!(parsed("127.0.0.1:80"), ("127.0.0.1".to_owned(), Some(80)));
        assert_eq!(parsed("[::1]"), ("[::1]".to_owned(), None));
        assert_eq!(parsed("[0:0::1]:9000"), ("[::1]".to_owned(), Some(9000)));
        for bad in ["", "http://x", "a/b", "host:port", "::1", "user@host", "host:99999"] {
            assert_eq!(parse_allowed(bad), None, "{bad}");
        }
        assert!(Guard::new(&["a/b".to_owned()]).is_err());
    }

    #[test]
    fn other_schemes_and_credentials_are_refused() {
        let guard = Guard::new(&[]).unwrap();
        for url in ["ftp://example.com/", "file:///etc/passwd", "http://user@example.com/", "https://:secret@example.com/"] {
            let refused = guard.client(&Url::parse(url).unwrap()).unwrap_err();
            assert_eq!(refused.code, "INVALID_URL", "{url}");
            assert!(!refused.message.contains("secret"));
        }
    }
}
