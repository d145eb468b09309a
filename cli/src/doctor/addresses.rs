//! Whether we could listen, or do so already.
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use runmill_shared::config::Config;
use serde_json::Value;

use super::{Finding, probe};

/// The address under which this machine reaches what listens on `address`.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

pub async fn check(config: &Config) -> Vec<Finding> {
    let platform = one("platform", "RUNMILL_PLATFORM_ADDR", config.listen.platform, "health").await;
    let ops = one("ops", "RUNMILL_OPS_ADDR", config.listen.ops, "livez").await;
    vec![platform, ops]
}

async fn one(name: &'static str, variable: &str, address: SocketAddr, path: &str) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) if address.port() == 0 => Finding::good(name, format!("{address}: any free port")),
        Ok(_) => Finding::good(name, format!("{address} is free")),
        Err(_) if ours(address, path).await => Finding::good(name, format!("{address}: a Runmill is running there")),
        Err(error) => {
            let mend = format!("stop what listens there, or choose another address with {variable}");
            Finding::bad(name, format!("cannot listen on {address}: {error}"), mend)
        }
    }
}

/// Both health pages are JSON objects whose `status` we know; a stuck Runmill is one too.
async fn ours(address: SocketAddr, path: &str) -> bool {
    let Ok(answer) = probe(&format!("http://{}/{path}", reachable(address))).await else { return false };
    let page: Value = answer.json().await.unwrap_or_default();
    matches!(page["status"].as_str(), Some("ok" | "stuck"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_reached_over_loopback() {
        for (given, expected) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("127.0.0.2:80", "127.0.0.2:80"),
        ] {
            assert_eq!(reachable(given.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
